"""A model of natural language inference in this process: labels for pairs of premise and hypothesis."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cert.answers.entailment import EntailmentLabel
from cert.answers.equivalence import Pair
from cert.answers.normalize import bounded
from cert.backends.loading import LoadOptions, first_line, locate, require_libraries
from cert.backends.placement import resolve_device, resolve_dtype
from cert.core.errors import (
    ConfigurationError,
    ModelLoadError,
    NumericalError,
    OutOfMemoryError,
    PromptTooLongError,
)

__all__ = ["EntailmentModel", "TooLong"]

TooLong: TypeAlias = Literal["undecided", "refuse"]

_LABELS = tuple(EntailmentLabel)
_NAMES = {
    "entailment": EntailmentLabel.ENTAILMENT,
    "entail": EntailmentLabel.ENTAILMENT,
    "entails": EntailmentLabel.ENTAILMENT,
    "neutral": EntailmentLabel.NEUTRAL,
    "contradiction": EntailmentLabel.CONTRADICTION,
    "contradict": EntailmentLabel.CONTRADICTION,
    "contradicts": EntailmentLabel.CONTRADICTION,
}


class EntailmentModel:
    """A sequence classifier that transformers loads, such as ``microsoft/deberta-large-mnli``.

    Weights are read from safetensors only, and no code of the model's repository is run; there is no option
    to change that. May be used from several threads.

    Args:
        name: a directory or a hub id.
        device: as in `LoadOptions`.
        revision: branch, tag or commit of a hub repository.
        batch_size: pairs in one forward pass.
        too_long: what becomes of a pair that does not fit the model's window: ``undecided``, or ``refuse`` it
            and with it the call. It is never cut: the label of a part is not the label of the whole.
        labels: the label of each of the model's outputs, for a model whose config does not name them.

    Raises:
        DependencyMissingError: torch or transformers is not installed.
        ConfigurationError: an option that cannot be right.
        ModelNotFoundError: there is no such model here, and none could be fetched.
        UnsafeModelError: loading it would run code.
        ModelLoadError: it is no working classifier of entailment, neutrality and contradiction.
        OutOfMemoryError: the device has no memory for it.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str = "auto",
        revision: str | None = None,
        batch_size: int = 32,
        too_long: TooLong = "undecided",
        labels: Mapping[int, str] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, not {batch_size}")
        if too_long not in {"undecided", "refuse"}:
            raise ConfigurationError(f"too_long is 'undecided' or 'refuse', not {too_long!r}")
        self._torch, _ = require_libraries()
        options = LoadOptions(device=device, revision=revision)
        self._device = resolve_device(self._torch, device)
        directory, commit = locate(name, options)
        self._model, self._tokenizer = _load(name, directory, self._device)
        self._order = _order(name, dict(labels or self._model.config.id2label), self._model.config.num_labels)
        self.name = name if commit is None else f"{name}@{commit}"
        self.window = _window(self._model, self._tokenizer)
        self._batch_size = batch_size if self._tokenizer.pad_token_id is not None else 1
        self._too_long = too_long
        self._tokenizing = threading.Lock()

    def classify(self, pairs: Sequence[Pair], /) -> list[EntailmentLabel | None]:
        """Return the likeliest label of each pair, in order; ``None`` for one over the model's window.

        Raises:
            PromptTooLongError: a pair does not fit, and such are refused.
            NumericalError: the model's output is not a number.
            OutOfMemoryError: the device has no memory left for a batch.
        """
        probabilities = self.probabilities(pairs)
        return [None if np.isnan(row).any() else _LABELS[int(row.argmax())] for row in probabilities]

    def probabilities(self, pairs: Sequence[Pair], /) -> NDArray[np.float64]:
        """Return the (n, 3) probabilities of entailment, neutral and contradiction, NaN where not measured.

        Raises:
            CertError: as `classify`.
        """
        encoded = [self._encode(*pair) for pair in pairs]
        fitting = [i for i, one in enumerate(encoded) if self._fits(one)]
        result = np.full((len(pairs), len(_LABELS)), np.nan)
        # Pairs of like length share a batch, so that little of it is padding.
        fitting.sort(key=lambda i: len(encoded[i]["input_ids"]))
        for start in range(0, len(fitting), self._batch_size):
            batch = fitting[start : start + self._batch_size]
            result[batch] = self._forward([encoded[i] for i in batch])
        return result

    def _encode(self, premise: str, hypothesis: str) -> dict[str, list[int]]:
        with self._tokenizing:
            return dict(
                self._tokenizer(bounded(premise), bounded(hypothesis), truncation=False, verbose=False)
            )

    def _fits(self, encoded: dict[str, list[int]]) -> bool:
        length = len(encoded["input_ids"])
        if self.window is None or length <= self.window:
            return True
        if self._too_long == "refuse":
            raise PromptTooLongError(
                f"a pair of texts has {length} tokens and the model takes {self.window}",
                hint="compare extracted answers, or set too_long='undecided'",
                context={"tokens": length, "window": self.window},
            )
        return False

    def _forward(self, encoded: list[dict[str, list[int]]]) -> NDArray[np.float64]:
        torch = self._torch
        width = max(len(one["input_ids"]) for one in encoded)
        fill = {
            "input_ids": self._tokenizer.pad_token_id,
            "token_type_ids": self._tokenizer.pad_token_type_id,
        }
        inputs = {
            key: torch.tensor(
                [one[key] + [fill.get(key, 0)] * (width - len(one[key])) for one in encoded],
                device=self._device,
            )
            for key in encoded[0]
        }
        try:
            with torch.inference_mode():
                logits = self._model(**inputs).logits
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"no memory for {len(encoded)} pairs of {width} tokens",
                hint="a smaller batch_size or another device",
                context={"batch": len(encoded), "tokens": width},
            ) from error
        if not bool(torch.isfinite(logits).all()):
            raise NumericalError("the entailment model produced NaN or infinite logits")
        probabilities = torch.softmax(logits.double(), dim=-1)[:, self._order]
        return np.asarray(probabilities.cpu().numpy(), dtype=np.float64)


