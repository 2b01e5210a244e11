"""The page without a browser: who sees it, what it is drawn with, and what strangers' text becomes in it."""

from __future__ import annotations

import re

import httpx2
import pytest
from tests.integration.test_report_chromium import make_analysis

from cert.backends.base import Message
from cert.core.config import ServiceSettings, Settings
from cert.services.common.keys import KeyFile, new_key
from cert.services.hamiltonian.app import create_app
from cert.services.hamiltonian.models import ModelTable
from cert.services.hamiltonian.options import HamiltonianOptions
from cert.services.hamiltonian.recent import RecentAnalyses
from cert.services.hamiltonian.state import HamiltonianState
from cert.services.page.bundle import address, contents, version
from cert.trajectory import HamiltonianMonitor

pytestmark = pytest.mark.anyio

HTML = {"accept": "text/html"}
HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe</script>"


def an_app(**service):
    """The service without a model; its lifespan is not run, so that nothing is loaded."""
    app = create_app(Settings(service=ServiceSettings(**service)), monitors={})
    app.state.cert = HamiltonianState(HamiltonianOptions(), ModelTable({}), RecentAnalyses())
    return app


def client(app):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1")


def hostile():
    return make_analysis([HOSTILE, "!"], prompt=(Message("user", HOSTILE),))


@pytest.fixture
def keyed(tmp_path):
    """A service with two keys: one that may write, and one that may read; and their secrets."""
    made = [new_key("acme", ("write",)), new_key("other", ("read",))]
    file = KeyFile(tmp_path / "keys.json")
    file.write(tuple(key for _, key in made))
    return an_app(api_keys_file=file.path), [secret for secret, _ in made]


async def test_every_page_leads_to_the_sign_in(keyed):
    """Without a key nobody sees a page; whoever signs in comes back to where he wanted to be."""
    app, _ = keyed
    async with client(app) as http:
        for path in ("/ui", "/ui/analyses", "/ui/analyses/an_1", "/ui/certificates", "/ui/health"):
            answer = await http.get(path, headers=HTML)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/ui/sign-in")
        assert (
            (await http.get("/ui/analyses", headers=HTML)).headers["location"].endswith("?next=/ui/analyses")
        )
        assert (await http.get("/ui/latest")).status_code == 401


async def test_the_sign_in_leads_to_no_other_site(keyed):
    """A link to the sign-in that somebody sends cannot lead away from the service."""
    app, _ = keyed
    async with client(app) as http:
        for wanted in (
            "https://evil.example",
            "//evil.example",
            "/ui//evil.example",
            "/v1/analyses",
            "/ui/a?b",
        ):
            text = (await http.get("/ui/sign-in", params={"next": wanted}, headers=HTML)).text
            assert 'data-after="/ui"' in text, wanted
        text = (await http.get("/ui/sign-in", params={"next": "/ui/analyses/an_1"}, headers=HTML)).text
        assert 'data-after="/ui/analyses/an_1"' in text


async def test_a_tenant_sees_its_own_analyses_alone(keyed):
    """What one tenant asked is on no page of another's."""
    app, (ours, theirs) = keyed
    entry = await app.state.cert.recent.keep("acme", hostile(), model="m", source="analyze")
    async with client(app) as http:
        for secret, status in ((ours, 200), (theirs, 404)):
            headers = {**HTML, "authorization": f"Bearer {secret}"}
            answer = await http.get(f"/ui/analyses/{entry.id}", headers=headers)
            assert answer.status_code == status
            listed = (await http.get("/ui/analyses", headers=headers)).text
            assert (entry.id in listed) is (status == 200)
        assert (
            "It is right"
            not in (await http.get("/ui", headers={**HTML, "authorization": f"Bearer {theirs}"})).text
        )


async def test_text_of_strangers_is_text_and_nothing_more():
    """Markup in prompts, answers and names is shown, not run; what turns the line around is named."""
    app = an_app()
    entry = await app.state.cert.recent.keep("anonymous", hostile(), model=HOSTILE, source="analyze")
    async with client(app) as http:
        for path in ("/ui", "/ui/latest", "/ui/analyses", f"/ui/analyses/{entry.id}"):
            text = (await http.get(path, headers=HTML)).text
            assert "<img" not in text, path
            assert "\u202e" not in text, path
            assert text.count("</script>") == text.count("<script"), path


async def test_no_page_has_a_script_or_style_of_its_own():
    """The security policy without `unsafe-inline` leaves every page whole."""
    app = an_app()
    entry = await app.state.cert.recent.keep("anonymous", hostile(), model="m", source="analyze")
    async with client(app) as http:
        for path in ("/ui", "/ui/analyses", f"/ui/analyses/{entry.id}", "/ui/certificates", "/ui/health"):
            answer = await http.get(path, headers=HTML)
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert re.findall(r"<style|\sstyle=|\son\w+=", answer.text.replace("onerror=", "")) == []
            for script in re.findall(r"<script[^>]*>", answer.text):
                assert "src=" in script or "application/json" in script
            for link in re.findall(r'(?:src|href)="([^"]*)"', answer.text):
                assert link.startswith(("/ui", "/v1/", "#")), link


async def test_what_nobody_chose_is_as_the_operator_set_it_up():
    """A limit that the page made up would be one that a certificate does not cover: each question refused."""
    app = an_app()
    table = ModelTable({"reference": HamiltonianMonitor()})
    app.state.cert = HamiltonianState(HamiltonianOptions(), table, RecentAnalyses())
    async with client(app) as http:
        page = (await http.get("/ui", headers=HTML)).text
    for name in ("tokens", "temperature"):
        field = re.search(rf'<input id="{name}"[^>]*>', page)
        assert field is not None
        assert "value=" not in field[0]


async def test_files_are_kept_by_browsers_and_change_their_address():
    """A browser loads styles and scripts once a release, and never mixes two releases."""
    app = an_app()
    async with client(app) as http:
        for name in contents():
            answer = await http.get(address(name))
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        stale = await http.get(f"/ui/assets/{'0' * len(version())}/page.js")
        assert stale.status_code == 200
        assert stale.headers["cache-control"] == "no-store"
        for name in ("../page.js", "watch.html.j2", "none.js"):
            assert (await http.get(f"/ui/assets/{version()}/{name}")).status_code == 404


def test_scripts_import_nothing_from_elsewhere():
    """The page works without a network: its own files name only each other."""
    for name, content in contents().items():
        text = content.decode()
        for imported in re.findall(r'from "([^"]+)"', text) if name.endswith(".js") else ():
            assert imported.removeprefix("./") in contents()
        assert "@import" not in text
        assert not re.search(r"url\((?!#)", text)
