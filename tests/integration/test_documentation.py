"""Documentation that runs: every Python block and every ``cert`` command of README and docs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cert.testing import FaultServer, ok

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
MAIN = "from cert.cli.main import main; main()"
# A server of the reader's own, in place of which a scripted one answers.
SERVER = "http://127.0.0.1:8000"
# Models of the reader's own, and the hours of a training, are not here.
NOT_HERE = (
    *("--model ./", "--model path/", "--model Qwen", "hf download", "cert serve"),
    *("cert reference train", "cert reference evaluate"),
)
# What is told in them goes on from block to block.
IN_ORDER = sorted((ROOT / "docs/tutorial").glob("*.md"))


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield where each block of a language stands, and its text."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text) if page not in IN_ORDER else ():
            if found[1] == language:
                yield f"{page.relative_to(ROOT)}:{text[: found.start()].count(chr(10)) + 1}", found[2]


def commands() -> Iterator[tuple[str, str]]:
    """Yield where each ``cert`` command stands, and its line."""
    for where, block in blocks("bash"):
        for line in block.splitlines():
            if re.match(r"(echo .* \| )?cert\b", line) and not any(part in line for part in NOT_HERE):
                yield f"{where} {line}", line


@pytest.mark.parametrize("code", [pytest.param(code, id=where) for where, code in blocks("python")])
def test_python_blocks_run(code, tmp_path, warm_python):
    """A program in the documentation that fails is the first thing a new user meets."""
    done = warm_python.run(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [pytest.param(line, id=where) for where, line in commands()])
def test_cert_commands_run(line, tmp_path, warm_python):
    """Each command runs without a traceback and ends as the page says (`exit code N`), or with a verdict."""
    (tmp_path / "prompt.txt").write_text("The birth city of", encoding="utf-8")
    prompt, _, rest = line.partition("    #")[0].rpartition("|")
    stdin = shlex.split(prompt)[1] if prompt else ""
    with FaultServer(flavour="vllm", otherwise=ok("In Paris.")) as server:
        arguments = shlex.split(rest.replace(SERVER, server.url))[1:]
        done = warm_python.run(MAIN, *arguments, cwd=tmp_path, stdin=stdin)
    said = re.search(r"exit code (\d)", line)
    assert "Traceback" not in done.stderr
    assert done.returncode in ({int(said[1])} if said else {0, 1, 4}), done.stderr


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in IN_ORDER])
def test_tutorials_run_from_top_to_bottom(page, tmp_path, warm_python):
    """Whoever follows a tutorial in one folder gets to its end, with the exit codes that it tells."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if found[1] == "python":
            done = warm_python.run(found[2], cwd=tmp_path)
            assert done.returncode == 0, found[2] + done.stderr
        for line in found[2].splitlines() if found[1] == "bash" else ():
            done = warm_python.run(MAIN, *shlex.split(line, comments=True)[1:], cwd=tmp_path)
            said = re.search(r"exit code (\d)", line)
            assert done.returncode == (int(said[1]) if said else 0), line + done.stderr


def test_the_readme_shows_what_the_demo_prints(tmp_path):
    """The first screen of the README is a promise of what the first command does."""
    run = [sys.executable, "-c", MAIN, "demo", "--html", "demo.html"]
    wide = os.environ | {"COLUMNS": "110"}
    done = subprocess.run(run, cwd=tmp_path, env=wide, capture_output=True, text=True, check=True)
    printed = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith("HTML report")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("<!-- demo-output -->\n```text\n")[2].partition("\n```")[0]
    assert shown.splitlines() == "\n".join(printed).rstrip().splitlines()


def test_the_page_of_commands_is_up_to_date():
    """An option that the page does not know cannot be found; one that is gone misleads."""
    script = [sys.executable, str(ROOT / "scripts/cli_reference.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
