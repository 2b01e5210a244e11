"""Routes that plain requests reach past the framework: the same answers, the same rules."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from tests.services.conftest import Running

from cert.core.config import Settings
from cert.core.config_services import ServiceSettings
from cert.services.common.keys import KeyFile, new_key
from cert.services.hamiltonian.app import create_app
from cert.services.hamiltonian.routes import analyze
from cert.trajectory import HamiltonianMonitor

BODY = {"prompt": "The birth city of", "max_new_tokens": 4}


@pytest.fixture(scope="module")
def monitor():
    """The reference model, loaded once."""
    with HamiltonianMonitor(preload=True) as made:
        yield made


@pytest.fixture
def served(serving, monitor) -> Running:
    """The service on it, for this machine."""
    running: Running = serving(create_app(Settings(), monitors={"reference": monitor}))
    return running


def test_every_direct_route_is_declared_to_the_framework_with_the_same_body():
    """Its document would leave the route out, and what is not plain would find nothing."""
    declared = {route.path: route for route in analyze.router.routes if isinstance(route, APIRoute)}
    for direct in analyze.direct:
        route = declared[direct.path]
        assert route.methods == {"POST"}
        assert route.body_field is not None
        assert route.body_field.field_info.annotation is direct.body


def test_both_ways_give_the_same_answer(served):
    """A caller must not notice which way his request took."""
    with served.client() as client:
        client.post("/v1/analyze", json=BODY)
        plain = client.post("/v1/analyze", json=BODY)
        # With a charset it is no longer plain, and takes the framework's way.
        whole = {"content-type": "application/json; charset=utf-8"}
        framework = client.post("/v1/analyze", content=json.dumps(BODY), headers=whole)
        assert plain.status_code == framework.status_code == 200
        assert plain.json() == framework.json()
        assert set(plain.headers) == set(framework.headers)
        wrong = client.post("/v1/analyze", json=BODY | {"temperature": -1})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")
        unknown = client.post("/v1/analyze", json=BODY | {"model": "none"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
        assert client.get("/v1/analyze").status_code == 405


def test_a_direct_route_asks_for_the_scope(serving, monitor, tmp_path):
    """A key that may only read must not make a model work."""
    file = KeyFile(tmp_path / "keys.json")
    (reader, kept), (writer, other) = new_key("acme", ("read",)), new_key("acme", ("write",))
    file.write((kept, other))
    settings = Settings(service=ServiceSettings(api_keys_file=file.path))
    served = serving(create_app(settings, monitors={"reference": monitor}))
    with served.client() as client:
        for secret, status in ((reader, 403), (writer, 200), ("cert_" + "x" * 43, 401)):
            header = {"Authorization": f"Bearer {secret}"}
            assert client.post("/v1/analyze", json=BODY, headers=header).status_code == status


def test_a_service_that_waits_for_its_keys_answers_nobody_until_they_come(serving, monitor, tmp_path):
    """A pod without its secret must neither fall over nor be open to all."""
    file = KeyFile(Path(tmp_path) / "keys.json")
    settings = Settings(service=ServiceSettings(api_keys_file=file.path, await_api_keys=True))
    served = serving(create_app(settings, monitors={"reference": monitor}))
    secret, kept = new_key("acme")
    header = {"Authorization": f"Bearer {secret}"}
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
        assert client.post("/v1/analyze", json=BODY).status_code == 401
        assert client.post("/v1/analyze", json=BODY, headers=header).status_code == 401
        file.write((kept,))
        assert client.post("/v1/analyze", json=BODY, headers=header).status_code == 200


def test_a_head_and_its_body_arrive_together(served):
    """Two pieces would wait for one another: the reader's acknowledgement may take 40 ms."""
    with served.client() as client:
        client.post("/v1/analyze", json=BODY)
    body = json.dumps(BODY | {"detail": "summary"}).encode()
    lines = ("POST /v1/analyze HTTP/1.1", "host: localhost", "content-type: application/json")
    head = "\r\n".join([*lines, f"content-length: {len(body)}"])
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            first = connection.recv(65_536)
            assert b'"analysis"' in first, "the first piece has the body too"


def test_data_and_pages_have_the_headers_that_are_for_them(served):
    """What a browser shows must not be framed or sniffed; what it only reads needs less."""
    with served.client() as client:
        page, data = client.get("/ui").headers, client.get("/v1/analyses").headers
        for one in (page, data):
            assert one["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in one["content-security-policy"]
            assert one["cache-control"] == "no-store"
        assert page["x-frame-options"] == "DENY"
        assert page["referrer-policy"] == "no-referrer"
        assert "x-frame-options" not in data
