"""An entailment model labels what it was trained to label, or is refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cert.answers import Entailment, EntailmentEquivalence, cluster  # noqa: E402
from cert.backends.entailment import EntailmentModel  # noqa: E402
from cert.core.errors import (  # noqa: E402
    ConfigurationError,
    InputError,
    ModelLoadError,
    ModelNotFoundError,
    NumericalError,
    PromptTooLongError,
    UnsafeModelError,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]
WINDOW = 24
NAMES = {0: "CONTRADICTION", 1: "neutral", 2: "Entailment"}


@pytest.fixture(scope="module")
def word_tokenizer():
    """One token a word, with the segments of a pair told apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def build(kind, names=NAMES):
    """A classifier with random weights, spread enough for its labels to differ from pair to pair."""
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=WINDOW,
        type_vocab_size=2,
        pad_token_id=0,
        initializer_range=0.6,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()


@pytest.fixture
def save(word_tokenizer, tmp_path):
    def save(model):
        model.save_pretrained(tmp_path)
        word_tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return save


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list("abcdefghij"), rng.integers(1, 9))) for _ in range(80)]
    return list(zip(texts[::2], texts[1::2], strict=True))


def direct(model, tokenizer, pairs):
    """The labels by transformers alone, one pair at a time, without padding."""
    names = []
    for premise, hypothesis in pairs:
        with torch.inference_mode():
            logits = model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits
        names.append(model.config.id2label[int(logits.argmax())].lower())
    return names


@pytest.mark.parametrize("kind", ["Bert", "DebertaV2"])
def test_batches_give_the_labels_of_single_pairs_in_order(kind, save, word_tokenizer, pairs):
    """Padding, sorting by length or a swapped label would change what two answers mean to each other."""
    model = build(kind)
    loaded = EntailmentModel(str(save(model)), device="cpu", batch_size=7)
    labels = loaded.classify(pairs)
    assert labels == direct(model, word_tokenizer, pairs)
    assert len(set(labels)) > 1  # or the test shows nothing
    alone = np.concatenate([loaded.probabilities([pair]) for pair in pairs])
    np.testing.assert_allclose(loaded.probabilities(pairs), alone, atol=1e-5)
    np.testing.assert_allclose(alone.sum(axis=1), 1.0)


def test_the_order_of_the_config_decides_not_a_habit(save, word_tokenizer, pairs):
    """Models number their labels differently; a fixed order would call contradictions entailments."""
    names = {0: "entailment", 1: "contradiction", 2: "neutral"}
    model = build("Bert", names)
    loaded = EntailmentModel(str(save(model)), device="cpu")
    assert loaded.classify(pairs) == direct(model, word_tokenizer, pairs)
    given = EntailmentModel(str(save(build("Bert"))), device="cpu", labels=names)
    assert given.classify(pairs) == loaded.classify(pairs)


@pytest.mark.parametrize(
    "names",
    [
        {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
        {0: "entailment", 1: "not_entailment"},
        {0: "negative", 1: "neutral", 2: "positive"},
        {0: "entailment", 1: "neutral", 2: "contradiction", 3: "other"},
        {0: "entailment", 1: "entails", 2: "neutral"},
    ],
)
def test_outputs_that_are_not_the_three_labels_are_refused(save, names):
    """A sentiment model would decide what is the same."""
    with pytest.raises(ModelLoadError, match="not entailment") as caught:
        EntailmentModel(str(save(build("Bert", names))), device="cpu")
    assert "labels=" in str(caught.value.hint)


def test_pairs_over_the_window_are_undecided_or_refused_never_cut(save):
    """The label of a text's beginning would be given for the whole text."""
    folder = save(build("Bert"))
    fits = ("a b", " ".join("c" * (WINDOW - 5)))
    over = ("a b", " ".join("c" * (WINDOW - 4)))
    model = EntailmentModel(str(folder), device="cpu")
    assert model.window == WINDOW
    labels = model.classify([over, fits, over])
    assert labels[0] is None
    assert labels[1] is not None
    assert labels[2] is None
    assert np.isnan(model.probabilities([over])).all()
    with pytest.raises(PromptTooLongError, match=str(WINDOW + 1)):
        EntailmentModel(str(folder), device="cpu", too_long="refuse").classify([fits, over])


def test_positions_behind_the_paddings_do_not_count(save):
    """RoBERTa crashes, or on a GPU asserts, two tokens before its nominal window ends."""
    model = EntailmentModel(str(save(build("Roberta"))), device="cpu")
    assert model.window == WINDOW - 1
    assert model.classify([("a", " ".join("b" * (model.window - 4)))]) != [None]


def test_the_tokenizers_own_limit_counts(save, word_tokenizer):
    """Some models have more positions than they were trained for."""
    folder = save(build("Bert"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 10}))
    assert EntailmentModel(str(folder), device="cpu").window == 10


