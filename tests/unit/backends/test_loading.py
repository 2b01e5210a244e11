"""Models are untrusted: nothing that comes with one runs, and what is missing is said."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from cert.backends.base import GenerationRequest
from cert.backends.loading import LoadOptions, load_model, peek_vocab_size
from cert.backends.local import LocalBackend
from cert.backends.placement import resolve_device
from cert.core.errors import (
    ConfigurationError,
    InputError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfMemoryError,
    UnsafeModelError,
)


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary-has-run"


def plant(folder: Path, name: str, canary: Path) -> None:
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))


def test_the_canary_works(tmp_path, canary):
    """Without this the tests below would prove nothing."""
    plant(tmp_path, "x.bin", canary)
    pickle.loads((tmp_path / "x.bin").read_bytes())
    assert canary.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"])
def test_pickled_weights_are_refused_and_not_read(model_folder, canary, name):
    """A downloaded model would run its author's code on the user's machine."""
    (model_folder / "model.safetensors").unlink()
    plant(model_folder, name, canary)
    with pytest.raises(UnsafeModelError, match=name) as caught:
        load_model(str(model_folder))
    assert "safetensors" in str(caught.value.hint)
    assert not canary.exists()


def test_a_pickle_beside_safetensors_is_never_opened(model_folder, canary):
    """Many repositories hold both; the safe one is enough."""
    plant(model_folder, "pytorch_model.bin", canary)
    assert LocalBackend.load(str(model_folder)).identity.vocab_size
    assert not canary.exists()


def test_even_allowed_pickles_may_hold_weights_only(model_folder, canary):
    """Allowing old weights is not allowing code."""
    (model_folder / "model.safetensors").unlink()
    plant(model_folder, "pytorch_model.bin", canary)
    with pytest.raises(ModelLoadError):
        load_model(str(model_folder), LoadOptions(allow_pickle=True))
    assert not canary.exists()


def test_allowed_pickled_weights_load(model_folder, random_model):
    """The way out for a user who has only old weights must work."""
    (model_folder / "model.safetensors").unlink()
    torch.save(random_model.state_dict(), model_folder / "pytorch_model.bin")
    loaded = load_model(str(model_folder), LoadOptions(allow_pickle=True))
    expected = random_model.get_input_embeddings().weight
    assert torch.equal(loaded.model.get_input_embeddings().weight, expected)


def test_a_pickled_adapter_is_refused(model_folder, canary):
    """Adapters are loaded along with the model, so they are held to the same rule."""
    plant(model_folder, "adapter_model.bin", canary)
    with pytest.raises(UnsafeModelError, match=r"adapter_model\.bin"):
        load_model(str(model_folder))
    assert not canary.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_and_not_run(model_folder, canary, file):
    """`auto_map` names Python files of the repository that loading would run."""
    path = model_folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoConfig": "evil.Config"}}))
    (model_folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    with pytest.raises(UnsafeModelError, match=file):
        load_model(str(model_folder))
    assert not canary.exists()


def test_a_model_that_is_not_there_says_what_to_do_offline(tmp_path):
    """The first thing that goes wrong for a user without a network."""
    with pytest.raises(ModelNotFoundError) as caught:
        load_model("some-lab/some-model-that-is-not-here")
    assert "some-lab/some-model-that-is-not-here" in caught.value.message
    assert "hf download" in str(caught.value.hint)
    assert "reference" in str(caught.value.hint)


def test_a_link_that_leads_nowhere_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    """The name of a user's own folder goes to nobody, and the message is about the link."""
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    Path("gone").symlink_to("was/here")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    for name in ("circle", "gone", str(tmp_path / "circle")):
        with pytest.raises(ModelNotFoundError, match="a link that leads"):
            load_model(name)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    """A misspelt path must not become a network request."""
    with pytest.raises(ModelNotFoundError, match="no model directory"):
        load_model(str(tmp_path / "nope"))


@pytest.mark.parametrize(
    "break_it", ["no config", "no weights", "bad json", "truncated weights", "wrong shapes"]
)
def test_a_damaged_folder_is_a_load_error(model_folder, break_it):
    """A half-copied model must not come up as a Python traceback, or with random weights."""
    config = model_folder / "config.json"
    weights = model_folder / "model.safetensors"
    if break_it == "no config":
        config.unlink()
    elif break_it == "no weights":
        weights.unlink()
    elif break_it == "bad json":
        config.write_text("{")
    elif break_it == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 64}))
    with pytest.raises(ModelLoadError):
        load_model(str(model_folder))


