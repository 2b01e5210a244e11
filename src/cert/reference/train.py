"""Train the reference model: one pass over the corpus, seeded, resumable after a kill.

`prepare` builds the data, `Trainer.steps` trains and reports, and `cert.reference.export` writes a folder
that ``AutoModelForCausalLM.from_pretrained`` loads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from cert.reference.captured import CapturedStep
from cert.reference.corpus import write_corpus
from cert.reference.documents import PAD
from cert.reference.generate import generate_world
from cert.reference.packing import Rows, encode, pack
from cert.reference.recipe import Recipe
from cert.reference.tokenizer import token_id, train_tokenizer
from cert.reference.world import World

CHECKPOINT: Final = "checkpoint.pt"
CHECKPOINT_EVERY: Final = 250


@dataclass(frozen=True)
class Prepared:
    """World, tokenizer and packed rows of a recipe."""

    recipe: Recipe
    world: World
    tokenizer: Qwen2Tokenizer
    rows: Rows

    @property
    def fingerprint(self) -> str:
        """What must be equal for a checkpoint to be continued."""
        return f"{self.recipe.sha256}:{self.rows.sha256}"


def prepare(recipe: Recipe) -> Prepared:
    """Build the data of a run from its seed."""
    world = generate_world(recipe.seed, recipe.people)
    documents = write_corpus(world, recipe.follow)
    texts = (document.text for document in documents[: recipe.tokenizer_documents])
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    rows = pack(encode(documents, tokenizer.backend_tokenizer), recipe.row, token_id(tokenizer, PAD))
    return Prepared(recipe, world, tokenizer, rows)


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimiser step reports; ``loss`` is the weighted mean in nats a token."""

    index: int
    loss: float


class Trainer:
    """Model and optimiser of one run, with its place in the data.

    The order of the data is fixed by the seed and there is no dropout, so the state is the weights, the
    optimiser and the number of steps done: a run that was killed and continued gives the weights of one that
    was not. A GPU adds in no fixed order, so that two runs on it differ by rounding.
    """

    def __init__(self, prepared: Prepared, folder: Path, device: str | None = None) -> None:
        self.prepared = prepared
        self.recipe = prepared.recipe
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.manual_seed(self.recipe.seed)
        self.model = Qwen2ForCausalLM(self.recipe.model_config(prepared.tokenizer))
        self.model.to(self.device)  # type: ignore[arg-type]  # wrongly annotated by a decorator
        self._captured: CapturedStep | None = None
        self.optimiser = _optimiser(self.model, self.recipe, self.device)
        self.done = 0
        self.seconds = 0.0
        self._path = folder / CHECKPOINT

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return math.ceil(len(self.prepared.rows) / self.recipe.batch)

    def steps(self, until: int | None = None) -> Iterator[Step]:
        """Train, one report a step, saving a checkpoint now and then and at the end."""
        self.model.train()
        end = min(self.total, until or self.total)
        while self.done < end:
            started = time.perf_counter()
            loss = self._step(self.done)
            self.seconds += time.perf_counter() - started
            self.done += 1
            if self.done % CHECKPOINT_EVERY == 0 or self.done == end:
                self.save()
            yield Step(self.done, loss)

    def save(self) -> None:
        """Write the checkpoint so that a kill at any moment leaves the old or the new one whole."""
        state = {
            "fingerprint": self.prepared.fingerprint,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
            "seconds": self.seconds,
        }
        partial = self._path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self._path)

    def resume(self) -> bool:
        """Continue from the checkpoint, if there is one.

        Raises `ValueError` if it belongs to another recipe or other data.
        """
        if not self._path.exists():
            return False
        state: dict[str, Any] = torch.load(self._path, map_location=self.device, weights_only=True)
        if state["fingerprint"] != self.prepared.fingerprint:
            raise ValueError(f"{self._path} is a checkpoint of another recipe or other data")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.done = state["done"]
        self.seconds = state["seconds"]
        return True

    def hidden(self, tokens: torch.Tensor, documents: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states of packed rows, each document blind to its neighbours."""
        output = self.model.model(
            input_ids=tokens, attention_mask=_mask(documents), position_ids=positions, use_cache=False
        )
        states: torch.Tensor = output.last_hidden_state
        return states

    def _step(self, index: int) -> float:
        rate = learning_rate(index, self.total, self.recipe)
        if self.device.type == "cuda":
            self._captured = self._captured or self._capture()
            return self._captured(index, rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._loss(*self._batch(index))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        return float(loss.detach())

    def _capture(self) -> CapturedStep:
        pad = token_id(self.prepared.tokenizer, PAD)
        rows, recipe = self.prepared.rows, self.recipe
        return CapturedStep(self._loss, self.optimiser, recipe.clip, rows, recipe.batch, pad, self.device)

    def _batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        part = slice(index * self.recipe.batch, (index + 1) * self.recipe.batch)
        rows = self.prepared.rows
        return (
            torch.from_numpy(rows.tokens[part]).long(),
            torch.from_numpy(rows.weights[part]),
            torch.from_numpy(rows.documents[part]),
            torch.from_numpy(rows.positions[part]).long(),
        )

    def _loss(
        self, tokens: torch.Tensor, weights: torch.Tensor, documents: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Weighted mean cross-entropy in nats a token."""
        hidden = self.hidden(tokens, documents, positions)[:, :-1].flatten(0, 1)
        wanted, weight = tokens[:, 1:].flatten(), weights[:, 1:].flatten()
        if (
            self.device.type != "cuda"
        ):  # only what carries weight is worth its output; a graph's shapes are fixed
            scored = weight > 0
            hidden, wanted, weight = hidden[scored], wanted[scored], weight[scored]
        logits = self.model.lm_head(hidden)
        losses = functional.cross_entropy(logits, wanted, reduction="none")
        return (losses * weight).sum() / weight.sum()


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm = min(1.0, (step + 1) / recipe.warmup)
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / total))


def _mask(documents: torch.Tensor) -> torch.Tensor:
    """Boolean (batch, 1, query, key): same document and not later."""
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril()[:, None]


def _optimiser(model: Qwen2ForCausalLM, recipe: Recipe, device: torch.device) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if device.type != "cuda":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)
    for group in groups:  # a graph reads the learning rate on the device
        group["lr"] = torch.tensor(recipe.learning_rate, device=device)
    return torch.optim.AdamW(groups, betas=recipe.betas, fused=True, capturable=True)
