"""CERT watches language models at work: how far each generation can be trusted, token by token.

``import cert`` is light. The parts load when they are used: `cert.trajectory` (the Hamiltonian monitor),
`cert.signals` (the mathematics alone), `cert.backends` (where tokens come from).
"""

from cert._version import __version__

__all__ = ["__version__"]