def test_weights_that_are_missing_from_the_file_are_a_load_error(model_folder):
    """Transformers fills missing weights with random numbers; every figure would be about another model."""
    weights = load_file(model_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="up_proj"):
        load_model(str(model_folder))


def test_a_file_is_not_a_model_directory(tmp_path):
    """A GGUF file, say: the message names what is expected."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        load_model(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("options", [{"device": "tpu9"}, {"device": "cuda:99"}, {"dtype": "int3"}])
def test_unknown_devices_and_types_are_refused_by_name(options):
    """Refused before any weight is read."""
    with pytest.raises(ConfigurationError, match=next(iter(options.values()))):
        load_model("reference", LoadOptions(**options))


def test_an_empty_name_is_refused():
    """An unset variable must not load some default model."""
    with pytest.raises(InputError):
        load_model("  ")


def test_the_vocabulary_is_known_without_loading(model_folder, random_model):
    """Thresholds are checked when a monitor is made, which must stay cheap."""
    assert peek_vocab_size(str(model_folder), LoadOptions()) == random_model.config.vocab_size
    assert peek_vocab_size("some-lab/some-model", LoadOptions()) is None


def test_the_reference_model_is_found_by_name(tmp_path, monkeypatch):
    """From any folder, also one that holds something called like it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "reference", ignore=lambda *_: ["reference"])
    assert load_model("reference").name == "reference"


def index_of(folder: Path, shard: str) -> None:
    """Write an index that sends every weight to one file."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def overwrite(folder: Path) -> None:
    """Copy other weights over the file, as ``cp`` does: in place."""
    weights = load_file(folder / "model.safetensors")
    save_file({key: value * 1.5 for key, value in weights.items()}, folder / "new", metadata={"format": "pt"})
    with (folder / "model.safetensors").open("r+b") as file:
        file.write((folder / "new").read_bytes())


def test_a_running_model_does_not_follow_its_file(model_folder):
    """A new version copied over the old one must not change the numbers of requests on their way."""
    model = load_model(str(model_folder)).model
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        before = model(ids).logits
        overwrite(model_folder)
        assert torch.equal(model(ids).logits, before)
        assert not torch.equal(load_model(str(model_folder)).model(ids).logits, before)


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "weights.dat"])
def test_an_index_that_names_pickles_is_refused(model_folder, canary, shard):
    """A safetensors file for show must not open the door to a pickle."""
    index_of(model_folder, shard)
    plant(model_folder, shard, canary)
    with pytest.raises(UnsafeModelError, match=shard):
        load_model(str(model_folder))
    assert not canary.exists()


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_that_leads_out_of_the_directory_is_refused(model_folder, shard):
    """A model must not choose which other files of the machine are read."""
    index_of(model_folder, shard)
    for options in (LoadOptions(), LoadOptions(allow_pickle=True)):
        with pytest.raises(UnsafeModelError, match="out of its directory"):
            load_model(str(model_folder), options)


@pytest.mark.parametrize(
    "setting",
    [
        {"transformers_weights": "evil.bin"},
        {"_attn_implementation": "org/repository@main"},
        {"attn_implementation": {"": "org/repository"}},
        {"_experts_implementation": "org/repository"},
        {"text_config": {"_attn_implementation": "org/repository"}},
        {"parts": [{"transformers_weights": "evil.bin"}]},
    ],
    ids=str,
)
def test_a_config_that_sends_the_loader_elsewhere_is_refused(model_folder, setting):
    """What was checked must be what is loaded."""
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    with pytest.raises(UnsafeModelError, match=next(iter(setting))):
        load_model(str(model_folder))


def test_allowed_code_of_another_repository_is_refused_all_the_same(model_folder):
    """Who has read this repository's code has not read the other one's."""
    path = model_folder / "config.json"
    elsewhere = {"auto_map": {"AutoConfig": "org/other--evil.Config"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | elsewhere))
    with pytest.raises(UnsafeModelError, match="another repository"):
        load_model(str(model_folder), LoadOptions(allow_remote_code=True))


def test_a_program_beside_the_weights_is_never_run(model_folder, canary):
    """Transformers looks for a `generate` of the model's own."""
    (model_folder / "custom_generate").mkdir()
    for file in ("custom_generate/generate.py", "modeling.py", "conftest.py", "__init__.py"):
        (model_folder / file).write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    backend = LocalBackend.load(str(model_folder))
    backend.generate(GenerationRequest("The", max_new_tokens=2))
    backend.close()
    assert not canary.exists()


