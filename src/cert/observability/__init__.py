"""Logs, metrics, traces and profiles: subscribers of the core's events, known by nothing that they watch.

Each module is imported by its own name, since each needs a library of its own.
"""

__all__: list[str] = []
