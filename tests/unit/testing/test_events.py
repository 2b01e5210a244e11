"""Captured events."""

from __future__ import annotations

from cert.core.events import EventHub, HealthChanged, ModelUnloaded, default_hub
from cert.testing import captured_events


def test_what_a_block_emits_is_there_to_read_at_once():
    """A test that has to wait for the observers' thread is flaky."""
    hub = EventHub()
    hub.emit(ModelUnloaded(model="before"))
    with captured_events(hub) as captured:
        for index in range(500):
            hub.emit(ModelUnloaded(model=str(index)))
        hub.emit(HealthChanged(component="c", before="healthy", after="degraded"))
        assert [event.model for event in captured.of(ModelUnloaded)] == [str(index) for index in range(500)]
        assert captured.names()[-1] == "health_changed"
    hub.emit(ModelUnloaded(model="after"))
    assert len(captured.all()) == 501


def test_the_hub_of_the_process_is_the_default():
    """Code that was given no hub emits there."""
    with captured_events() as captured:
        default_hub().emit(ModelUnloaded(model="m"))
    assert [event.model for event in captured.of(ModelUnloaded)] == ["m"]
