"""The Hamiltonian service: watched generations over HTTP, and a pass-through that speaks the OpenAI API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cert.services.hamiltonian.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    """Load the application, and FastAPI with it, when it is asked for."""
    if name == "create_app":
        from cert.services.hamiltonian.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
