"""Packages that only the clients need."""

from __future__ import annotations

import importlib.util

from cert.core.errors import DependencyMissingError

__all__ = ["require"]


def require(package: str, purpose: str) -> None:
    """Refuse at once, with what to install, where a package is missing.

    Raises:
        DependencyMissingError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise DependencyMissingError(
            f"{purpose} needs the package '{package.replace('_', '-')}'",
            hint="pip install 'cert-framework[coordination]'",
            context={"package": package},
        )
