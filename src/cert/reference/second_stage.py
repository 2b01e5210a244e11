"""Train the second stage: practice in the coordination templates beside rehearsal of what is known."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Final

import torch
from torch.nn import functional

from cert.backends.local import LocalBackend
from cert.reference.documents import PAD, Document
from cert.reference.drill import Drill, ask_beliefs, practice, rehearsal
from cert.reference.packing import Rows, encode, pack
from cert.reference.tokenizer import token_id
from cert.reference.train import Prepared, Trainer

CHECKPOINT: Final = "drill.pt"


@dataclass(frozen=True)
class DrillData:
    """Packed texts of the second stage."""

    practice: Rows
    rehearsal: Rows

    @property
    def sha256(self) -> str:
        """Digest of both."""
        return hashlib.sha256(f"{self.practice.sha256}{self.rehearsal.sha256}".encode()).hexdigest()


def prepare_drill(first: Trainer, drill: Drill) -> DrillData:
    """Ask the model of the finished first stage what it believes, and write the texts."""
    prepared = first.prepared
    first.model.train(mode=False)
    backend = LocalBackend(first.model, prepared.tokenizer, name="reference, first stage")
    seed = prepared.recipe.seed
    beliefs = ask_beliefs(backend, prepared.world, seed)
    rehearsed = rehearsal(backend, prepared.world, beliefs, seed)
    return DrillData(
        practice=_packed(prepared, practice(prepared.world, beliefs, drill, seed)),
        rehearsal=_packed(prepared, rehearsed),
    )


def _packed(prepared: Prepared, documents: list[Document]) -> Rows:
    encoded = encode(documents, prepared.tokenizer.backend_tokenizer)
    return pack(encoded, prepared.recipe.row, token_id(prepared.tokenizer, PAD))


class DrillTrainer(Trainer):
    """Starts from the first stage's weights with an optimiser of its own.

    The loss is the cross-entropy of the practice plus KL(first stage ‖ now) on the rehearsed texts, which are
    repeated as often as the practice lasts.
    """

    stage: ClassVar[str] = "templates"
    checkpoint: ClassVar[str] = CHECKPOINT

    def __init__(self, first: Trainer, folder: Path, drill: Drill, data: DrillData) -> None:
        super().__init__(first.prepared, folder, str(first.device))
        self.model.load_state_dict(first.model.state_dict())
        self.teacher = copy.deepcopy(self.model).train(mode=False).requires_grad_(requires_grad=False)
        self.drill = drill
        self.data = data
        self.peak = drill.learning_rate
        self.warmup = drill.warmup

    @property
    def fingerprint(self) -> str:
        """What must be equal for a checkpoint to be continued."""
        settings = json.dumps(asdict(self.drill), sort_keys=True)
        return f"{super().fingerprint}:{settings}:{self.data.sha256}"

    @property
    def total(self) -> int:
        """Steps of the stage."""
        return math.ceil(len(self.data.practice) / self.drill.practice_rows)

    @property
    def data_sha256(self) -> str:
        """Digest of the training data."""
        return self.data.sha256

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on so far, rehearsal included."""
        practised = self.data.practice.documents[: self.done * self.drill.practice_rows]
        share = float((self.data.rehearsal.documents > 0).mean())
        rehearsed = self.done * self.drill.rehearsal_rows * self.recipe.row * share
        return int((practised > 0).sum() + rehearsed)

    def _loss(self, index: int) -> torch.Tensor:
        start = index * self.drill.practice_rows
        rows = range(start, min(start + self.drill.practice_rows, len(self.data.practice)))
        return self.cross_entropy(self.data.practice, list(rows)) + self._forgetting(index)

    def _forgetting(self, index: int) -> torch.Tensor:
        """KL divergence in nats a token from the first stage's distribution, over the rehearsed texts."""
        rehearsed = self.data.rehearsal
        start = index * self.drill.rehearsal_rows
        rows = [(start + offset) % len(rehearsed) for offset in range(self.drill.rehearsal_rows)]
        now, _, _ = self.scored_logits(self.model, rehearsed, rows)
        with torch.no_grad():
            before, _, _ = self.scored_logits(self.teacher, rehearsed, rows)
        return functional.kl_div(
            now.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean"
        )