def _load(name: str, directory: Path, device: Any) -> tuple[Any, Any]:
    torch, transformers = require_libraries()
    hint = "check that the directory is complete and of a classifier trained for natural language inference"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            directory,
            output_loading_info=True,
            dtype=resolve_dtype(torch, "auto", device),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        model.to(device).eval()
    except (torch.OutOfMemoryError, MemoryError):
        # Without the traceback, whose frames hold the half-loaded model.
        raise OutOfMemoryError(
            f"no memory on {device} for model '{name}'",
            hint="another device",
            context={"model": name, "device": str(device)},
        ) from None
    # Whatever a damaged or hostile directory provokes inside the libraries, it is this one failure.
    except Exception as error:
        raise ModelLoadError(
            f"model '{name}' could not be loaded: {type(error).__name__}: {first_line(error)}",
            hint=hint,
            context={"model": name},
        ) from error
    # Without its head, a model would be given a random one: any language model would "classify".
    absent = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if absent:
        raise ModelLoadError(
            f"model '{name}' lacks weights: {', '.join(absent[:3])}{' …' if len(absent) > 3 else ''}",
            hint=hint,
            context={"model": name, "missing": len(absent)},
        )
    return model, tokenizer


def _order(name: str, named: Mapping[int, str], outputs: int) -> list[int]:
    """Return which output of the model is each label, in the order of `EntailmentLabel`."""
    labels = {index: _NAMES.get(str(label).strip().casefold()) for index, label in named.items()}
    where = {label: index for index, label in labels.items() if label is not None}
    if sorted(labels) != [0, 1, 2] or len(where) != 3 or outputs != 3:
        raise ModelLoadError(
            f"the outputs of model '{name}' are not entailment, neutral and contradiction, but "
            f"{', '.join(map(str, list(named.values())[:5])) or 'unnamed'}",
            hint="give labels={0: …, 1: …, 2: …} as the model's card names them, if it has these three",
            context={"model": name, "outputs": outputs},
        )
    return [where[label] for label in _LABELS]


def _window(model: Any, tokenizer: Any) -> int | None:
    """Return how many tokens the model takes, ``None`` if neither it nor its tokenizer says."""
    limits = [limit for limit in (tokenizer.model_max_length,) if limit < 1_000_000]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin count positions from behind the padding's.
        offsets = [
            module.padding_idx + 1
            for path, module in model.named_modules()
            if path.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        ]
        limits.append(positions - max(offsets, default=0))
    return min(limits, default=None)