def test_pickled_weights_and_code_are_refused(save):
    """A downloaded model would run its author's code on the user's machine."""
    folder = save(build("Bert"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(UnsafeModelError, match="auto_map"):
        EntailmentModel(str(folder), device="cpu")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsafeModelError, match="pickled"):
        EntailmentModel(str(folder), device="cpu")


def test_a_model_without_a_classifier_is_refused(save, model_folder):
    """A random head would be added: labels would be dice."""
    model = build("Bert")
    folder = save(model.bert)
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"]["2"] == "Entailment"
    with pytest.raises(ModelLoadError, match="classifier"):
        EntailmentModel(str(folder), device="cpu")
    with pytest.raises(ModelLoadError):
        EntailmentModel(str(model_folder), device="cpu")


def test_broken_and_absent_models_are_named(save, tmp_path):
    """A damaged download would fail deep inside a library."""
    folder = save(build("Bert"))
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelLoadError, match="could not be loaded"):
        EntailmentModel(str(folder), device="cpu")
    with pytest.raises(ModelNotFoundError):
        EntailmentModel(str(tmp_path / "absent"), device="cpu")


def test_logits_that_are_no_numbers_are_an_error(save):
    """The first label would be taken for every pair."""
    model = build("Bert")
    with torch.no_grad():
        model.classifier.bias[1] = float("nan")
    with pytest.raises(NumericalError):
        EntailmentModel(str(save(model)), device="cpu").classify([("a", "b")])


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"too_long": "cut"}, {"device": "abacus"}])
def test_senseless_options_are_refused(save, options):
    """A typing error would choose a default silently."""
    with pytest.raises(ConfigurationError):
        EntailmentModel(str(save(build("Bert"))), **{"device": "cpu"} | options)


def test_edges_of_input(save):
    """No pairs, empty texts and hostile characters are ordinary in answers."""
    model = EntailmentModel(str(save(build("Bert"))), device="cpu")
    assert model.classify([]) == []
    assert None not in model.classify([("", ""), ("\0", "�"), ("[SEP]", "[CLS] [PAD]")])
    with pytest.raises(InputError):
        model.classify([("a", None)])  # type: ignore[list-item]


def test_threads_share_a_model(save, pairs):
    """Concurrent requests would fail or get each other's labels."""
    model = EntailmentModel(str(save(build("Bert"))), device="cpu", batch_size=5)
    expected = model.classify(pairs)
    with ThreadPoolExecutor(4) as pool:
        assert all(labels == expected for labels in pool.map(lambda _: model.classify(pairs), range(12)))


def test_it_serves_the_clustering_of_answers(save):
    """The protocol and the model would not fit together."""
    model: Entailment = EntailmentModel(str(save(build("Bert"))), device="cpu")
    same = EntailmentEquivalence(model)
    clustering = cluster("a b", ["c", "d", "c", " ".join("e" * 40)], same)
    assert clustering.finest[0] == clustering.finest[2]
    assert (0, 3) in clustering.undecided  # too long for the window
    assert clustering.labels is None
    assert model.name in clustering.rule
