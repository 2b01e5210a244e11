"""``cert batch`` and ``cert watch`` as processes: killed, interrupted, out of disk, in a pipe."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

CERT = [sys.executable, "-c", "from cert.cli.main import main; main()"]
# Long answers: nothing ends them but the limit.
LONG = ("--temperature", "50", "--seed", "1", "--max-new-tokens", "12")


def write(path: Path, count: int) -> Path:
    entries = ({"id": f"q{number}", "prompt": f"Question {number}"} for number in range(count))
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CERT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_until(found: Any, process: subprocess.Popen[str]) -> None:
    """Wait until something is there; the test's own time-out ends it if it never comes."""
    while not found():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def has_records(path: Path, count: int) -> Any:
    return lambda: path.exists() and path.read_bytes().count(b"\n") >= count


@pytest.mark.timeout(600)
def test_a_batch_outlives_a_kill_a_ctrl_c_and_a_full_disk(tmp_path):
    """Hours of answers are not lost, none is made twice, and the same command always goes on."""
    source, out = write(tmp_path / "in.jsonl", 110), tmp_path / "out.jsonl"
    arguments = ("batch", source, out, *LONG)

    killed = start(*arguments)
    wait_until(has_records(out, 10), killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    kept = records(out) if out.read_bytes().endswith(b"\n") else records(out)[:-1]
    with out.open("ab") as stream:
        stream.write(b'{"kind": "trajectory_record", "id": "q1')  # what a kill within a write leaves

    interrupted = start(*arguments)
    wait_until(has_records(out, len(kept) + 10), interrupted)
    interrupted.send_signal(signal.SIGINT)
    told, errors = interrupted.communicate()
    assert interrupted.returncode == 130
    assert "run again" in errors
    assert f"{len(kept):,} of them before" in told
    assert "Traceback" not in errors
    assert not [record for record in records(out) if "error" in record]

    room = out.stat().st_size + 100_000

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    full = start(*arguments, preexec_fn=little_room)
    _, errors = full.communicate()
    assert full.returncode == 3
    assert "could not be written" in " ".join(errors.split())
    assert "Traceback" not in errors
    assert out.read_bytes().endswith(b"\n")

    last = start(*arguments)
    told, errors = last.communicate()
    assert last.returncode == 0, errors
    assert "110 of 110 items done" in told
    done = records(out)
    assert sorted(record["id"] for record in done) == sorted(f"q{number}" for number in range(110))
    assert done[: len(kept)] == kept


def test_a_stream_is_stopped_by_ctrl_c_and_shows_what_there_is():
    """Whoever has seen enough stops the generation at once and still gets the verdict on it."""
    process = start("watch", "A", "--temperature", "50", "--seed", "1", "--max-new-tokens", "480", "--json")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate()
    assert process.returncode == 130, errors
    *tokens, analysis = map(json.loads, [*lines, *rest.splitlines()])
    assert analysis["finish_reason"] == "early_stop"
    assert 3 <= len(analysis["tokens"]["id"]) < 480
    assert "".join(token["text"] for token in tokens) == analysis["generated_text"]
    assert "Traceback" not in errors


def test_a_reader_that_goes_away_ends_the_stream_without_a_crash():
    """`cert watch … | head` is no defect of ours."""
    process = start("watch", "A", "--temperature", "50", "--seed", "1", "--max-new-tokens", "480")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().split()[0] == "token"
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 3, errors
    assert "could not be written" in " ".join(errors.split())
    assert "Traceback" not in errors
    assert "terminate called" not in errors
