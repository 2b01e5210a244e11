"""Several processes write one log file and rotate it: no line is lost, torn or without its id."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

WRITER = """
import sys
from cert.core.correlation import correlated
from cert.observability.logging import configure_logging, get_logger

path, worker, identifier = sys.argv[1:]
configure_logging("info", "json", "file", path, max_bytes=5_000, backups=900)
log = get_logger("cert.worker")
print("ready", flush=True)
sys.stdin.readline()
with correlated(identifier):
    for number in range(300):
        log.info("wrote", worker=worker, number=number, note="x" * (number * 7 % 600))
"""

FORKER = """
import multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tried
from cert.core.correlation import correlated
from cert.observability.logging import configure_logging, get_logger

configure_logging("info", "json", "file", sys.argv[1], max_bytes=5_000, backups=900)
log = get_logger("cert.worker")

def work(worker, identifier, count):
    with correlated(identifier):
        for number in range(count):
            log.info("wrote", worker=worker, number=number, note="x" * (number * 7 % 600))

context = multiprocessing.get_context("fork")
threads = [threading.Thread(target=work, args=(f"t{n}", f"id-t{n}", 300)) for n in range(2)]
for thread in threads: thread.start()
children = [context.Process(target=work, args=(f"{n}", f"id-{n}", 20)) for n in range(8)]
for child in children: child.start()
for thread in threads: thread.join()
for child in children: child.join(60)
sys.exit(0 if all(child.exitcode == 0 for child in children) else "a child hangs")
"""


def read_all(directory: Path) -> list[dict[str, object]]:
    """Each line of the log and of its rotated files."""
    files = [path for path in directory.iterdir() if path.name.startswith("cert.log")]
    assert len(files) > 3, "the file was rotated"
    return [json.loads(line) for path in files for line in path.read_text("utf-8").split("\n") if line]


def test_processes_that_share_a_file_lose_no_line(tmp_path):
    """With the standard library's handler, lines vanish at each rotation when a second process writes."""
    path = tmp_path / "cert.log"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number), f"id-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    lines = read_all(tmp_path)
    seen = Counter((line["worker"], line["number"], line["correlation_id"]) for line in lines)
    assert seen == Counter((str(w), n, f"id-{w}") for w in range(4) for n in range(300))


def test_forked_children_of_a_program_with_threads_neither_hang_nor_lose(tmp_path):
    """A worker pool that forks while a thread is writing a line must not inherit its lock for ever."""
    path = tmp_path / "cert.log"
    done = subprocess.run(
        [sys.executable, "-c", FORKER, str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = Counter((line["worker"], line["number"], line["correlation_id"]) for line in read_all(tmp_path))
    wanted = [(f"t{t}", n, f"id-t{t}") for t in range(2) for n in range(300)]
    wanted += [(str(c), n, f"id-{c}") for c in range(8) for n in range(20)]
    assert seen == Counter(wanted)
