"""``cert serve``: the two services over HTTP."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cert.core.errors import DependencyMissingError

if TYPE_CHECKING:
    from cert.core.config import Settings
    from cert.services.common.running import Bound

app = typer.Typer(name="serve", help="Serve the monitors over HTTP.", no_args_is_help=True)

Host = Annotated[str | None, typer.Option(help="Address to listen on [CERT_HOST; 127.0.0.1].")]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port of the metrics [CERT_METRICS_PORT]; 0 is any.")
]


@app.command("hamiltonian")
def hamiltonian(
    host: Host = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port [CERT_PORT; 8000]; 0 is any.")
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Serve the Hamiltonian monitor: analyses, streams, the pass-through of the OpenAI API, and a page."""
    _serve("hamiltonian", 8000, 9090, host, port, metrics_port)


@app.command("coordination")
def coordination(
    host: Host = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port [CERT_PORT; 8001]; 0 is any.")
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Serve the Coordination monitor: measurements as jobs, budgets, drift, and a page."""
    _serve("coordination", 8001, 9091, host, port, metrics_port)


def _serve(
    name: str,
    own_port: int,
    own_metrics_port: int,
    host: str | None,
    port: int | None,
    metrics_port: int | None,
) -> None:
    try:
        import fastapi  # noqa: F401  # whether it is there
        import uvicorn  # noqa: F401  # the same
    except ImportError as error:
        raise DependencyMissingError(
            "the services need FastAPI and uvicorn", hint="pip install 'cert-framework[services]'"
        ) from error
    from cert.observability.logging import configure_logging
    from cert.services.common.running import serve

    settings, metrics = _settings(host, own_metrics_port, metrics_port)
    configure_logging(**settings.logging.model_dump())  # a service's defaults, not those of a terminal
    _quiet_libraries()
    service = _create(name, settings)
    at = settings.service.port if port is None else port
    serve(
        service,
        port=own_port if at is None else at,
        metrics_port=metrics,
        ready=lambda bound: _announce(name, service, bound),
    )


def _quiet_libraries() -> None:
    """Keep the progress bars of transformers out of the log, also of models that are loaded later.

    By its settings, so that a service without a model of its own does not import it.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _settings(
    host: str | None, own_metrics_port: int, metrics_port: int | None
) -> tuple[Settings, int | None]:
    """The settings, with what the command line says above them, and the port of the metrics."""
    from cert.core.config import load_settings, read_settings

    settings = load_settings()
    _, reading, _ = read_settings()
    if host is not None:
        changed = settings.service.model_copy(update={"host": host})
        settings = settings.model_copy(update={"service": changed})
    if metrics_port is not None:
        return settings, metrics_port
    if "CERT_METRICS_ENABLED" in reading.found and not settings.metrics.enabled:
        return settings, None
    return settings, settings.metrics.port if "CERT_METRICS_PORT" in reading.found else own_metrics_port


def _create(name: str, settings: Settings) -> Any:
    return importlib.import_module(f"cert.services.{name}.app").create_app(settings)


def _announce(name: str, service: Any, bound: Bound) -> None:
    policy = service.state.base.policy
    typer.echo(f"CERT {name}: {bound.url}")
    typer.echo(f"  page     {bound.url}/ui")
    typer.echo(f"  metrics  {bound.metrics_url or 'not served (CERT_METRICS_ENABLED=false)'}")
    if policy.anonymous:
        typer.secho(f"  access   {policy.describe()}", err=True, bold=True, fg="yellow")
    else:
        typer.echo(f"  access   {policy.describe()}")
    sys.stdout.flush()  # whoever started it by a pipe waits for these lines
