"""Fail unless the torch that was installed is the build that the image is to have: ``cpu`` or ``cuda``."""

from __future__ import annotations

import sys

import torch


def main() -> None:
    """Compare the build with the argument."""
    wanted = sys.argv[1]
    found = "cpu" if torch.version.cuda is None else "cuda"
    if wanted != found:
        sys.exit(
            f"torch {torch.__version__} is the {found} build, and DEVICE is {wanted}: name the index that "
            "has the other one in TORCH_INDEX_URL (the installation page of torch lists them)"
        )


if __name__ == "__main__":
    main()
