from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from cert.core.errors import ConfigurationError, OutputError
from cert.reference.documents import ANSWER_WEIGHT, BIOGRAPHY_WEIGHT, Document
from cert.reference.export import export
from cert.reference.packing import encode, pack
from cert.reference.recipe import Recipe
from cert.reference.run import train
from cert.reference.train import Prepared, Step, Trainer, learning_rate

STEPS = 8


def run(prepared: Prepared, folder: Path, until: int) -> tuple[Trainer, list[Step]]:
    folder.mkdir(exist_ok=True)
    trainer = Trainer(prepared, folder, "cpu")
    trainer.resume()
    return trainer, list(trainer.steps(until))


def test_a_resumed_training_equals_an_uninterrupted_one(prepared: Prepared, tmp_path: Path) -> None:
    """Otherwise a killed training has to start again, or gives other weights than its metadata say."""
    whole, expected = run(prepared, tmp_path / "whole", STEPS)
    _, first = run(prepared, tmp_path / "parts", STEPS // 2)
    resumed, second = run(prepared, tmp_path / "parts", STEPS)
    assert first + second == expected
    assert all(
        torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    )


def test_a_kill_while_saving_leaves_the_old_checkpoint(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut at the wrong moment costs the whole training."""
    run(prepared, tmp_path, 2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cert.reference.train.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path, 4)
    monkeypatch.undo()
    trainer, steps = run(prepared, tmp_path, 4)
    assert [step.index for step in steps] == [3, 4]
    assert trainer.done == 4


def test_a_checkpoint_of_another_recipe_is_refused(prepared: Prepared, tiny: Recipe, tmp_path: Path) -> None:
    """Otherwise two half-trained models would be mixed into one."""
    out = tmp_path / "model"
    work = tmp_path / "model.run"
    run(prepared, work, 1)
    other = Recipe(seed=tiny.seed, people=tiny.people, follow=tiny.follow, width=32, layers=1, heads=2)
    with pytest.raises(ConfigurationError, match="another recipe"):
        train(other, out, device="cpu")


def test_a_path_that_cannot_be_written_fails_before_training(tiny: Recipe, tmp_path: Path) -> None:
    """Otherwise an hour of training ends in an error about a folder."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        train(tiny, tmp_path / "file" / "model", report=lambda *_: pytest.fail("trained"))


def test_training_lowers_the_loss(prepared: Prepared, tmp_path: Path) -> None:
    """Otherwise the training command writes random weights."""
    _, steps = run(prepared, tmp_path, 30)
    assert steps[-1].loss < 0.9 * steps[0].loss


def test_an_exported_folder_loads_as_it_was_trained(prepared: Prepared, tmp_path: Path) -> None:
    """Otherwise the file that users get is not the model that was measured."""
    trainer, _ = run(prepared, tmp_path / "run", 2)
    export(trainer, tmp_path / "model", {"commit": None, "dirty": None})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.dtype == torch.float32
    trained = trainer.model.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, trained[name].half().float())
    metadata = json.loads((tmp_path / "model" / "training.json").read_text())
    assert metadata["steps"] == 2
    assert metadata["finished"] is False
    assert metadata["data_sha256"] == prepared.rows.sha256


def test_a_document_is_blind_to_its_neighbours_in_a_row(prepared: Prepared, tmp_path: Path) -> None:
    """Otherwise the model learns to copy facts from unrelated documents that shared its row."""
    trainer, _ = run(prepared, tmp_path, 1)
    rows = prepared.rows
    row = next(r for r in range(len(rows)) if rows.documents[r].max() >= 3)
    hidden = _hidden(trainer, prepared, row, rows.tokens[row])
    changed = rows.tokens[row].copy()
    changed[rows.documents[row] == 1] = 7
    other = _hidden(trainer, prepared, row, changed)
    alike = torch.isclose(hidden, other, atol=1e-5).all(-1).numpy()
    assert alike[rows.documents[row] == 2].all()
    assert not alike[rows.documents[row] == 1].all()


def _hidden(trainer: Trainer, prepared: Prepared, row: int, tokens: np.ndarray) -> torch.Tensor:
    rows = prepared.rows
    with torch.no_grad():
        out: torch.Tensor = trainer.hidden(
            torch.from_numpy(tokens[None]).long(),
            torch.from_numpy(rows.documents[row : row + 1]),
            torch.from_numpy(rows.positions[row : row + 1]).long(),
        )
    return out[0]


def test_rows_hold_every_document_whole_and_once(prepared: Prepared, documents: list[Document]) -> None:
    """Otherwise facts would be cut at the end of a row and seen less often than counted."""
    encoded = list(encode(documents[:400], prepared.tokenizer.backend_tokenizer))
    rows = pack(encoded, 128, pad=3)
    found = [
        rows.tokens[r][rows.documents[r] == number].tolist()
        for r in range(len(rows))
        for number in range(1, rows.documents[r].max() + 1)
    ]
    assert sorted(found) == sorted(ids for ids, _ in encoded)
    with pytest.raises(ValueError, match="does not fit"):
        pack(encoded, 8, pad=3)


def test_answers_weigh_more_than_the_rest_and_prompts_nothing(
    prepared: Prepared, documents: list[Document]
) -> None:
    """Otherwise the model learns wordings instead of facts, or loses wordings that it never saw."""
    backend = prepared.tokenizer.backend_tokenizer
    biography = next(d for d in documents if d.kind == "sentence")
    ((ids, weights),) = encode([biography], backend)
    values = [backend.decode([i]) for i, w in zip(ids, weights, strict=True) if w == ANSWER_WEIGHT]
    assert "".join(values).split() == " ".join(fact.value for fact in biography.facts).split()
    assert set(weights) == {0.0, BIOGRAPHY_WEIGHT, ANSWER_WEIGHT}
    assert weights[0] == 0.0
    chat = next(d for d in documents if d.kind == "chat")
    ((ids, weights),) = encode([chat], backend)
    scored = backend.decode([i for i, w in zip(ids, weights, strict=True) if w], skip_special_tokens=False)
    assert scored == f" {chat.facts[0].value}<|im_end|>"


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    """Otherwise training diverges at the start or stops before it has settled."""
    rates = [learning_rate(step, 1000, Recipe()) for step in range(1001)]
    assert rates[0] < rates[50] < rates[99]
    assert max(rates) == pytest.approx(Recipe().learning_rate, rel=0.05)
    assert rates[1000] == pytest.approx(0, abs=1e-9)
