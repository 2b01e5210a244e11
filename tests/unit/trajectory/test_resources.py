"""The model resource: one model for many threads, and none of it left when it is let go of."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from cert.backends.base import Backend, GenerationRequest
from cert.backends.loading import LoadOptions
from cert.backends.local import LocalBackend
from cert.core.errors import (
    ConfigurationError,
    ModelNotFoundError,
    OutOfMemoryError,
    OverloadedError,
    ResourceError,
)
from cert.core.events import Event, EventHub, ModelLoaded, ModelUnloaded
from cert.core.memory import MemoryReading, MemoryTracker
from cert.trajectory.resources import HamiltonianModelResource


@pytest.fixture(scope="module")
def heavy(tmp_path_factory) -> str:
    """A model of 64 MB, large enough to be seen in the memory of the process."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from cert.reference import weights

    tokenizer = AutoTokenizer.from_pretrained(weights.path())
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("heavy")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def hub(heard) -> EventHub:
    hub = EventHub()
    hub.observe(heard.append)
    return hub


@pytest.fixture
def resource(hub) -> Iterator[HamiltonianModelResource]:
    resource = HamiltonianModelResource(hub=hub)
    yield resource
    resource.unload()


def one_token(backend: Backend) -> str:
    return backend.generate(GenerationRequest("The birth city of", max_new_tokens=1)).text


