"""Take out of a virtual environment what a service never runs: packages' own tests, headers, installers.

    python scripts/deployments/slim.py /opt/cert

What goes is named here; how much it was is printed for each kind. Licence texts and metadata stay.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Installers and build tools: nothing is installed into a running container.
INSTALLERS = (
    *("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack"),
    *("hatchling", "pathspec", "trove_classifiers", "pluggy", "editables"),
)
# Folders that hold a package's own tests. Some packages import from a folder of that name at run time.
TESTS = ("tests", "test")
TESTS_OF = ("numpy", "scipy", "sklearn", "joblib", "networkx", "sympy", "pandas", "torch")
# The second of two ways to the same library; the first is taken wherever it is there.
TWICE = ("zstandard/_cffi*.so", "zstandard/backend_cffi.py")
# Headers, static libraries and build files of torch, for those who compile extensions.
FOR_COMPILERS = ("torch/include", "torch/share/cmake", "torch/test", "numpy/_core/include", "numpy/_core/lib")


def size(path: Path) -> int:
    """Bytes below a path."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def kinds(packages: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield what goes, by kind."""
    found = [packages / name for name in INSTALLERS]
    found += [path for name in INSTALLERS for path in packages.glob(f"{name}-*.dist-info")]
    programs = packages.parents[2] / "bin"
    found += [path for name in ("pip*", "wheel", "hatchling") for path in programs.glob(name)]
    yield "installers", [*found, packages / "distutils-precedence.pth"]
    yield (
        "tests",
        [
            folder
            for name in TESTS_OF
            for kind in TESTS
            for folder in (packages / name).rglob(kind)
            if folder.is_dir()
        ],
    )
    yield "for compilers", [packages / name for name in FOR_COMPILERS]
    yield "what is there twice", [file for pattern in TWICE for file in packages.glob(pattern)]
    yield "compiled anew where it is needed", list(packages.rglob("__pycache__"))
    yield (
        "type stubs and sources of extensions",
        [file for kind in ("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.a") for file in packages.rglob(kind)],
    )


def main() -> None:
    """Take it out of the environment that the argument names."""
    (packages,) = Path(sys.argv[1]).glob("lib/python3*/site-packages")
    for kind, paths in kinds(packages):
        there = [path for path in paths if path.exists()]
        taken = sum(map(size, there))
        for path in there:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        sys.stdout.write(f"{kind}: {taken / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
