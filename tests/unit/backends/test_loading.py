"""Models are untrusted: nothing that comes with one runs, and what is missing is said."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from cert.backends.loading import LoadOptions, load_model, peek_vocab_size
from cert.backends.local import LocalBackend
from cert.core.errors import (
    ConfigurationError,
    InputError,
    ModelLoadError,
    ModelNotFoundError,
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
    "setting", [{"transformers_weights": "evil.bin"}, {"_attn_implementation": "org/repository@main"}]
)
def test_a_config_that_sends_the_loader_elsewhere_is_refused(model_folder, setting):
    """What was checked must be what is loaded."""
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    with pytest.raises(UnsafeModelError, match=next(iter(setting))):
        load_model(str(model_folder))


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