def in_threads(count: int, work: Callable[[], object]) -> list[BaseException]:
    """Run work on several threads at once and return what they raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def guarded() -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    return errors


class Silent(Backend):
    """A backend whose generations are whatever the test says."""

    def __init__(self, outcome: Exception | None = None) -> None:
        self.outcome = outcome

    @property
    def identity(self) -> Any:
        raise NotImplementedError

    @property
    def capabilities(self) -> Any:
        from cert.backends.base import Capabilities

        return Capabilities("full", None, "raw", generates=self.outcome is not None)

    def begin(self, request: Any, control: Any = None) -> Any:
        assert self.outcome is not None
        raise self.outcome

    def begin_score(self, request: Any, control: Any = None) -> Any:
        raise NotImplementedError


# --- loading ---


def test_without_a_name_it_is_the_reference_model(resource):
    """The first program of a new user names no model."""
    with resource.acquire() as backend:
        assert backend.identity.name == "reference"
        assert one_token(backend)


def test_many_threads_share_one_model(hub, heard):
    """A burst of first requests must not load the model once each: there is memory for one."""
    made: list[Backend] = []

    def make(name: str, options: LoadOptions) -> Backend:
        made.append(LocalBackend.load(name, options))
        return made[-1]

    resource = HamiltonianModelResource(hub=hub, make_backend=make)
    texts: list[str] = []

    def use() -> None:
        with resource.acquire() as backend:
            texts.append(one_token(backend))

    assert in_threads(8, use) == []
    assert len(made) == 1
    assert len(set(texts)) == 1
    resource.unload()


def test_unloading_waits_for_those_who_use_it(resource):
    """A model must not vanish under a generation, and must be usable again after a refused unload."""
    with resource.acquire() as backend:
        with pytest.raises(ResourceError, match="in use"):
            resource.unload(wait=0.0)
        assert one_token(backend)
    resource.unload(wait=0.0)
    assert resource.state == "unloaded"


def test_loading_and_unloading_from_many_threads(heavy):
    """An idle timer that unloads while requests come in: every request is answered or told to wait."""
    resource = HamiltonianModelResource(heavy)
    answered: list[str] = []

    def work() -> None:
        for _ in range(3):
            try:
                with resource.acquire() as backend:
                    answered.append(one_token(backend))
                resource.unload(wait=0.0)
            except ResourceError:
                pass

    assert in_threads(4, work) == []
    assert answered
    resource.unload()


def test_options_reach_the_model(hub, heavy):
    """A user who asks for bfloat16 or 4 bits gets them through the resource as well."""
    resource = HamiltonianModelResource(heavy, LoadOptions(dtype="bfloat16"), hub=hub)
    with resource.acquire() as backend:
        assert backend.identity.dtype == "bfloat16"
    resource.unload()


def test_a_model_that_is_not_there_is_told_and_healthy_again_when_it_is(tmp_path):
    """Health says why there is no model, for whoever has to mend it."""
    resource = HamiltonianModelResource(str(tmp_path / "nope"))
    with pytest.raises(ModelNotFoundError):
        resource.load()
    assert resource.health().code == "model_not_found"


def test_an_unknown_device_is_told_when_it_is_loaded():
    """And leaves the resource usable, not loading for ever."""
    resource = HamiltonianModelResource(options=LoadOptions(device="tpu"))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="tpu"):
            resource.load()
    assert resource.state == "unloaded"


def test_a_backend_that_will_not_do_is_closed(hub, heard):
    """Its threads would stay behind with every attempt."""
    closed: list[Backend] = []

    class Closing(LocalBackend):
        def close(self) -> None:
            closed.append(self)
            super().close()

    def refuse(backend: Backend) -> None:
        raise ConfigurationError("it will not do")

    resource = HamiltonianModelResource(hub=hub, make_backend=Closing.load, check=refuse)
    with pytest.raises(ConfigurationError, match="will not do"):
        resource.load()
    assert len(closed) == 1
    hub.flush()
    assert heard == []


# --- memory ---


def test_nothing_of_the_model_is_left_after_unloading(heavy):
    """A service that swaps models must not grow: the weights are gone, not only forgotten."""
    resource = HamiltonianModelResource(heavy)
    with resource.acquire() as backend:
        one_token(backend)
        assert isinstance(backend, LocalBackend)
        model, runner = weakref.ref(backend.model), weakref.ref(backend)
    del backend
    resource.unload()
    assert model() is None
    assert runner() is None


def test_the_system_gets_the_memory_back(heavy):
    """A container that is measured by the system must not be killed for memory that nobody uses."""
    resource, tracker = HamiltonianModelResource(heavy), MemoryTracker()
    resource.load()
    loaded, use = tracker.read("cpu").used, resource.memory_use
    resource.unload()
    left = tracker.read("cpu").used
    if loaded is None or left is None:
        pytest.skip("this system does not tell the memory of a process")
    assert use is not None
    assert use.weights_bytes is not None
    assert loaded - left >= 0.8 * use.weights_bytes


class Holding(Silent):
    """A backend with memory of its own, in a circle, in small blocks between others that stay."""

    def __init__(self, stays: list[bytearray]) -> None:
        super().__init__()
        self.itself = self
        self.blocks = []
        for _ in range(1000):
            self.blocks.append(bytearray(100_000))
            stays.append(bytearray(1_000))  # of the same heap, so that it has holes


def test_scattered_memory_goes_back_too():
    """The C library keeps small freed blocks, so that a process would stay as large as it ever was."""
    stays: list[bytearray] = []
    read = MemoryTracker().read
    resource = HamiltonianModelResource("held", make_backend=lambda name, options: Holding(stays))
    resource.load()
    loaded = read("cpu").used
    gc.disable()  # so that nothing but the resource collects
    try:
        resource.unload()
    finally:
        gc.enable()
    left = read("cpu").used
    if loaded is None or left is None or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this system does not tell the memory of a process, or keeps it")
    assert loaded - left >= 80_000_000


def test_the_memory_is_free_when_the_state_says_so(heavy, hub):
    """Who waits for the event to load the next model must find the memory free already."""
    seen: list[bool] = []
    resource = HamiltonianModelResource(heavy, hub=hub)
    resource.load()
    with resource.acquire() as backend:
        assert isinstance(backend, LocalBackend)
        model = weakref.ref(backend.model)
    del backend
    gc.disable()  # so that nothing but the resource collects
    try:
        hub.observe(lambda event: seen.append(model() is None))
        resource.unload()
        hub.flush()
    finally:
        gc.enable()
    assert seen
    assert all(seen)


def test_a_failed_request_does_not_keep_the_model(heavy):
    """An error that somebody keeps, in a log or a list, must not keep gigabytes."""
    resource = HamiltonianModelResource(heavy)
    kept: list[BaseException] = []
    with resource.acquire() as backend:
        assert isinstance(backend, LocalBackend)
        model = weakref.ref(backend.model)
        try:
            backend.generate(GenerationRequest("x " * 500, max_new_tokens=1))
        except ValueError as error:
            kept.append(error.with_traceback(None))
    del backend
    resource.unload()
    assert kept
    assert model() is None


def test_what_a_model_takes_is_measured(heavy, hub, heard):
    """The figures that a user plans memory by: the weights to the byte, the process as the system sees it."""
    assert HamiltonianModelResource(heavy).memory_use is None
    resource = HamiltonianModelResource(heavy, hub=hub)
    resource.load()
    use = resource.memory_use
    assert use is not None
    with resource.acquire() as backend:
        assert isinstance(backend, LocalBackend)
        parameters = {p.data_ptr(): p.nbytes for p in backend.model.parameters()}
        buffers = {b.data_ptr(): b.nbytes for b in backend.model.buffers()}
    del backend
    expected = sum(parameters.values()) + sum(buffers.values())
    assert use.weights_bytes == expected
    hub.flush()
    loaded = next(event for event in heard if isinstance(event, ModelLoaded))
    if use.before.used is not None and use.after.used is not None:
        taken = use.after.used - use.before.used
        assert 0.9 * expected <= taken <= 1.5 * expected  # importing libraries is not counted
        assert loaded.bytes_used == pytest.approx(taken, rel=0.1)
    resource.unload()
    assert resource.memory_use is None
    hub.flush()
    assert [type(event) for event in heard] == [ModelLoaded, ModelUnloaded]


def test_a_model_over_the_limit_is_refused_and_gone(heavy):
    """A limit that is noticed only by the system's killer is none."""
    made: list[weakref.ref[Any]] = []

    def make(name: str, options: LoadOptions) -> Backend:
        backend = LocalBackend.load(name, options)
        made.append(weakref.ref(backend.model))
        return backend

    resource = HamiltonianModelResource(heavy, memory=MemoryTracker(1), make_backend=make)
    with pytest.raises(OutOfMemoryError, match="over the limit"):
        resource.load()
    assert resource.state == "unloaded"
    assert made[0]() is None


