"""The journal: a finished record is never lost, whatever ends the run."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cert.backends import Generation, ModelIdentity
from cert.backends.stored import read_stored
from cert.backends.stored.own_analyses import RecordedTexts
from cert.core.errors import GenerationTimeoutError, OutputError
from cert.signals import TokenSteps
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.stored import RecordWriter
from cert.trajectory.types import TrajectoryConfig


def analysis(text="ab"):
    n = len(text)
    logprob = np.full(n, -0.1)
    steps = TokenSteps.build(
        token_ids=np.arange(n), logprob=logprob, top_ids=np.zeros((n, 1)), top_logprobs=logprob[:, None]
    )
    g = Generation(
        prompt="p", text=text, steps=steps, offsets=np.stack([np.arange(n), np.arange(n) + 1], axis=1),
        finish_reason="length", stop_step=None, prompt_tokens=1, sampling=None,
        model=ModelIdentity("m", None, "stored", None, None), logprobs_mode="raw",
        vocabulary=RecordedTexts({}), duration_s=None,
    )  # fmt: skip
    return analyze_generation(g, TrajectoryConfig())


def keys(path):
    return [item.key for item in read_stored(path)]


def test_a_run_goes_on_where_it_was(tmp_path):
    """Answers that were paid for must not be asked for again."""
    path = tmp_path / "j.jsonl"
    with RecordWriter(path) as journal:
        journal.write("a", analysis())
        journal.write("b", GenerationTimeoutError("too slow"))
    with RecordWriter(path, resume=True) as journal:
        assert (journal.done, journal.failed, journal.moved, journal.broken) == ({"a", "b"}, {"b"}, 0, [])
        journal.write("c", analysis())
    assert keys(path) == ["a", "b", "c"]


def test_failures_can_be_tried_again(tmp_path):
    """A time-out of yesterday is no answer; its record stays, and the later one counts."""
    path = tmp_path / "j.jsonl"
    with RecordWriter(path) as journal:
        journal.write("a", GenerationTimeoutError("too slow"))
    with RecordWriter(path, resume=True, retry_failures=True) as journal:
        assert journal.done == set()
        journal.write("a", analysis())
    with RecordWriter(path, resume=True, retry_failures=True) as journal:
        assert (journal.done, journal.failed) == ({"a"}, set())


def test_a_file_with_content_is_not_written_over(tmp_path):
    """A forgotten flag must not mix two runs in one file."""
    path = tmp_path / "j.jsonl"
    path.write_text("mine\n")
    with pytest.raises(OutputError, match="exists already"):
        RecordWriter(path)
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize("tail", [b'{"kind": "trajectory_rec', b"\x00" * 3000, b"x" * 3_000_000])
def test_a_line_that_was_cut_off_is_moved_aside(tmp_path, tail):
    """The next record must not be glued to half of another, which would lose both."""
    path = tmp_path / "j.jsonl"
    with RecordWriter(path) as journal:
        journal.write("a", analysis())
    with path.open("ab") as stream:
        stream.write(tail)
    with RecordWriter(path, resume=True) as journal:
        assert (journal.moved, journal.done) == (len(tail), {"a"})
        journal.write("b", analysis())
    assert keys(path) == ["a", "b"]
    assert (tmp_path / "j.jsonl.cut").read_bytes() == tail + b"\n"


def test_a_file_of_one_cut_line_is_emptied(tmp_path):
    """A run killed in its first record starts from nothing."""
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"ki')
    with RecordWriter(path, resume=True) as journal:
        assert journal.moved == 4
    assert path.read_bytes() == b""


def test_broken_lines_inside_are_told_and_left(tmp_path):
    """What a bad disk did must be seen, and nothing be deleted for it."""
    path = tmp_path / "j.jsonl"
    with RecordWriter(path) as journal:
        journal.write("a", analysis())
    with path.open("ab") as stream:
        stream.write(b"\xff\xff\n")
    before = path.read_bytes()
    with RecordWriter(path, resume=True) as journal:
        assert (journal.broken, journal.done) == ([2], {"a"})
    assert path.read_bytes() == before


def test_two_writers_of_one_file_are_refused(tmp_path):
    """Two runs into one file would do all work twice."""
    path = tmp_path / "j.jsonl"
    with RecordWriter(path), pytest.raises(OutputError, match="another process"):
        RecordWriter(path, resume=True)
    with RecordWriter(path, resume=True) as journal:
        journal.write("a", analysis())


def test_a_disk_that_is_full_leaves_whole_records(tmp_path):
    """The record that did not fit is reported, and those before it can be read."""
    import resource

    path = tmp_path / "j.jsonl"
    with RecordWriter(path) as journal:
        journal.write("a", analysis())
        size = path.stat().st_size
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
            with pytest.raises(OutputError, match="cannot be written"):
                journal.write("b", analysis())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert path.stat().st_size == size
        assert journal.done == {"a"}
        journal.write("c", analysis())
    assert keys(path) == ["a", "c"]


@pytest.mark.parametrize("sync", ["each", "end"])
def test_a_killed_process_loses_no_finished_record(tmp_path, sync):
    """What was reported as done must be there after kill −9, in the middle of any line."""
    path, program = tmp_path / "j.jsonl", tmp_path / "run.py"
    program.write_text(
        "import sys\n"
        "from cert.core.errors import InputError\n"
        "from cert.trajectory.stored import RecordWriter\n"
        f"journal = RecordWriter(sys.argv[1], resume=True, sync={sync!r})\n"
        "number = len(journal.done)\n"
        "while True:\n"
        "    journal.write(f'k{number}', InputError('x' * 20_000))\n"
        "    sys.stdout.write(f'k{number}\\n')\n"
        "    sys.stdout.flush()\n"
        "    number += 1\n"
    )
    told: list[str] = []
    for _ in range(3):
        run = subprocess.Popen([sys.executable, str(program), str(path)], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        told += [run.stdout.readline().strip() for _ in range(20)]
        time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
        told += run.stdout.read().split("\n")[:-1]
        run.stdout.close()
        assert run.wait() == -signal.SIGKILL
        with RecordWriter(path, resume=True) as journal:
            assert set(told) <= journal.done
            assert journal.broken == []
    written = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert len(written) == len(set(written))
    assert set(told) <= set(written)
