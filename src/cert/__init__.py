"""CERT watches language models at work: how far each generation can be trusted, token by token.

``import cert`` is light. The parts load when they are used: `cert.trajectory` (the Hamiltonian monitor),
`cert.signals` (the mathematics alone), `cert.backends` (where tokens come from).
"""

import os

from cert._version import __version__

__all__ = ["__version__"]


def _warn_of_namesake(site: str) -> None:
    """Warn when ``cert-sdk`` is installed into the same folder: both packages bring the module ``cert``."""
    # importlib.metadata would answer too, at more than the rest of this import costs.
    try:
        entries = os.listdir(site)
    except OSError:  # inside a zip archive
        return
    if not any(entry.startswith("cert_sdk-") for entry in entries):
        return
    import warnings

    warnings.warn(
        "the package 'cert-sdk' is installed beside 'cert-framework' and both provide the module 'cert': "
        "whichever was installed last has overwritten files of the other; uninstall both, then install one",
        RuntimeWarning,
        stacklevel=3,
    )


_warn_of_namesake(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