def test_a_model_on_a_server_takes_no_memory_here(heard, hub):
    """A figure of this process would be taken for the server's."""
    asked: list[str] = []

    def read(device: str) -> MemoryReading:
        asked.append(device)
        return MemoryReading(device, None, None, None)

    resource = HamiltonianModelResource(
        "openai:some/model@http://127.0.0.1:9/v1",
        hub=hub,
        memory=MemoryTracker(read=read),
        make_backend=lambda name, options: Silent(),
    )
    resource.load()
    assert set(asked) == {"server"}
    assert resource.memory_use is not None
    assert resource.memory_use.weights_bytes is None
    hub.flush()
    (loaded,) = heard
    assert isinstance(loaded, ModelLoaded)
    assert (loaded.device, loaded.bytes_used) == ("server", None)


# --- health ---


def test_health_is_degraded_until_it_is_loaded_and_healthy_then(resource):
    """A load balancer has to tell a cold replica from a warm one."""
    assert resource.health().status == "degraded"
    resource.load()
    assert resource.health().status == "healthy"


def test_checking_inference_loads_nothing(resource):
    """A probe every few seconds must not bring back a model that was unloaded to make room."""
    assert resource.check_inference().code == "not_loaded"
    assert resource.state == "unloaded"


def test_inference_that_works_is_healthy_and_gives_the_model_back(resource):
    """One real token; and the probe is no user that would keep the model from unloading."""
    resource.load()
    assert resource.check_inference().status == "healthy"
    assert resource.users == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_gives_no_numbers_is_unhealthy(resource, value):
    """A broken device answers quickly; only looking at the numbers shows it."""
    resource.load()
    with resource.acquire() as backend, torch.no_grad():
        backend.model.get_output_embeddings().weight.fill_(value)
    finding = resource.check_inference()
    assert (finding.status, finding.code) == ("unhealthy", "numerical")


def test_a_busy_model_is_not_a_broken_one():
    """An orchestrator that restarts a replica because its queue is full makes it worse."""
    error = OverloadedError("full", retry_after=1.0)
    resource = HamiltonianModelResource("busy", make_backend=lambda name, options: Silent(error))
    resource.load()
    finding = resource.check_inference()
    assert (finding.status, finding.code) == ("degraded", "overloaded")


def test_what_generates_nothing_is_not_called_broken():
    """Stored records have no inference to check."""
    resource = HamiltonianModelResource("stored", make_backend=lambda name, options: Silent())
    resource.load()
    assert resource.check_inference() == resource.check_inference()
    assert resource.check_inference().status == "healthy"


def test_a_check_that_takes_too_long_is_unhealthy(resource):
    """A probe has its own time, whatever the model does."""
    resource.load()
    finding = resource.check_inference(timeout=1e-9)
    assert (finding.status, finding.code) == ("unhealthy", "generation_timeout")


def test_preloading_generates_a_token(resource):
    """The first request must find everything warm, and a model that cannot answer must stop the start."""
    resource.preload()
    assert resource.state == "loaded"
    with resource.acquire() as backend, torch.no_grad():
        backend.model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ResourceError, match="does not work"):
        resource.preload()