def test_shards_that_are_missing_are_named(model_folder):
    """The most common damage of a copied model; transformers would say only that something is missing."""
    index_of(model_folder, "model-00002-of-00002.safetensors")
    with pytest.raises(ModelLoadError, match=r"lacks 1 of the 1 files of its weights: model-00002"):
        load_model(str(model_folder))


def test_a_revision_of_a_directory_is_refused(model_folder):
    """A pin that is not kept would be worse than none."""
    for name in (str(model_folder), "reference"):
        with pytest.raises(ConfigurationError, match="is a directory, which has none"):
            load_model(name, LoadOptions(revision="main"))


def machine(*, cuda: int) -> Any:
    """A torch that sees CUDA devices, which this machine may not have."""
    return SimpleNamespace(
        device=torch.device,
        cuda=SimpleNamespace(is_available=lambda: cuda > 0, device_count=lambda: cuda),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)),
    )


def test_a_device_number_that_is_not_there_is_refused():
    """Told with what is there, before a model is fetched for it."""
    assert resolve_device(machine(cuda=2), "cuda:1") == torch.device("cuda:1")
    assert resolve_device(machine(cuda=2), "auto") == torch.device("cuda")
    with pytest.raises(ConfigurationError, match="there are 2"):
        resolve_device(machine(cuda=2), "cuda:2")


@pytest.mark.parametrize("name", ["meta", "xpu", "", "cuda:-1", "cpu:x", "cuda:", None, 3])
def test_devices_that_cannot_run_a_model_are_refused(name):
    """Whatever a variable held, the message names it and what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        resolve_device(machine(cuda=2), name)
    assert "mps" in str(caught.value.hint)


def test_no_memory_for_a_model_says_what_would_fit(model_folder, monkeypatch):
    """A user of a small GPU needs the way out, and nothing of the half-loaded model may stay."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(OutOfMemoryError, match="Tried to allocate") as caught:
        load_model(str(model_folder))
    assert "quantization='4bit'" in str(caught.value.hint)
    assert caught.value.__cause__ is None


def test_threads_may_load_different_types_at_once(model_folder):
    """Transformers sets torch's default type for the whole process while it loads."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

    def load(dtype: str) -> bool:
        model = load_model(str(model_folder), LoadOptions(dtype=dtype)).model
        return all(parameter.dtype == kinds[dtype] for parameter in model.parameters())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(load, [*kinds] * 4))
    assert torch.get_default_dtype() == torch.float32


def test_the_bytes_of_weights_are_exact(model_folder, random_model):
    """Tied embeddings are one matrix in memory, and count once."""
    loaded = load_model(str(model_folder))
    distinct = {tensor.data_ptr(): tensor for tensor in loaded.model.parameters()}
    buffers = {tensor.data_ptr(): tensor for tensor in loaded.model.buffers()}
    expected = sum(tensor.nbytes for tensor in (*distinct.values(), *buffers.values()))
    assert loaded.weights_bytes == expected
    halved = load_model(str(model_folder), LoadOptions(dtype="float16"))
    assert halved.weights_bytes - sum(t.nbytes for t in halved.model.buffers()) == sum(
        tensor.nbytes // 2 for tensor in distinct.values()
    )


@pytest.mark.parametrize("size", ["many", 0, -5, 2.5])
def test_a_vocabulary_that_cannot_be_is_a_load_error(model_folder, size):
    """Its logarithm is taken when a monitor is made."""
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": size}))
    with pytest.raises(ModelLoadError, match="vocabulary"):
        peek_vocab_size(str(model_folder), LoadOptions())


@pytest.mark.parametrize("config", ["[]", "null", '{"text_config": null}', '"x"', "[" * 100_000])
def test_a_config_of_any_shape_is_a_load_error(model_folder, config):
    """Never a traceback, whatever JSON it is."""
    (model_folder / "config.json").write_text(config)
    with pytest.raises(ModelLoadError):
        load_model(str(model_folder))


@pytest.mark.parametrize("eos", ["a", [None]])
def test_a_stop_token_that_is_no_number_is_a_load_error(model_folder, eos):
    """Told when the model is loaded, not in the middle of the first request."""
    path = model_folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(ModelLoadError):
        LocalBackend.load(str(model_folder))


@pytest.mark.parametrize("name", ["x" * 300, "~no-such-user/x", "a\0b"])
def test_names_that_are_no_path_are_told_as_missing(name):
    """Whatever a variable held, the message says that there is no such model."""
    with pytest.raises(ModelNotFoundError):
        load_model(name)
