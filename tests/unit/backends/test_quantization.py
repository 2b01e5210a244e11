"""8-bit and 4-bit weights: really smaller, near the full model, and safe when a stranger stored them."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bitsandbytes")
pytest.importorskip("accelerate")

import bitsandbytes
import torch
from safetensors.torch import load_file, save_file

from cert.backends.base import GenerationRequest, ScoreRequest
from cert.backends.batch import NoMemoryError
from cert.backends.load_options import Quantization
from cert.backends.loading import LoadedModel, LoadOptions, load_model, peek_vocab_size
from cert.backends.local import LocalBackend
from cert.backends.memory_fallback import MemoryFallback
from cert.backends.placement import resolve_device, weights_bytes
from cert.core.errors import (
    ConfigurationError,
    DependencyMissingError,
    ModelLoadError,
    OutOfMemoryError,
    UnsafeModelError,
)
from cert.core.events import EventHub

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")

KINDS: tuple[Quantization, ...] = ("8bit", "4bit")
nn: Any = bitsandbytes.nn
PROMPT = "The birth city of"


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory, tokenizer) -> Path:
    """A model whose linear layers outweigh the rest, as in a real one."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.06,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("full")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def full(full_folder) -> LoadedModel:
    return load_model(str(full_folder))


@pytest.fixture(scope="module")
def quantized(full_folder) -> dict[str, LoadedModel]:
    return {kind: load_model(str(full_folder), LoadOptions(quantization=kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def stored_folders(quantized, tmp_path_factory) -> dict[str, Path]:
    """The same models as others would publish them: stored in few bits."""
    folders = {}
    for kind, loaded in quantized.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        loaded.model.save_pretrained(folders[kind])
        loaded.tokenizer.save_pretrained(folders[kind])
    return folders


@pytest.fixture
def stored(stored_folders, tmp_path) -> Any:
    """Copies of the stored models, to be damaged."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(stored_folders[kind], tmp_path / kind))

    return copy


def logits(model: Any) -> Any:
    torch.manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (4, 24))
    with torch.inference_mode():
        return model(ids).logits.float()


def distance(model: Any, other: Any) -> float:
    """Mean total variation between next-token distributions: 0 for the same, at most 1."""
    difference = logits(model).softmax(-1) - logits(other).softmax(-1)
    return float(difference.abs().sum(-1).mean() / 2)


def linear_layers(model: Any) -> list[tuple[str, Any]]:
    """The layers that are quantised."""
    kinds = (nn.Linear8bitLt, nn.Linear4bit)
    return [(path, module) for path, module in model.named_modules() if isinstance(module, kinds)]


def edit(folder: Path, **settings: Any) -> None:
    """Change settings of the quantization_config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"].update(settings)
    path.write_text(json.dumps(config))


# --- what it is for ---


@pytest.mark.parametrize(("kind", "bits"), [("8bit", 8), ("4bit", 4)])
def test_weights_really_shrink(full, quantized, kind, bits):
    """A user loads 8 or 4 bits to fit a model into memory: the linear layers must take that and no more."""
    linear = sum(
        module.weight.numel()
        for path, module in full.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in path
    )
    rest = full.weights_bytes - 4 * linear
    expected = linear * bits / 8
    assert expected <= quantized[kind].weights_bytes - rest <= expected * 1.05


def test_8_bits_are_the_nearest_of_256_steps(full, quantized):
    """A weight is off by half a step of its row at most; more means that layers were mixed up."""
    for path, layer in linear_layers(quantized["8bit"].model):
        held, scales = (
            (layer.weight, layer.weight.SCB) if layer.state.CB is None else (layer.state.CB, layer.state.SCB)
        )
        step = scales.view(-1, 1) / 127
        original = full.model.get_submodule(path).weight
        assert ((held * step - original).abs() <= 0.51 * step + 1e-3 * original.abs()).all()


def test_4_bits_are_the_nearest_of_16_values(full, quantized):
    """The widest gap of the NF4 code is 0.304 of a block's largest weight; half of it is the most."""
    for path, layer in linear_layers(quantized["4bit"].model):
        held = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        original = full.model.get_submodule(path).weight
        largest = original.reshape(-1, 64).abs().amax(dim=1, keepdim=True)
        error = (held - original).reshape(-1, 64).abs()
        assert (error <= 0.18 * largest).all()
        assert error.mean() < 0.05 * largest.mean()


def test_answers_stay_near_those_of_the_full_model(full, quantized):
    """Otherwise every figure would be of another model; and more bits have to be nearer."""
    eight, four = (distance(quantized[kind].model, full.model) for kind in KINDS)
    assert 0.0 < eight < four / 3 < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_models_generate_and_are_watched(full_folder, kind):
    """The whole way of a request: every signal measured, and a record that says how the model was held."""
    backend = LocalBackend.load(str(full_folder), LoadOptions(quantization=kind))
    try:
        generation = backend.generate(GenerationRequest(PROMPT, max_new_tokens=6))
        assert len(generation.steps) == 6
        assert np.isfinite(generation.steps.entropy).all()
        assert generation.model.dtype == f"float32+{kind}"
    finally:
        backend.close()


def test_scores_in_4_bits_are_those_of_generating(full_folder):
    """One definition of every signal, whether the text is generated or read."""
    backend = LocalBackend.load(str(full_folder), LoadOptions(quantization="4bit"))
    try:
        generation = backend.generate(GenerationRequest(PROMPT, max_new_tokens=6))
        ids = tuple(generation.steps.token_ids.tolist())
        scored = backend.score(ScoreRequest(PROMPT, token_ids=ids))
        np.testing.assert_allclose(scored.steps.logprob, generation.steps.logprob, atol=1e-4)
    finally:
        backend.close()


def test_8_bits_do_not_fill_the_log(quantized, caplog):
    """Bitsandbytes logs a line for each layer of each step, which would bury everything else."""
    with caplog.at_level(logging.DEBUG):
        logits(quantized["8bit"].model)
    assert not [record for record in caplog.records if "MatMul8bitLt" in record.getMessage()]


def test_bytes_count_what_a_weight_is_read_with(quantized):
    """Scales are memory too; a figure without them would promise too little."""
    model = quantized["4bit"].model
    tensors = [*model.parameters(), *model.buffers()]
    bare = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
    assert weights_bytes(model) > bare


def test_layers_of_gpt2_are_quantised_too(tmp_path, tokenizer):
    """GPT-2 has its matrices the other way round."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(4)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=128, n_layer=2, n_head=2)
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    whole = load_model(str(tmp_path))
    for kind in KINDS:
        loaded = load_model(str(tmp_path), LoadOptions(quantization=kind))
        assert loaded.weights_bytes < whole.weights_bytes
        assert distance(loaded.model, whole.model) < 0.1


# --- stored in few bits ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_model_is_loaded_as_it_is(stored_folders, quantized, kind):
    """Repositories of 4-bit weights load without a word, and give the same numbers."""
    loaded = load_model(str(stored_folders[kind]))
    assert loaded.quantization == kind
    assert torch.equal(logits(loaded.model), logits(quantized[kind].model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_running_model_does_not_follow_its_file(stored, kind):
    """A new version copied over the old one must not change the numbers of requests on their way."""
    folder = stored(kind)
    model = load_model(str(folder)).model
    before = logits(model)
    path = folder / "model.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    with path.open("r+b") as file:
        file.seek(header)
        file.write(bytes(1) * (path.stat().st_size - header))
    assert torch.equal(logits(model), before)


def test_asking_for_other_bits_than_are_stored_is_refused(stored_folders):
    """Transformers would warn and go on with the stored ones."""
    with pytest.raises(ConfigurationError, match="stored in 8bit"):
        load_model(str(stored_folders["8bit"]), LoadOptions(quantization="4bit"))


@pytest.mark.parametrize(
    "method", ["gptq", "compressed-tensors", "mxfp4", "made-up", None, 5, ["bitsandbytes"]]
)
def test_other_methods_are_refused_by_name(stored, method):
    """Transformers skips what it does not know, and some methods fetch compiled code from the network."""
    folder = stored("4bit")
    edit(folder, quant_method=method)
    with pytest.raises(ModelLoadError, match="not read in this process") as caught:
        peek_vocab_size(str(folder), LoadOptions())
    assert "openai:MODEL@URL" in str(caught.value.hint)


@pytest.mark.parametrize(
    "settings",
    [
        {"load_in_4bit": False},
        {"load_in_8bit": True},
        {"load_in_8bit": "yes"},
        {"bnb_4bit_compute_dtype": "load"},
        {"bnb_4bit_compute_dtype": ["float32"]},
        {"bnb_4bit_quant_type": "zz"},
        {"bnb_4bit_quant_storage": "complex64"},
        {"bnb_4bit_use_double_quant": 1},
        {"llm_int8_threshold": float("nan")},
        {"llm_int8_threshold": "6"},
        {"llm_int8_skip_modules": {"a": 1}},
        {"llm_int8_enable_fp32_cpu_offload": True},
        {"llm_int8_has_fp16_weight": True},
    ],
    ids=str,
)
def test_hostile_settings_are_refused(stored, settings):
    """They name attributes of torch and steer compiled code."""
    folder = stored("4bit")
    edit(folder, **settings)
    with pytest.raises(ModelLoadError, match="quantization_config"):
        load_model(str(folder))


@pytest.mark.parametrize("value", ["[]", '"x"', "{}", '{"load_in_4bit": 1}'])
def test_a_quantization_config_of_any_shape_is_a_load_error(model_folder, value):
    """Never a traceback, whatever JSON it is."""
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": json.loads(value)}))
    with pytest.raises(ModelLoadError, match="quantization_config"):
        load_model(str(model_folder))


def test_a_hidden_quantization_config_is_found(model_folder):
    """Transformers also looks into the config of the text part."""
    path = model_folder / "config.json"
    hidden = {"text_config": {"quantization_config": {"quant_method": "hqq"}}}
    path.write_text(json.dumps(json.loads(path.read_text()) | hidden))
    with pytest.raises(ModelLoadError, match="'hqq'"):
        load_model(str(model_folder))


def test_no_quantization_config_is_no_quantization(model_folder):
    """Some tools write the setting with null."""
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": None}))
    assert load_model(str(model_folder)).quantization is None


def damage(folder: Path, change: Any) -> None:
    """Change the tensors of a stored model, keeping their names' order."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


LAYER = "model.layers.0.mlp.up_proj"


def without(*parts: str) -> Any:
    return lambda weights: {
        key: value for key, value in weights.items() if not (LAYER in key and any(p in key for p in parts))
    }


def cut(suffix: str) -> Any:
    return lambda weights: weights | {f"{LAYER}.{suffix}": weights[f"{LAYER}.{suffix}"][:-1].clone()}


def retold(**facts: Any) -> Any:
    """Change what a 4-bit weight says of its own layout, which compiled code believes."""
    key = f"{LAYER}.weight.quant_state.bitsandbytes__nf4"

    def change(weights: dict[str, Any]) -> dict[str, Any]:
        state = json.loads(bytes(weights[key].numpy().tobytes())) | facts
        packed = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8).clone()
        return weights | {key: packed}

    return change


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("8bit", without("SCB")),
        ("8bit", cut("SCB")),
        ("8bit", lambda weights: weights | {f"{LAYER}.SCB": weights[f"{LAYER}.SCB"] * float("nan")}),
        ("4bit", without("absmax", "quant_map", "quant_state")),
        ("4bit", without("quant_state")),
        ("4bit", cut("weight.absmax")),
        ("4bit", cut("weight.nested_absmax")),
        ("4bit", cut("weight.quant_map")),
        ("4bit", cut("weight.nested_quant_map")),
        ("4bit", retold(blocksize=1)),
        ("4bit", retold(blocksize=0)),
        ("4bit", retold(blocksize=128)),
        ("4bit", retold(blocksize=True)),
        ("4bit", retold(nested_blocksize=32)),
        ("4bit", retold(nested_offset=float("nan"))),
        ("4bit", retold(shape=[256, 1024])),
        ("4bit", retold(shape=None)),
        ("4bit", retold(quant_type="x")),
        ("4bit", retold(dtype="load")),
        ("4bit", retold(nested_dtype="load")),
    ],
)
def test_damaged_constants_are_refused_before_their_first_use(stored, kind, change):
    """Compiled code would read past the end of its arrays, or every figure would be of another model."""
    folder = stored(kind)
    damage(folder, change)
    with pytest.raises(ModelLoadError):
        load_model(str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_full_weights_that_are_called_quantised_are_refused(stored, full_folder, kind):
    """The settings lie about the file: the first request would fail, or worse."""
    folder = stored(kind)
    shutil.copy(full_folder / "model.safetensors", folder)
    with pytest.raises(ModelLoadError, match="damaged"):
        load_model(str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_the_wrong_bits_in_the_settings_are_refused(stored, kind):
    """8-bit weights read as 4-bit ones have no meaning."""
    folder = stored(kind)
    edit(folder, load_in_8bit=kind == "4bit", load_in_4bit=kind == "8bit")
    with pytest.raises(ModelLoadError):
        load_model(str(folder))


def test_a_layer_that_is_left_out_by_the_settings_is_refused(stored):
    """Its packed integers would be taken for weights."""
    folder = stored("8bit")
    edit(folder, llm_int8_skip_modules=["up_proj", "lm_head"])
    with pytest.raises(ModelLoadError, match="up_proj"):
        load_model(str(folder))


def test_quantised_weights_are_safetensors_too(stored, tmp_path):
    """Few bits are no way around the rule."""
    folder = stored("4bit")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeModelError, match=r"pytorch_model\.bin"):
        load_model(str(folder))


# --- what cannot work ---


@pytest.mark.parametrize("value", ["2bit", "", 8, True])
def test_unknown_bits_are_refused_when_they_are_given(value):
    """A misspelt option must not load 16 bits in silence."""
    with pytest.raises(ConfigurationError, match="unknown quantization"):
        LoadOptions(quantization=value)


@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
def test_a_missing_package_names_the_extra(full_folder, monkeypatch, package):
    """The message is the installation guide."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyMissingError, match=package) as caught:
        load_model(str(full_folder), LoadOptions(quantization="4bit"))
    assert "cert-framework[quantization]" in str(caught.value.hint)


def test_a_model_without_linear_layers_is_refused():
    """A user who asks for 4 bits must not get 32 without a word."""
    from cert.backends.quantized_weights import check_quantized

    with pytest.raises(ConfigurationError, match="no layer"):
        check_quantized("bare", torch.nn.Sequential(torch.nn.Embedding(4, 4)), "4bit")


def machine(*, cuda: int = 0, mps: bool = False) -> Any:
    """A torch that sees other devices than this machine has."""
    return SimpleNamespace(
        device=torch.device,
        cuda=SimpleNamespace(is_available=lambda: cuda > 0, device_count=lambda: cuda),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )


def test_apples_gpu_is_refused_for_quantised_weights():
    """A combination that does not work is told before anything is loaded; auto goes past it."""
    with pytest.raises(ConfigurationError, match="Apple"):
        resolve_device(machine(mps=True), "mps", quantized=True)
    assert resolve_device(machine(mps=True), "auto", quantized=True).type == "cpu"
    assert resolve_device(machine(mps=True), "auto").type == "mps"
    assert resolve_device(machine(cuda=2, mps=True), "auto", quantized=True).type == "cuda"


def test_a_quantised_model_stays_on_its_device_when_memory_ends():
    """8-bit layers hold tensors that a move leaves behind: the next request would fail on two devices."""
    moved: list[str] = []
    model = SimpleNamespace(device=torch.device("cuda:0"), is_loaded_in_8bit=True, to=moved.append)
    future: Future[Any] = Future()

    def run(rows: Any) -> None:
        raise NoMemoryError("full")

    runner: Any = SimpleNamespace(model=model, run=run, identity=SimpleNamespace(name="some/model"))
    rows: Any = [SimpleNamespace(future=future)]
    MemoryFallback(runner, hub=EventHub()).run(rows, run)
    assert isinstance(future.exception(0), OutOfMemoryError)
    assert moved == []
