"""When memory ends: smaller batches, then the CPU, later the device again; told, counted and never wrong."""

import dataclasses
import gc
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from prometheus_client import CollectorRegistry  # noqa: E402

from cert.backends import GenerationRequest, Sampling, ScoreRequest  # noqa: E402
from cert.backends.control import Control  # noqa: E402
from cert.backends.local import LocalBackend  # noqa: E402
from cert.backends.memory_fallback import MemoryFallback  # noqa: E402
from cert.backends.scoring import Scorer  # noqa: E402
from cert.core.degraded import DegradedParts  # noqa: E402
from cert.core.errors import GenerationError, OutOfMemoryError  # noqa: E402
from cert.core.events import ComponentDegraded, EventHub, OutOfMemoryMet  # noqa: E402
from cert.observability.metrics import metrics_observer  # noqa: E402
from cert.testing.clock import FakeClock  # noqa: E402
from cert.testing.events import captured_events  # noqa: E402

PROMPTS = [
    "The birth city of",
    "A",
    "What is the employer of someone whose name is rather long?",
    "Who",
    "And so",
]


@pytest.fixture(autouse=True)
def small_heap():
    """The garbage collector frees memory; what torch has imported need not be looked at each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def hub():
    return EventHub()


@pytest.fixture
def backend(random_model, tokenizer, hub):
    backend = LocalBackend(random_model, tokenizer, name="random", hub=hub)
    yield backend
    backend.close()


def requests(sampling=Sampling(), tokens=12):  # noqa: B008  # frozen
    return [GenerationRequest(prompt, max_new_tokens=tokens, sampling=sampling) for prompt in PROMPTS]


def out_of_memory_above(monkeypatch, model, rows, at_step=1, kind=torch.OutOfMemoryError, where=lambda: True):
    """Let forward passes of more rows fail at a step of the batch, as a full device does."""
    forward = model.forward
    steps: dict[int, int] = {}

    def full(*args, **kwargs):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        steps[0] = 1 if ids.shape[1] > 1 or kwargs.get("past_key_values") is None else steps.get(0, 0) + 1
        if where() and ids.shape[0] > rows and steps[0] >= at_step:
            raise kind("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", full)


def tell(told, block):
    told.extend(block.texts)


def same(one, other):
    assert one.steps.token_ids.tolist() == other.steps.token_ids.tolist()
    assert one.text == other.text
    np.testing.assert_allclose(one.steps.logprob, other.steps.logprob, atol=2e-5)


# --- smaller batches ---


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, seed=7)])
@pytest.mark.parametrize("fits", [1, 2, 3])
@pytest.mark.parametrize("at_step", [1, 5])
def test_a_batch_that_does_not_fit_gives_the_same_answers_in_parts(
    backend, hub, random_model, monkeypatch, sampling, fits, at_step
):
    """Running out of memory in the middle must neither lose a request nor change its answer."""
    expected = [backend.generate(request) for request in requests(sampling)]
    out_of_memory_above(monkeypatch, random_model, fits, at_step)
    with captured_events(hub) as events:
        outcomes = backend.generate_batch(requests(sampling))
        hub.flush()
    for outcome, alone in zip(outcomes, expected, strict=True):
        same(outcome, alone)
    halvings = events.of(OutOfMemoryMet)
    assert [(e.model, e.device, e.action) for e in halvings] == [("random", "cpu", "smaller_batch")] * (
        {1: 4, 2: 2, 3: 1}[fits]
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (torch.OutOfMemoryError, ""),
        (MemoryError, ""),
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        (RuntimeError, "MPS backend out of memory"),
    ],
)
def test_every_way_in_which_torch_says_it_is_understood(backend, random_model, monkeypatch, kind, text):
    """Each device says it in words of its own; one that is not known would fail the whole batch."""
    failure = type("Full", (kind,), {"__init__": lambda self, said: kind.__init__(self, text or said)})
    out_of_memory_above(monkeypatch, random_model, 3, kind=failure)
    assert all(outcome.text for outcome in backend.generate_batch(requests()))


def test_each_listener_hears_each_step_once_though_the_batch_began_anew(backend, random_model, monkeypatch):
    """A progress bar that jumps back, or a stream that repeats its beginning, is worse than a slow one."""
    heard: list[list[int]] = [[] for _ in PROMPTS]
    pieces: list[list[str]] = [[] for _ in PROMPTS]
    controls = [
        Control(on_step=steps.append, on_block=partial(tell, told))
        for steps, told in zip(heard, pieces, strict=True)
    ]
    rows = [backend._row(r, c) for r, c in zip(requests(), controls, strict=True)]
    out_of_memory_above(monkeypatch, random_model, 2, at_step=5)
    backend._enqueue(rows)
    generations = [row.future.result(timeout=60) for row in rows]
    assert heard == [list(range(1, 13))] * 5
    assert ["".join(told) for told in pieces] == [generation.text for generation in generations]


class StopAt:
    """A follower that ends a generation at a token."""

    def __init__(self, token):
        self.token = token
        self.seen = 0

    def take(self, values):
        assert len(values) > 3
        self.seen += 1
        return self.seen > self.token

    def update(self, steps):
        raise AssertionError("tokens of this process come one by one, as plain numbers")


def test_an_answer_that_was_stopped_keeps_its_tokens_though_the_batch_began_anew(
    backend, random_model, monkeypatch
):
    """Its alarm names a token; an answer that is shorter than that would be nonsense."""
    whole = [generation.steps.token_ids.tolist() for generation in backend.generate_batch(requests())]
    followers = [StopAt(token) for token in (2, 7, 99, 0, 3)]
    rows = [
        backend._row(request, Control(follower=follower))
        for request, follower in zip(requests(), followers, strict=True)
    ]
    out_of_memory_above(monkeypatch, random_model, 2, at_step=5)
    backend._enqueue(rows)
    stopped = [row.future.result(timeout=60) for row in rows]
    lengths = [3, 8, 12, 1, 4]
    assert [one.steps.token_ids.tolist() for one in stopped] == [
        ids[:length] for ids, length in zip(whole, lengths, strict=True)
    ]
    assert [one.finish_reason for one in stopped] == [
        "early_stop", "early_stop", "length", "early_stop", "early_stop",
    ]  # fmt: skip
    assert [follower.seen for follower in followers] == lengths


def test_a_follower_that_fails_ends_its_own_row_alone(backend):
    """One caller's defect is not its neighbours'."""

    class Broken(StopAt):
        def take(self, values):
            raise ZeroDivisionError

    rows = [backend._row(r, Control()) for r in requests()]
    rows[1] = backend._row(requests()[1], Control(follower=Broken(3)))
    backend._enqueue(rows)
    assert isinstance(rows[1].future.exception(timeout=60), ZeroDivisionError)
    assert all(len(rows[place].future.result(timeout=60).steps) == 12 for place in (0, 2, 3, 4))


def test_what_a_listener_raised_before_memory_ended_still_ends_its_row(backend, random_model, monkeypatch):
    """Its caller said no; a second attempt is no reason to go on."""
    heard = []

    def refuse(count):
        heard.append(count)
        if count == 3:
            raise ZeroDivisionError

    rows = [backend._row(r, Control()) for r in requests()]
    rows[1] = backend._row(requests()[1], Control(on_step=refuse))
    out_of_memory_above(monkeypatch, random_model, 2, at_step=5)
    backend._enqueue(rows)
    assert isinstance(rows[1].future.exception(timeout=60), ZeroDivisionError)
    assert heard == [1, 2, 3]
    assert all(len(rows[place].future.result(timeout=60).steps) == 12 for place in (0, 2, 3, 4))


def test_a_stream_that_cannot_be_continued_says_so(backend, random_model, monkeypatch):
    """On another device a sample is another one; two halves of different answers are no answer."""
    told: list[str] = []
    control = Control(on_block=partial(tell, told))
    rows = [backend._row(r, Control()) for r in requests(Sampling(1.5, seed=1))]
    rows[0] = backend._row(requests(Sampling(1.5, seed=1))[0], control)
    out_of_memory_above(monkeypatch, random_model, 4, at_step=5)
    generator = torch.Generator
    batches = []

    class Another:
        """A generator of the second device: the same seed, other numbers."""

        def __call__(self, device):
            batches.append(device)
            return self if len(batches) > 5 else generator(device)

        def manual_seed(self, seed):
            return generator("cpu").manual_seed(seed + 1)

    monkeypatch.setattr(torch, "Generator", Another())
    backend._enqueue(rows)
    error = rows[0].future.exception(timeout=60)
    assert isinstance(error, GenerationError)
    assert "begun anew" in str(error)
    assert error.context["told"] == 4
    assert all(len(row.future.result(timeout=60).steps) == 12 for row in rows[1:])


def test_what_filled_the_memory_is_let_go_of_before_the_next_attempt(backend, random_model, monkeypatch):
    """Else the smaller batch would find the memory as full as the larger one did."""
    alive: list[Any] = []
    seen: list[Any] = []
    forward = random_model.forward

    class Big:
        itself: Any

    def full(*args, **kwargs):
        seen.extend(reference() for reference in alive)
        if kwargs["input_ids"].shape[0] > 2:
            big = Big()
            big.itself = big  # as modules and graphs do
            alive.append(weakref.ref(big))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(random_model, "forward", full)
    backend.generate_batch(requests(tokens=2))
    assert seen
    assert set(seen) == {None}


def test_one_that_does_not_fit_by_itself_fails_alone(backend, hub, random_model, monkeypatch):
    """On the CPU there is nowhere left to go: one typed error, its neighbours and the next request live."""
    forward = random_model.forward
    longest = max(len(backend.encoder.encode(prompt)) for prompt in PROMPTS)

    def full(*args, **kwargs):
        if kwargs["input_ids"].shape[1] == longest:
            raise torch.OutOfMemoryError("out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(random_model, "forward", full)
    registry = CollectorRegistry()
    hub.observe(metrics_observer(registry, hub=hub))
    outcomes = backend.generate_batch(requests())
    failed = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, OutOfMemoryError)]
    assert failed == [2]
    assert "shorten the prompt" in outcomes[2].hint
    assert len([outcome for outcome in outcomes if not isinstance(outcome, OutOfMemoryError)]) == 4
    hub.flush()
    labels = {"model": "random", "device": "cpu"}
    assert registry.get_sample_value("cert_out_of_memory_total", labels | {"action": "failed"}) == 1.0
    assert registry.get_sample_value("cert_out_of_memory_total", labels | {"action": "smaller_batch"}) == 2.0
    assert registry.get_sample_value("cert_out_of_memory_total", labels | {"action": "cpu"}) is None


# --- the CPU, and back ---


class Movable:
    """Stands for the model where it is moved between devices; the real one computes on the CPU throughout."""

    def __init__(self):
        self.device = torch.device("cuda:0")
        self.full = set()
        self.moves = []

    def to(self, device):
        self.moves.append(device)
        if device in self.full:
            self.device = torch.device("meta")  # a part has been moved already
            raise torch.OutOfMemoryError("out of memory")
        self.device = torch.device(device)


@pytest.fixture
def away(backend, hub, random_model, monkeypatch):
    """A fallback of a model on a GPU that is too small for any generation, a clock, and the stand-in."""
    movable, clock = Movable(), FakeClock()
    runner = dataclasses.replace(backend._runner, model=movable)
    out_of_memory_above(monkeypatch, random_model, 0, where=lambda: movable.device.type == "cuda")
    return MemoryFallback(runner, hub=hub, clock=clock, away=60.0), clock, movable


def run(backend, memory, sampling=Sampling()):  # noqa: B008  # frozen
    rows = [backend._row(request, Control()) for request in requests(sampling)]
    memory.run(rows, backend._runner.run)
    return rows


def test_a_model_that_does_not_fit_goes_on_on_the_cpu_and_comes_back(backend, hub, away):
    """A slow answer is better than none, and the device must not stay idle for ever after one bad moment."""
    memory, clock, movable = away
    expected = [backend.generate(request) for request in requests()] if movable.to("cpu") is None else []
    movable.to("cuda:0")
    movable.moves.clear()
    parts, registry = DegradedParts(), CollectorRegistry()
    hub.observe(parts)
    hub.observe(metrics_observer(registry, hub=hub))
    with captured_events(hub) as events:
        for row, alone in zip(run(backend, memory), expected, strict=True):
            same(row.future.result(timeout=0), alone)
        assert movable.device.type == "cpu"
        hub.flush()
        assert parts.finding().status == "degraded"
        assert parts.finding().detail == "model_device: cpu"
        clock.advance(59.0)
        run(backend, memory)
        assert movable.moves == ["cpu"]
        clock.advance(1.0)
        movable.to = lambda device: None  # from here on the device has room: nothing moves it
        movable.device = torch.device("cpu")
        run(backend, memory)
        hub.flush()
    assert parts.finding().status == "healthy"
    assert [(e.device, e.action) for e in events.of(OutOfMemoryMet)][-1] == ("cuda:0", "cpu")
    assert [e.active for e in events.of(ComponentDegraded)] == [True, False]
    counted = {"model": "random", "device": "cuda:0", "action": "cpu"}
    assert registry.get_sample_value("cert_out_of_memory_total", counted) == 1.0


def test_the_device_is_tried_again_and_left_again(backend, away):
    """Full again means another minute on the CPU, not a failure."""
    memory, clock, movable = away
    run(backend, memory)
    for _ in range(3):
        movable.moves.clear()
        clock.advance(60.0)
        assert all(row.future.result(timeout=0).text for row in run(backend, memory))
        assert movable.moves == ["cuda:0", "cpu"]


def test_a_device_that_is_still_full_is_left_alone(backend, hub, away):
    """A move that fails half-way must leave a whole model, and no gap in the degradation."""
    memory, clock, movable = away
    run(backend, memory)
    movable.full.add("cuda:0")
    clock.advance(60.0)
    with captured_events(hub) as events:
        assert all(row.future.result(timeout=0).text for row in run(backend, memory))
        hub.flush()
    assert movable.device.type == "cpu"
    assert movable.moves == ["cpu", "cuda:0", "cpu"]
    assert events.of(ComponentDegraded) == ()
    movable.moves.clear()
    clock.advance(59.0)
    run(backend, memory)
    assert movable.moves == []


def test_a_model_that_cannot_be_moved_fails_where_it_is(backend, hub, away):
    """Quantised weights stay on their device: the request fails, the model stays whole and at home."""
    memory, _, movable = away
    movable.full.add("cpu")
    with captured_events(hub) as events:
        rows = run(backend, memory)
        hub.flush()
    assert all(isinstance(row.future.exception(timeout=0), OutOfMemoryError) for row in rows)
    assert movable.device == torch.device("cuda:0")
    assert {e.action for e in events.of(OutOfMemoryMet)} == {"smaller_batch", "failed"}
    assert events.of(ComponentDegraded) == ()


def test_scoring_gives_way_as_generating_does(backend, hub, away):
    """A long text to score is the likeliest of all to fill a device."""
    memory, _, movable = away
    movable.to("cpu")
    expected = backend.score(ScoreRequest("The birth city of", completion=" someone"))
    movable.to("cuda:0")
    row = backend._score_row(ScoreRequest("The birth city of", completion=" someone"), Control())
    memory.run([row], Scorer(backend._runner).run)
    same(row.future.result(timeout=0), expected)
    assert movable.device.type == "cpu"


def test_a_model_that_is_let_go_of_is_not_degraded_any_more(backend, hub, away):
    """The next one starts on the device; an alarm that nothing can end would be switched off."""
    memory, _, _ = away
    run(backend, memory)
    with captured_events(hub) as events:
        memory.close()
        memory.close()
        hub.flush()
    assert [e.active for e in events.of(ComponentDegraded)] == [False]


def test_closing_a_backend_closes_its_fallback(backend, hub, monkeypatch):
    """The two are let go of together."""
    backend._memory._back_at = 1.0
    with captured_events(hub) as events:
        backend.close()
        hub.flush()
    assert [e.active for e in events.of(ComponentDegraded)] == [False]
