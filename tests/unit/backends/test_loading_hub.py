"""Models from a hub: what is fetched, what is pinned, and what happens without a network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# The hub's library reads its settings when it is imported, so each case has a process of its own.
PROGRAM = """
import json, sys
from cert.backends.loading import LoadOptions, locate
from cert.core.errors import CertError
try:
    directory, revision = locate(sys.argv[1], LoadOptions(**json.loads(sys.argv[2])))
    told = {"directory": str(directory), "revision": revision}
except CertError as error:
    told = {"error": type(error).__name__, "message": error.message, "hint": str(error.hint)}
print(json.dumps(told))
"""


class Hub(ThreadingHTTPServer):
    """Speaks as much of the hub's API as fetching a repository takes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[str] = []
        self.refusal: tuple[int, str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if self.server.refusal is not None:
            status, code = self.server.refusal
            self._send(status, {"X-Error-Code": code, "X-Error-Message": "no"}, b"{}", body)
        elif path.startswith("/api/"):
            self._send(
                200, {"Content-Type": "application/json"}, json.dumps(self._listing(path)).encode(), body
            )
        else:
            content = (self.server.folder / path.rpartition("/")[2]).read_bytes()
            etag = hashlib.sha1(content).hexdigest()
            self._send(200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, content, body)

    def _listing(self, path: str) -> Any:
        files = {file.name: file.read_bytes() for file in self.server.folder.iterdir()}
        if "/tree/" not in path:
            return {"id": "lab/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]

    def _send(self, status: int, headers: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(model_folder) -> Iterator[Hub]:
    """A hub with one repository, which also holds a pickle and a program."""
    (model_folder / "pytorch_model.bin").write_bytes(b"pickle")
    (model_folder / "modeling.py").write_text("raise SystemExit('ran')")
    with Hub(model_folder) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


@pytest.fixture
def ask(hub, tmp_path) -> Any:
    """Ask for a model in a process of its own, which has this hub and an empty cache."""

    def run(name: str = "lab/model", *, offline: bool = False, **options: Any) -> dict[str, Any]:
        hub.asked.clear()
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-c", PROGRAM, name, json.dumps(options)]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


def names(answer: dict[str, Any]) -> set[str]:
    return {file.name for file in Path(answer["directory"]).iterdir()}


def test_a_model_is_fetched_without_its_pickles_and_programs(ask, hub):
    """What is not on the disk cannot run by mistake."""
    answer = ask()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names(answer)
    assert not [path for path in hub.asked if path.endswith((".bin", ".py"))]


def test_the_commit_is_recorded(ask):
    """A record that names a branch names another model tomorrow."""
    assert ask()["revision"] == COMMIT
    assert ask(revision="main")["revision"] == COMMIT


def test_a_pinned_model_that_is_here_asks_nobody(ask, hub):
    """A pinned deployment starts while the hub is down."""
    assert ask(revision=COMMIT)["revision"] == COMMIT
    assert hub.asked
    assert ask(revision=COMMIT)["revision"] == COMMIT
    assert hub.asked == []


@pytest.mark.parametrize("how", [{"offline": True}, {"local_files_only": True}])
def test_offline_nothing_leaves_the_machine(ask, hub, how):
    """An isolated machine must neither wait for a network nor tell it names; the cache serves it."""
    missing = ask(**how)
    assert hub.asked == []
    assert missing["error"] == "ModelNotFoundError"
    assert "lab/model" in missing["message"]
    assert "hf download lab/model" in missing["hint"]
    ask()
    assert ask(**how)["revision"] == COMMIT
    assert hub.asked == []


def test_half_a_model_in_the_cache_is_not_taken_for_one(ask, tmp_path):
    """A download that broke off leaves a folder that looks like a model."""
    weights = Path(ask()["directory"]) / "model.safetensors"
    weights.unlink()
    told = ask(offline=True)
    assert told["error"] == "ModelNotFoundError"
    assert "whole in the local cache" in told["message"]


def test_a_repository_is_checked_like_a_directory(ask, hub):
    """The hub is no better a source than any folder."""
    config = hub.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoConfig": "modeling.C"}}))
    assert ask()["error"] == "UnsafeModelError"


def test_code_of_a_hub_model_has_to_be_pinned(ask, hub):
    """Code that somebody has read and allowed must be the code that runs next month."""
    for revision in (None, "main", "0123abc"):
        told = ask(allow_remote_code=True, revision=revision)
        assert told["error"] == "ConfigurationError"
        assert "pinned" in told["message"]
    assert hub.asked == []
    assert "modeling.py" in names(ask(allow_remote_code=True, revision=COMMIT))


def test_allowed_pickles_are_fetched(ask, hub, tmp_path):
    """The way out for a user who has only old weights must work for a hub model too."""
    (hub.folder / "model.safetensors").unlink()
    assert ask()["error"] == "ModelLoadError"
    shutil.rmtree(tmp_path / "cache")
    assert "pytorch_model.bin" in names(ask(allow_pickle=True))


@pytest.mark.parametrize(
    ("refusal", "message", "hint"),
    [
        ((403, "GatedRepo"), "granted access", "hf auth login"),
        ((404, "RevisionNotFound"), "no revision 'v9'", "branch, a tag or a commit"),
        ((404, "RepoNotFound"), "nor on the hub", "spelling"),
        ((401, "RepoNotFound"), "nor on the hub", "spelling"),
        ((500, "ServerError"), "could not be fetched", "hf download"),
    ],
)
def test_what_the_hub_refuses_is_told_in_words(ask, hub, refusal, message, hint):
    """The next step differs: ask for access, mend the name, or wait."""
    hub.refusal = refusal
    told = ask(revision="v9")
    assert told["error"] == "ModelNotFoundError"
    assert message in told["message"]
    assert hint in told["hint"]


def test_a_directory_goes_before_the_hub_but_never_under_a_pin(ask, hub, tmp_path):
    """A folder that happens to be called like the model must not pass for the pinned one."""
    shutil.copytree(hub.folder, tmp_path / "lab" / "model")
    assert ask()["revision"] is None
    told = ask(revision=COMMIT)
    assert told["error"] == "ConfigurationError"
    assert "is a directory" in told["message"]
