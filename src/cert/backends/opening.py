"""One name for a model wherever it runs: in this process or on a server."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import SecretStr

from cert.backends.base import Backend
from cert.core.errors import ConfigurationError, DependencyMissingError

if TYPE_CHECKING:
    from cert.backends.loading import LoadOptions
    from cert.backends.openai_server import ServerLimits
    from cert.core.resilience import ResiliencePolicy

__all__ = ["ServerOptions", "is_server", "open_backend"]

_PREFIX = "openai:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server is asked; see `cert.backends.openai_server.OpenAIBackend` for each."""

    api_key: SecretStr | None = field(default=None, repr=False)
    dialect: str = "auto"
    probe: bool = True
    top_logprobs: int = 20
    vocab_size: int | None = None
    limits: ServerLimits | None = None
    policy: ResiliencePolicy | None = None


def is_server(name: str) -> bool:
    """Say whether a name is that of a model on a server."""
    return name.startswith(_PREFIX)


def open_backend(
    name: str, options: LoadOptions | None = None, *, server: ServerOptions | None = None
) -> Backend:
    """Open a model by its name.

    Args:
        name: ``openai:MODEL@URL``, or what `cert.backends.loading.load_model` takes.
        options: how a model is loaded in this process.
        server: how a server is asked.

    Raises:
        DependencyMissingError: an extra that this needs is not installed.
        ConfigurationError: a name or option that cannot be right, or an option of the other kind.
        ResourceError: the model cannot be loaded.
    """
    if not is_server(name):
        if server is not None:
            raise ConfigurationError("options for a server were given, and the model is not on one")
        from cert.backends.loading import require_libraries

        require_libraries()  # whose absence the next import would meet without a hint
        from cert.backends.local import LocalBackend

        return LocalBackend.load(name, options)
    if options is not None:
        raise ConfigurationError("options for loading a model were given, and the model is on a server")
    if importlib.util.find_spec("openai") is None:
        raise DependencyMissingError(
            "models on a server need the package 'openai'",
            hint="pip install 'cert-framework[openai]'",
            context={"package": "openai"},
        )
    from cert.backends.openai_server import OpenAIBackend
    from cert.backends.openai_server.address import parse_name

    model, url = parse_name(name)
    chosen = server or ServerOptions()
    return OpenAIBackend(
        model,
        url,
        api_key=chosen.api_key,
        dialect=chosen.dialect,
        probe=chosen.probe,
        top_logprobs=chosen.top_logprobs,
        vocab_size=chosen.vocab_size,
        limits=chosen.limits,
        policy=chosen.policy,
    )
