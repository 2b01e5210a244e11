"""Memory: what is measured, and that nothing is made up where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from cert.core import memory
from cert.core.errors import ConfigurationError, OutOfMemoryError
from cert.core.memory import MemoryReading, MemoryTracker


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the resident set without a package")
def test_the_resident_set_grows_with_what_is_allocated():
    """A reading that does not follow the process is no reading."""
    tracker = MemoryTracker()
    before = tracker.read("cpu")
    held = bytearray(b"\1") * 50_000_000
    after = tracker.read("cpu")
    assert before.used is not None
    assert after.used is not None
    assert after.peak is not None
    assert after.total is not None
    assert 40_000_000 < after.used - before.used < 100_000_000
    assert after.used <= after.peak * 1.05
    assert after.peak < after.total
    del held


def test_what_cannot_be_measured_is_none(monkeypatch, tmp_path):
    """A zero on a dashboard would be believed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert MemoryTracker().read("cuda:0") == MemoryReading("cuda:0", None, None, None)
    assert MemoryTracker().read("tpu") == MemoryReading("tpu", None, None, None)
    monkeypatch.setattr(memory, "_STATM", tmp_path / "missing")
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.delattr("os.sysconf")
    assert MemoryTracker().read("cpu") == MemoryReading("cpu", None, None, None)
    MemoryTracker(1).require_within_limit("cpu")


def cuda(*, initialized: bool = True, broken: bool = False) -> SimpleNamespace:
    def free_and_total(index: int | None) -> tuple[int, int]:
        if broken:
            raise RuntimeError("no such device")
        return 5, 80

    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_initialized=lambda: initialized,
            mem_get_info=free_and_total,
            memory_allocated=lambda index: 10 + (index or 0),
            max_memory_allocated=lambda index: 20 + (index or 0),
        )
    )


def test_a_gpu_is_read_through_torch(monkeypatch):
    """The right device has to be asked when there are several."""
    monkeypatch.setitem(sys.modules, "torch", cuda())
    assert MemoryTracker().read("cuda:3") == MemoryReading("cuda:3", 13, 23, 80)
    assert MemoryTracker().read("cuda") == MemoryReading("cuda", 10, 20, 80)
    assert MemoryTracker().read("cuda:x").used is None


@pytest.mark.parametrize("torch", [cuda(initialized=False), cuda(broken=True), SimpleNamespace()])
def test_a_gpu_that_cannot_be_read_is_not_measured(monkeypatch, torch):
    """Reading memory must neither start CUDA (hundreds of megabytes) nor fail."""
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert MemoryTracker().read("cuda:0").used is None


def test_reading_imports_no_torch():
    """A service that only calls servers must not load torch to report its memory."""
    code = "import sys; from cert.core.memory import MemoryTracker; MemoryTracker().read('cuda:0')"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(("used", "status"), [(None, "healthy"), (89, "healthy"), (90, "degraded")])
def test_health_warns_before_it_is_full(used, status):
    """An operator needs the warning before the first request fails."""
    tracker = MemoryTracker(100, read=lambda device: MemoryReading(device, used, None, None))
    assert tracker.finding("cpu").status == status
    unlimited = MemoryTracker(read=lambda device: MemoryReading(device, used, None, None))
    assert unlimited.finding("cpu").status == "healthy"


def test_over_the_limit_is_an_error_with_the_figures():
    """The message has to say how much is used and how much is allowed."""
    tracker = MemoryTracker(10**9, read=lambda device: MemoryReading(device, 3 * 10**9, None, None))
    with pytest.raises(OutOfMemoryError, match=r"3\.00 GB .* 1\.00 GB"):
        tracker.require_within_limit("cpu")
    MemoryTracker(4 * 10**9, read=lambda device: MemoryReading(device, 3, None, None)).require_within_limit(
        "cpu"
    )


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(limit):
    """A limit of zero would refuse every model without saying why."""
    with pytest.raises(ConfigurationError):
        MemoryTracker(limit)
