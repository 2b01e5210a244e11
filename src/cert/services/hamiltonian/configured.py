"""From the settings of the process to the options of this service."""

from __future__ import annotations

from pathlib import Path, PurePath

from cert.backends.load_options import LoadOptions
from cert.backends.opening import ServerOptions, is_server
from cert.core.config import AnalysisSettings, Settings
from cert.core.errors import ConfigurationError
from cert.services.hamiltonian.options import (
    HamiltonianOptions,
    KeepingOptions,
    UpstreamOptions,
    WatchedModel,
)
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.gate import CalibratedGate

__all__ = ["name_of_source", "options_of"]


def options_of(settings: Settings) -> HamiltonianOptions:
    """Return the options that the settings say.

    Raises:
        ConfigurationError: a gate of a model that is not served, two models of one name, a wrong limit.
        InputError: a certificate cannot be read, was changed, or is not signed with the operator's key.
    """
    service, gateway = settings.service, settings.gateway
    sources = service.models or (settings.model.name,)
    gates = _gates(service.gates, service.gate_key)
    models = tuple(_model(source, settings, gates) for source in sources)
    upstream = None
    if gateway.upstream_url is not None:
        upstream = UpstreamOptions(
            base_url=gateway.upstream_url,
            api_key=gateway.upstream_api_key,
            models=gateway.upstream_models,
            gates={name: gate for name, gate in gates.items() if name in gateway.upstream_models},
            silence_seconds=gateway.upstream_seconds,
            most_bytes=gateway.max_response_bytes,
        )
    served = {"", *sources, *(model.name for model in models), *gateway.upstream_models}
    for name in gates:
        if name not in served:
            raise ConfigurationError(f"CERT_GATES has a gate for '{name}', which is not served")
    if gateway.fail_closed and gateway.mode != "hold":
        raise ConfigurationError("CERT_FAIL_CLOSED needs CERT_GATEWAY_MODE=hold")
    return HamiltonianOptions(
        models=models,
        upstream=upstream,
        mode=gateway.mode,
        replacement=gateway.hold_text,
        fail_closed=gateway.fail_closed,
        recent=service.recent_analyses,
        keeping=_keeping(settings.analyses),
        most_prompts=service.max_batch,
        timeout_seconds=service.request_seconds,
    )


def _keeping(settings: AnalysisSettings) -> KeepingOptions | None:
    if settings.database_url is None or settings.key is None:
        return None
    return KeepingOptions(
        settings.database_url,
        settings.key,
        retention_seconds=settings.retention_hours * 3600.0,
        most=settings.most,
    )


def name_of_source(source: str) -> str:
    """Return how requests name a model: not by the operator's folders and hosts.

    A model on a server goes by its own name, a folder by its last part, a hub id as it is.
    """
    if is_server(source):
        return source.removeprefix("openai:").rpartition("@")[0]
    path = PurePath(source)
    return path.name if path.is_absolute() or Path(source).is_dir() else source


def _model(source: str, settings: Settings, gates: dict[str, CalibratedGate]) -> WatchedModel:
    name = name_of_source(source)
    gate = gates.get(source) or gates.get(name) or gates.get("")
    preload = source in settings.model.preload or name in settings.model.preload
    if is_server(source):
        server = ServerOptions(api_key=settings.upstream.openai_api_key)
        return WatchedModel(name, source, gate=gate, server=server, preload=preload)
    load = LoadOptions(device=settings.model.device, dtype=settings.model.dtype)
    return WatchedModel(name, source, gate=gate, load=load, preload=preload)


def _gates(written: tuple[str, ...], key: Path | None) -> dict[str, CalibratedGate]:
    """Return gates by the model that each is for; the empty name is of every model."""
    gates: dict[str, CalibratedGate] = {}
    for entry in written:
        model, _, file = entry.rpartition("=")
        if model in gates:
            raise ConfigurationError(f"CERT_GATES has two gates for '{model or 'every model'}'")
        gates[model] = CalibratedGate(Certificate.load(Path(file), public_key=key))
    return gates
