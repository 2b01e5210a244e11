"""CERT watches language models at work: how far each generation can be trusted, token by token.

``import cert`` is light. The parts load when they are used: `cert.trajectory` (the Hamiltonian monitor),
`cert.signals` (the mathematics alone), `cert.backends` (where tokens come from).
"""

from cert._version import __version__

__all__ = ["__version__"]


def _warn_of_namesake() -> None:
    """Warn when ``cert-sdk`` is here too: it installs files into the same folder as this package."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("cert-sdk")
    except PackageNotFoundError:
        return
    import warnings

    warnings.warn(
        "the package 'cert-sdk' is installed beside 'cert-framework' and both provide the module 'cert': "
        "whichever was installed last has overwritten files of the other; uninstall both, then install one",
        RuntimeWarning,
        stacklevel=3,
    )


_warn_of_namesake()
