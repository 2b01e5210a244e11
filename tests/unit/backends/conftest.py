"""Small models with random weights: the shapes and habits of real ones, loaded in milliseconds."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(scope="session")
def tokenizer():
    """The reference model's tokenizer, byte-level like those of most current models."""
    from transformers import AutoTokenizer

    from cert.reference import weights

    return AutoTokenizer.from_pretrained(weights.path())


@pytest.fixture(scope="session")
def random_model(tokenizer):
    """A Qwen2 with random weights, peaked enough for its answers to differ from step to step."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 13,  # wider than the tokenizer, as real models are
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    model = Qwen2ForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    return model


@pytest.fixture
def model_folder(random_model, tokenizer, tmp_path) -> Path:
    """A complete model directory with safetensors."""
    folder = tmp_path / "model"
    random_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
