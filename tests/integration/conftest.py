"""A Python that has the heavy libraries loaded, for the many programs that run in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

# Loads once what takes seconds, then forks for each program: its modules, its folder, its environment, its
# streams and its end are its own.
_FORKS = """
import json, os, sys, types
import cert.cli.main, cert.trajectory, torch, transformers, transformers.models.qwen2.modeling_qwen2
import cert.backends.local, cert.backends.openai_server, cert.trajectory.stored, cert.trajectory.v3
from transformers import AutoModelForCausalLM, AutoTokenizer

asked, told = os.fdopen(int(sys.argv[1])), os.fdopen(int(sys.argv[2]), "w", buffering=1)
for line in asked:
    program = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), file=told)
else:
    sys.exit()

os.close(asked.fileno())
os.close(told.fileno())
os.chdir(program["folder"])
os.environ.clear()
os.environ.update(program["environment"])
for number, (path, flags) in enumerate(program["streams"]):
    os.dup2(os.open(path, flags, 0o600), number)
sys.argv = ["-c", *program["arguments"]]
sys.modules["__main__"] = main = types.ModuleType("__main__")
exec(compile(program["code"], "<string>", "exec"), main.__dict__)
"""


class WarmPython:
    """Runs programs as ``python -c`` does, without the seconds that libraries take to load.

    What is about loading itself (which modules, how long) needs a Python of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0
        read, self._ask = os.pipe()
        self._answers, write = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKS, str(read), str(write)],
            stdin=subprocess.DEVNULL,
            pass_fds=(read, write),
        )
        os.close(read)
        os.close(write)
        self._lines = os.fdopen(self._answers)

    def run(
        self,
        code: str,
        *arguments: str,
        cwd: Path,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; as `subprocess.run` with captured text."""
        self._runs += 1
        paths = [self._folder / f"{self._runs}.{name}" for name in ("in", "out", "err")]
        paths[0].write_text(stdin, encoding="utf-8")
        writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        flags = (os.O_RDONLY, writing, writing)
        program: dict[str, Any] = {
            "code": code,
            "arguments": arguments,
            "folder": str(cwd),
            "environment": dict(os.environ if env is None else env),
            "streams": [(str(path), flag) for path, flag in zip(paths, flags, strict=True)],
        }
        os.write(self._ask, json.dumps(program).encode() + b"\n")
        answer = self._lines.readline()
        assert answer, "the process that loads the libraries has ended"
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in paths[1:])
        return subprocess.CompletedProcess(list(arguments), int(answer), out, err)

    def close(self) -> None:
        os.close(self._ask)
        self._lines.close()
        self._process.wait(30)


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    """Where a program can run in a process of its own at once."""
    pytest.importorskip("torch")
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    python = WarmPython(tmp_path_factory.mktemp("warm"))
    yield python
    python.close()
