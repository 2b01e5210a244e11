"""Metrics that are read when Prometheus asks: of the event hubs, the logs, the build and the process."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cert import __version__
from cert.core.events import EventHub
from cert.observability.catalogue import CATALOGUE
from cert.observability.losses import lost_lines

__all__ = ["OwnCollector"]

_HELP = {metric.name: metric.help for metric in CATALOGUE}


class OwnCollector(Collector):
    """What the observers themselves lost, and which build runs.

    Hubs are kept alive: a sum that a hub dropped out of would fall, which a counter never does.
    """

    def __init__(self) -> None:
        self._hubs: list[EventHub] = []
        self._lock = threading.Lock()

    def watch(self, hub: EventHub) -> None:
        """Add a hub's counts to the sums; once, however often it is asked for."""
        with self._lock:
            if not any(known is hub for known in self._hubs):
                self._hubs.append(hub)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        with self._lock:
            hubs = list(self._hubs)
        yield _count("cert_events_lost_total", sum(hub.lost for hub in hubs))
        yield _count("cert_observer_failures_total", sum(hub.failures for hub in hubs))
        yield _count("cert_log_lines_lost_total", lost_lines())
        build = GaugeMetricFamily("cert_build_info", _HELP["cert_build_info"], labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build


def _count(name: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, _HELP[name], value=value)
