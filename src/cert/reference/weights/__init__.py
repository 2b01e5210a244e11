"""Where the shipped reference model lies: data and one function, importable by any layer."""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """Return the folder of the shipped weights, for ``AutoModelForCausalLM.from_pretrained``."""
    return Path(__file__).resolve().parent


__all__ = ["path"]
