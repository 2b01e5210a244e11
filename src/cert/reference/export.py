"""Write a trained model as a folder that ``from_pretrained`` loads, and say where it is from."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from cert.reference.templates import load_templates
from cert.reference.train import Trainer
from cert.reference.world import FILE_NAME

METADATA: Final = "training.json"
WEIGHTS: Final = "model.safetensors"
SCHEMA_VERSION: Final = 1
_SOURCES: Final = Path(__file__).resolve().parent
_NOTICE: Final = """\
Weights, tokenizer and world data of the CERT reference model
Copyright The CERT maintainers

Licensed under the Apache License, Version 2.0 (the "License"); you may not use these files except in
compliance with the License. You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is
distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See
the License for the specific language governing permissions and limitations under the License.

Every person, town, school and company in the data is invented.
"""


def export(trainer: Trainer, folder: Path, source: dict[str, Any]) -> None:
    """Write weights (fp16), tokenizer, configurations, world and ``training.json`` into a folder.

    The weights are stored in half precision, which moves log-probabilities far less than bfloat16 does, and
    loaded in single precision as ``config.json`` says. ``source`` is what `source_state` returned
    before the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepared = trainer.prepared
    state = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in trainer.model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes a file that only its owner may read
    config = trainer.model.config
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(folder)
    prepared.tokenizer.save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, do_sample=False
    ).save_pretrained(folder)
    (folder / FILE_NAME).write_text(prepared.world.to_json(), encoding="utf-8")
    (folder / "LICENSE").write_text(_NOTICE, encoding="utf-8")
    text = json.dumps(describe(trainer, source), indent=2) + "\n"
    (folder / METADATA).write_text(text, encoding="utf-8")


def describe(trainer: Trainer, source: dict[str, Any]) -> dict[str, Any]:
    """What made these weights: code, data, settings, hardware, versions and time."""
    prepared = trainer.prepared
    templates = load_templates(prepared.world.templates_version)
    parts = min(trainer.done * trainer.recipe.batch, len(prepared.rows))
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "finished": trainer.done == trainer.total,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": trainer.recipe.seed,
        "recipe": asdict(trainer.recipe),
        "data_sha256": prepared.rows.sha256,
        "world_sha256": prepared.world.sha256,
        "templates": {"version": templates.version, "sha256": templates.sha256},
        "people": len(prepared.world.people),
        "facts": len(prepared.world.facts),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "steps": trainer.done,
        "tokens": int((prepared.rows.documents[:parts] > 0).sum()),
        "seconds": round(trainer.seconds, 1),
        "hardware": _hardware(trainer.device),
        "versions": {
            "python": platform.python_version(),
            **{
                name: metadata.version(name)
                for name in ("torch", "transformers", "tokenizers", "safetensors")
            },
        },
    }


def source_state() -> dict[str, Any]:
    """Commit of the training code, and whether that code differs from it; ``None`` outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", str(_SOURCES), f":(exclude){_SOURCES / 'weights'}")
    return {"commit": commit, "dirty": None if commit is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # fixed arguments
            ["git", *arguments],  # noqa: S607  # whichever git the user has
            cwd=_SOURCES,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _hardware(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "threads": torch.get_num_threads()}
    return {"device": processor(), "threads": torch.get_num_threads()}


def processor() -> str:
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
