"""From the name of a model to its directory: on this machine, or brought from the hub to the local cache.

A hub repository is fetched without its pickles and its code and then treated as a directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cert.backends.load_options import LoadOptions
from cert.backends.model_directory import check_directory, first_line, read_config
from cert.core.errors import (
    ConfigurationError,
    DependencyMissingError,
    InputError,
    ModelLoadError,
    ModelNotFoundError,
)

__all__ = ["REFERENCE", "locate", "peek_vocab_size"]

REFERENCE = "reference"

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


def locate(name: str, options: LoadOptions) -> tuple[Path, str | None]:
    """Find the directory of a model, fetch it to the local cache if need be, and check that it is safe.

    Returns:
        The directory, and the commit of the hub repository or ``None``.

    Raises:
        InputError: the name is empty.
        ConfigurationError: a revision of what has none, or code that is allowed but not pinned.
        ResourceError: it is not there, not safe or not a model's.
    """
    if not name.strip():
        raise InputError("the name of a model is empty")
    directory, revision = _existing(name), None
    if directory is not None:
        _refuse_revision(name, options)
    elif _looks_like_a_path(name):
        raise ModelNotFoundError(
            f"there is no model directory '{name}'",
            hint="give an existing directory, a hub id such as 'Qwen/Qwen2.5-7B', or 'reference'",
            context={"model": name},
        )
    else:
        directory, revision = _fetch(name, options)
    check_directory(name, directory, options)
    return directory, revision


def peek_vocab_size(name: str, options: LoadOptions) -> int | None:
    """Return the size of a model's vocabulary without loading it.

    Returns:
        The size that config.json names; ``None`` if it names none, or for a hub id, which is not fetched.

    Raises:
        ResourceError: the directory is not there, not safe or not a model's.
    """
    if _existing(name) is None and not _looks_like_a_path(name):
        return None
    directory, _ = locate(name, options)
    config = read_config(directory)
    text_config = config.get("text_config")
    size = (text_config if isinstance(text_config, dict) else config).get("vocab_size")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ModelLoadError(f"model '{name}' names a vocabulary of {size!r}", context={"model": name})
    return size


def _existing(name: str) -> Path | None:
    if name == REFERENCE:
        from cert.reference import weights

        return weights.path()
    try:
        path = Path(name).expanduser()
        if path.exists():
            return path
        broken = path.is_symlink()
    # A name too long for the file system, or of a user that is not there, is no path.
    except (OSError, RuntimeError, ValueError):
        return None
    if broken:  # nobody means a model of the hub that happens to have its name
        raise ModelNotFoundError(
            f"'{name}' is a link that leads to nothing, or in a circle",
            hint="mend the link, or give the directory itself",
            context={"model": name},
        )
    return None


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or os.sep in name.replace("/", "")


def _refuse_revision(name: str, options: LoadOptions) -> None:
    # A pin that is not kept would be worse than none.
    if options.revision is not None:
        raise ConfigurationError(
            f"revision '{options.revision}' is asked for, and '{name}' is a directory, which has none",
            hint="leave the revision out, or give the hub id where no directory has that name",
        )


def _fetch(name: str, options: LoadOptions) -> tuple[Path, str]:
    if options.allow_remote_code and not _COMMIT.fullmatch(options.revision or ""):
        raise ConfigurationError(
            f"the code of '{name}' is allowed to run but not pinned: it could be other code tomorrow",
            hint="name the commit whose code you have read: revision='…' with its 40 digits",
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise DependencyMissingError(
            f"models of the hub need the package '{error.name}'",
            hint="pip install 'cert-framework[local]'",
            context={"package": error.name},
        ) from error
    patterns = _HUB_FILES + (["*.bin"] if options.allow_pickle else [])
    patterns += ["*.py"] if options.allow_remote_code else []
    try:
        directory = Path(
            huggingface_hub.snapshot_download(
                name,
                revision=options.revision,
                allow_patterns=patterns,
                local_files_only=options.local_files_only,
            )
        )
    # Errors of the hub, of its HTTP library and of the file system, which no list names for long.
    except Exception as error:
        raise _not_fetched(name, options, error) from error
    # The cache names a snapshot's directory after its commit.
    return directory, directory.name


def _not_fetched(name: str, options: LoadOptions, error: Exception) -> ModelNotFoundError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    context = {"model": name, "revision": options.revision}
    if isinstance(error, GatedRepoError):
        return ModelNotFoundError(
            f"the hub gives model '{name}' only to those who were granted access",
            hint="ask for access on the model's page, then 'hf auth login'",
            context=context,
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(
            f"model '{name}' has no revision '{options.revision}' on the hub",
            hint="give a branch, a tag or a commit that is there",
            context=context,
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFoundError(
            f"model '{name}' is neither a directory nor on the hub, or it is private there",
            hint="check the spelling; for a private model, 'hf auth login'",
            context=context,
        )
    return ModelNotFoundError(
        f"model '{name}' is neither a directory nor whole in the local cache, and could not be fetched: "
        f"{first_line(error)}",
        hint=f"without a network: run 'hf download {name}' on a machine that has one and give the copied "
        "directory as the model, or use the model that comes with the package, 'reference'",
        context=context,
    )
