"""Who is let in."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI
from typer.testing import CliRunner

from cert.cli.main import app as cli
from cert.core.config import ServiceSettings, Settings
from cert.core.errors import ConfigurationError
from cert.services.common.app import create_base
from cert.services.common.keys import KeyFile, Keys, new_key
from cert.services.common.policy import AccessPolicy, is_loopback
from cert.services.common.principal import Principal, require
from cert.services.common.sessions import COOKIE, Sessions, cookie_header


@contextlib.asynccontextmanager
async def nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


def an_app(**service) -> FastAPI:
    router = APIRouter()

    @router.get("/v1/who")
    def who(principal: Annotated[Principal, Depends(require("read"))]) -> dict[str, Any]:
        return {"tenant": principal.tenant, "key": principal.key_id}

    @router.post("/v1/change")
    def change(principal: Annotated[Principal, Depends(require("write"))]) -> dict[str, Any]:
        return {"tenant": principal.tenant}

    settings = Settings(service=ServiceSettings(**service))
    return create_base(settings, title="t", description="d", routers=[router], lifespan=nothing)


def client(app: FastAPI, host: str = "127.0.0.1") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=f"http://{host}")


@pytest.fixture
def keys(tmp_path):
    """A file with a key to read, one to write, and one that ended."""
    file = KeyFile(tmp_path / "keys.json")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = {
        "read": new_key("acme", ("read",)),
        "write": new_key("acme", ("write",)),
        "other": new_key("other", ("admin",)),
        "ended": new_key("acme", ("admin",), yesterday),
    }
    file.write(tuple(key for _, key in made.values()))
    return file, {name: secret for name, (secret, _) in made.items()}


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_key_lets_in_and_names_its_tenant(keys, header):
    """Nobody could use the service, or one customer would be taken for another."""
    file, secrets = keys
    value = f"Bearer {secrets['read']}" if header == "Authorization" else secrets["read"]
    async with client(an_app(api_keys_file=file.path)) as asked:
        answer = await asked.get("/v1/who", headers={header: value})
        assert answer.json()["tenant"] == "acme"
        assert (await asked.post("/v1/change", headers={header: value})).status_code == 403


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer cert_x", "Basic abc", "Bearer " + "A" * 48, "bearer \x00"]
)
async def test_without_a_valid_key_nothing_is_answered(keys, value):
    """Everybody on the network could read what was analysed."""
    file, _ = keys
    async with client(an_app(api_keys_file=file.path)) as asked:
        answer = await asked.get("/v1/who", headers={"Authorization": value.encode()})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["code"] == "unauthorized"
        assert (await asked.get("/openapi.json")).status_code == 401
        assert (await asked.get("/health/live")).status_code == 200


@pytest.mark.anyio
async def test_a_key_that_ended_or_was_revoked_is_none(keys):
    """A key that leaked could never be taken back."""
    file, secrets = keys
    async with client(an_app(api_keys_file=file.path)) as asked:
        bearer = {"Authorization": f"Bearer {secrets['ended']}"}
        assert (await asked.get("/v1/who", headers=bearer)).status_code == 401
        bearer = {"Authorization": f"Bearer {secrets['write']}"}
        assert (await asked.post("/v1/change", headers=bearer)).status_code == 200
        file.write(tuple(key for key in file.read() if key.scopes != ("write",)))
        assert (await asked.post("/v1/change", headers=bearer)).status_code == 401


@pytest.mark.anyio
async def test_half_a_file_leaves_the_keys_in_force(keys):
    """An editor that saves in two steps would lock everybody out, or let everybody in."""
    file, secrets = keys
    async with client(an_app(api_keys_file=file.path)) as asked:
        file.path.write_text(file.path.read_text()[:40])
        bearer = {"Authorization": f"Bearer {secrets['read']}"}
        assert (await asked.get("/v1/who", headers=bearer)).status_code == 200
        assert (await asked.get("/v1/who")).status_code == 401


def test_the_file_holds_no_key_and_is_its_owners_alone(keys):
    """Whoever reads a backup of it could use the service."""
    file, secrets = keys
    text = file.path.read_text()
    assert not any(secret in text for secret in secrets.values())
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "example.org", "::"])
def test_a_service_without_keys_is_for_this_machine_alone(host):
    """A test set-up that was put on a server would answer the whole network."""
    with pytest.raises(ConfigurationError, match="CERT_HOST"):
        an_app(host=host)
    assert not AccessPolicy(host, None, allow_anonymous=True).local_only
    assert not is_loopback(host)


def test_an_empty_file_of_keys_is_refused(tmp_path):
    """The operator would believe that keys are in force."""
    with pytest.raises(ConfigurationError, match="no key"):
        an_app(api_keys_file=tmp_path / "none.json")


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil"])
async def test_a_name_of_another_site_does_not_reach_a_local_service(host):
    """A web page could ask it through a name that it points at this machine (DNS rebinding)."""
    async with client(an_app(), host) as asked:
        assert (await asked.get("/v1/who")).status_code == 421
    async with client(an_app(), "localhost") as asked:
        assert (await asked.get("/v1/who")).json() == {"tenant": "anonymous", "key": None}


@pytest.mark.anyio
async def test_a_cookie_reads_alone_unless_its_token_comes_too(keys):
    """Another site could start measurements in the name of whoever is signed in (CSRF)."""
    file, secrets = keys
    app = an_app(api_keys_file=file.path)
    principal = app.state.base.policy.keys.principal(secrets["write"])
    value, session = app.state.base.sessions.begin(principal)
    cookie = {"Cookie": f"{COOKIE}={value}"}
    async with client(app) as asked:
        assert (await asked.get("/v1/who", headers=cookie)).json()["tenant"] == "acme"
        assert (await asked.post("/v1/change", headers=cookie)).status_code == 403
        wrong = cookie | {"X-CSRF-Token": "x" * len(session.csrf)}
        assert (await asked.post("/v1/change", headers=wrong)).json()["code"] == "csrf"
        right = cookie | {"X-CSRF-Token": session.csrf}
        assert (await asked.post("/v1/change", headers=right)).status_code == 200
        app.state.base.sessions.end(value)
        assert (await asked.get("/v1/who", headers=cookie)).status_code == 401


def test_sessions_end_by_themselves_and_are_kept_as_hashes():
    """A cookie of last month would still open the page."""
    now = [0.0]
    sessions = Sessions(10.0, clock=lambda: now[0])
    value, _ = sessions.begin(Principal("a", None, frozenset({"read"})))
    assert sessions.find(value) is not None
    assert value not in repr(vars(sessions))
    now[0] = 10.0
    assert sessions.find(value) is None
    assert "HttpOnly" in cookie_header(value, 10, secure=False)
    assert cookie_header(value, 10, secure=True).endswith("SameSite=Strict; Secure")


def test_keys_are_made_listed_and_revoked_at_the_command_line(tmp_path):
    """Without it nobody could make a key."""
    file, run = tmp_path / "keys.json", CliRunner()
    made = run.invoke(cli, ["keys", "new", "--file", str(file), "--tenant", "acme", "--scope", "admin"])
    secret = made.stdout.splitlines()[0]
    principal = Keys(KeyFile(file)).principal(secret)
    assert principal is not None
    assert (principal.tenant, principal.may("write")) == ("acme", True)
    listed = run.invoke(cli, ["keys", "list", "--file", str(file)])
    assert str(principal.key_id) in listed.stdout
    assert secret not in listed.stdout
    run.invoke(cli, ["keys", "revoke", str(principal.key_id), "--file", str(file)])
    assert Keys(KeyFile(file)).principal(secret) is None


@pytest.mark.parametrize("change", [
    {"scopes": ["root"]}, {"scopes": []}, {"tenant": "../x"}, {"sha256": "x"}, {"more": 1},
    {"expires_at": "2026-01-01"},
])  # fmt: skip
def test_a_file_that_is_wrong_is_refused_whole(keys, change):
    """A key with a scope that was mistyped would do more, or less, than its maker believes."""
    file, _ = keys
    data = json.loads(file.path.read_text())
    data["keys"][0] |= change
    file.path.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match="no file of keys"):
        file.read()


@pytest.mark.anyio
async def test_a_sign_in_is_a_key_for_a_cookie_that_no_script_reads_and_ends_with_the_key(keys):
    """A script in the page could carry the key away, or a key that was taken back would still open it."""
    file, secrets = keys
    async with client(an_app(api_keys_file=file.path)) as asked:
        assert (await asked.post("/ui/session", json={"key": secrets["ended"]})).status_code == 401
        answer = await asked.post("/ui/session", json={"key": secrets["write"]})
        assert answer.status_code == 200
        assert secrets["write"] not in answer.text
        assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
        csrf = {"X-CSRF-Token": answer.json()["csrf"]}
        assert (await asked.get("/ui/session")).json()["csrf"] == csrf["X-CSRF-Token"]
        assert (await asked.post("/v1/change", headers=csrf)).status_code == 200
        answer = await asked.post("/ui/session", json={"key": secrets["read"]})  # now as another
        assert answer.status_code == 200
        assert (await asked.post("/v1/change", headers=csrf)).status_code == 403
        csrf = {"X-CSRF-Token": (await asked.get("/ui/session")).json()["csrf"]}
        assert (await asked.delete("/ui/session")).status_code == 403
        file.write(tuple(key for key in file.read() if key.scopes != ("read",)))
        assert (await asked.get("/v1/who")).status_code == 401
        assert (await asked.post("/ui/session", json={"key": secrets["other"]})).status_code == 200
        csrf = {"X-CSRF-Token": (await asked.get("/ui/session")).json()["csrf"]}
        assert (await asked.delete("/ui/session", headers=csrf)).status_code == 204
        assert (await asked.get("/v1/who")).status_code == 401


@pytest.mark.anyio
async def test_the_cookie_is_for_tls_alone_off_this_machine(keys):
    """Whoever listens on the network would be signed in too."""
    file, secrets = keys
    async with client(an_app(api_keys_file=file.path), "cert.example") as asked:
        answer = await asked.post("/ui/session", json={"key": secrets["read"]})
        assert answer.headers["set-cookie"].endswith("; Secure")
    async with client(an_app(api_keys_file=file.path)) as asked:
        answer = await asked.post("/ui/session", json={"key": secrets["read"]})
        assert "Secure" not in answer.headers["set-cookie"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"},
    ],
)
async def test_a_page_of_another_site_changes_nothing_on_a_service_without_keys(headers):
    """Whoever opens a hostile page while a local service runs would work for it."""
    async with client(an_app()) as asked:
        assert (await asked.post("/v1/change", headers=headers)).json()["code"] == "foreign"
        assert (await asked.post("/v1/change", headers={"Origin": "http://127.0.0.1"})).status_code == 200
        assert (await asked.post("/v1/change")).status_code == 200


@pytest.mark.anyio
async def test_a_wrong_key_is_told_even_where_all_may_ask(keys):
    """Its owner would look for his analyses under a tenant that is not his."""
    file, _ = keys
    async with client(an_app(api_keys_file=file.path, allow_anonymous=True, host="0.0.0.0")) as asked:
        assert (await asked.get("/v1/who")).json()["tenant"] == "anonymous"
        wrong = {"Authorization": "Bearer cert_" + "A" * 43}
        assert (await asked.get("/v1/who", headers=wrong)).status_code == 401


@pytest.mark.anyio
async def test_the_documents_of_the_interface_and_the_page_ask_for_a_key(keys):
    """What the service can do, and whose it is, would be everybody's to read."""
    file, _ = keys
    async with client(an_app(api_keys_file=file.path)) as asked:
        for path in ("/docs", "/openapi.json", "/redoc", "/ui", "/ui/analyses", "/v1/nowhere"):
            assert (await asked.get(path)).status_code == 401, path


@pytest.mark.anyio
async def test_the_interface_is_told_without_a_script_or_another_host():
    """The page of it would be empty under our own security policy, or on a machine without the network."""
    async with client(an_app()) as asked:
        text = (await asked.get("/docs")).text
    assert "POST /v1/change" in text
    assert not [part for part in ("<script", "<style", "://", "src=") if part in text]


@pytest.mark.parametrize(
    ("proxies", "scheme"), [((), "http"), (("127.0.0.1",), "https"), (("10.0.0.0/8",), "http")]
)
def test_only_a_proxy_that_is_named_says_how_it_was_asked(serving, proxies, scheme):
    """Anybody could make the service believe that he came by TLS, or from another address."""
    app = an_app(trusted_proxies=proxies)
    with serving(app).client() as asked:
        answer = asked.get(
            "/health/live", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "8.8.8.8"}
        )
    assert ("strict-transport-security" in answer.headers) == (scheme == "https")
