"""The Hamiltonian service as its callers meet it, on the reference model."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import jsonschema
import pytest

from cert.backends.local import LocalBackend
from cert.core.config import GatewaySettings, ModelSettings, ServiceSettings, Settings
from cert.core.errors import ConfigurationError
from cert.services.common.keys import KeyFile, new_key
from cert.services.hamiltonian.app import create_app
from cert.services.hamiltonian.configured import name_of_source, options_of
from cert.services.hamiltonian.options import HamiltonianOptions
from cert.trajectory.api import HamiltonianMonitor
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import LabelledData

QUESTION = "What is the capital of Velmora?"


@pytest.fixture(scope="module")
def backend():
    made = LocalBackend.load("reference")
    yield made
    made.close()


def a_gate(threshold: float) -> CalibratedGate:
    import numpy as np

    data = LabelledData(
        ids=tuple(map(str, range(60))),
        correct=np.ones(60, dtype=np.bool_),
        columns={"max_surprisal": np.full(60, threshold)},
        units=np.arange(60),
        groups=None,
    )
    return CalibratedGate(calibrate(data, goal="streaming", alpha=0.05, score="max_surprisal"))


@pytest.fixture
def app(backend):
    return create_app(monitors={"reference": HamiltonianMonitor(backend=backend)})


@pytest.fixture
async def client(app):
    async with app.router.lifespan_context(app), client_of(app) as made:
        yield made


def client_of(app, key: str | None = None):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://localhost", headers=headers
    )


def refs(app) -> dict[str, Any]:
    return app.openapi()["components"]["schemas"]


@pytest.mark.anyio
async def test_an_analysis_has_the_committed_form(client, app):
    """A client that reads the schema of analyses could not read the service's."""
    answer = (await client.post("/v1/analyze", json={"prompt": QUESTION, "max_new_tokens": 8})).json()
    from importlib.resources import files

    schema = json.loads(
        files("cert.trajectory").joinpath("schemas/trajectory-analysis.v1.json").read_text("utf-8")
    )
    jsonschema.validate(answer["analysis"], schema)
    record = {"$ref": "#/components/schemas/AnalysisRecord", "components": {"schemas": refs(app)}}
    jsonschema.validate(answer, record)
    assert answer["analysis"]["model"]["name"] == "reference"


@pytest.mark.anyio
@pytest.mark.parametrize("detail", ["summary", "tokens", "full"])
async def test_detail_decides_how_much_comes(client, detail):
    """A list of answers would carry megabytes of candidates that nobody looks at."""
    body = {"prompt": QUESTION, "max_new_tokens": 8, "detail": detail}
    whole = (await client.post("/v1/analyze", json=body)).json()["analysis"]
    assert ("tokens" in whole) == (detail != "summary")
    assert ("top" in whole) == (detail == "full")
    assert whole["signals"]["n_tokens"] > 0


@pytest.mark.anyio
async def test_an_equal_question_is_the_same_analysis(client):
    """Labels of one answer would count twice, and the list would fill with copies."""
    body = {"prompt": QUESTION, "max_new_tokens": 8}
    first = (await client.post("/v1/analyze", json=body)).json()
    again = (await client.post("/v1/analyze", json=body)).json()
    third = (await client.post("/v1/analyze", json=body)).json()
    assert first["id"] == again["id"] == third["id"]
    assert [one["analysis"]["from_cache"] for one in (first, again, third)] == [False, True, True]
    assert first["analysis"]["tokens"] == third["analysis"]["tokens"]
    assert len((await client.get("/v1/analyses")).json()["items"]) == 1


@pytest.mark.anyio
async def test_pages_of_the_list_neither_repeat_nor_skip(client):
    """Somebody who looks for a failed answer would not find it."""
    for length in range(1, 8):
        await client.post("/v1/analyze", json={"prompt": QUESTION, "max_new_tokens": length})
    seen, cursor = [], None
    while True:
        page = (
            await client.get(
                "/v1/analyses", params={"limit": 3} | ({} if cursor is None else {"cursor": cursor})
            )
        ).json()
        seen += [item["id"] for item in page["items"]]
        if len(seen) == 3:  # what comes in between moves no page
            await client.post("/v1/analyze", json={"prompt": QUESTION, "max_new_tokens": 9})
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 7
    assert (await client.get("/v1/analyses", params={"cursor": "!!"})).status_code == 422


@pytest.mark.anyio
async def test_the_ring_is_bounded_by_number_and_by_bytes(backend):
    """A tenant who asks all day would take all memory."""
    for options in (HamiltonianOptions(recent=2), HamiltonianOptions(recent_bytes=1)):
        app = create_app(monitors={"reference": HamiltonianMonitor(backend=backend)}, options=options)
        async with app.router.lifespan_context(app), client_of(app) as client:
            ids = [
                (await client.post("/v1/analyze", json={"prompt": QUESTION, "max_new_tokens": n})).json()[
                    "id"
                ]
                for n in range(1, 5)
            ]
            kept = [item["id"] for item in (await client.get("/v1/analyses")).json()["items"]]
            assert kept == ids[::-1][: 2 if options.recent == 2 else 1]
            assert (await client.get(f"/v1/analyses/{ids[0]}")).status_code == 404


@pytest.mark.anyio
async def test_a_tenant_sees_nothing_of_another(backend, tmp_path):
    """One customer would read another's prompts, or learn from a fast answer what he asked."""
    file = KeyFile(tmp_path / "keys.json")
    made = {name: new_key(name, ("write",)) for name in ("acme", "other")}
    reader = new_key("acme", ("read",))
    file.write((*(key for _, key in made.values()), reader[1]))
    settings = Settings(service=ServiceSettings(api_keys_file=tmp_path / "keys.json"))
    monitor = HamiltonianMonitor(backend=backend)
    app = create_app(settings, monitors={"reference": monitor})
    async with app.router.lifespan_context(app):
        acme, other = (client_of(app, secret) for secret, _ in made.values())
        body = {"prompt": QUESTION, "max_new_tokens": 8}
        own = (await acme.post("/v1/analyze", json=body)).json()
        theirs = (await other.post("/v1/analyze", json=body)).json()
        assert theirs["id"] != own["id"]
        assert theirs["analysis"]["from_cache"] is False
        assert [i["id"] for i in (await other.get("/v1/analyses")).json()["items"]] == [theirs["id"]]
        for path in ("", "/report"):
            assert (await other.get(f"/v1/analyses/{own['id']}{path}")).status_code == 404
        label = f"/v1/analyses/{own['id']}/label"
        assert (await other.post(label, json={"correct": True})).status_code == 404
        # Who may only read starts no work and says nothing of answers.
        watching = client_of(app, reader[0])
        assert (await watching.get(f"/v1/analyses/{own['id']}")).status_code == 200
        assert (await watching.post("/v1/analyze", json=body)).status_code == 403
        assert (await watching.post(label, json={"correct": True})).status_code == 403
        assert (await client_of(app).get("/v1/analyses")).status_code == 401
        # Each has a cache of his own over one model.
        table = app.state.cert.models
        mine, his = (table.monitor("reference", tenant) for tenant in ("acme", "other"))
        assert mine.resource is his.resource is monitor.resource
        assert mine.engine.cache is not his.engine.cache


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/analyze", {"prompt": QUESTION, "model": "/etc/passwd"}, 404),
        ("/v1/analyze", {"prompt": QUESTION, "model": "openai:m@http://169.254.169.254"}, 404),
        ("/v1/analyze", {"prompt": QUESTION, "base_url": "http://evil"}, 422),
        ("/v1/analyze", {"prompt": " "}, 422),
        ("/v1/analyze", {}, 422),
        ("/v1/analyze", {"prompt": QUESTION, "messages": [{"role": "user", "content": "x"}]}, 422),
        ("/v1/analyze", {"prompt": QUESTION, "max_new_tokens": "5"}, 422),
        ("/v1/analyze", {"prompt": QUESTION, "max_new_tokens": 99_999}, 422),
        ("/v1/analyze", {"prompt": QUESTION, "temperature": -1}, 422),
        ("/v1/analyze", {"prompt": "x" * 20_000}, 413),
        ("/v1/analyze", {"prompt": QUESTION, "early_stop": True}, 422),
        ("/v1/analyze/batch", {"prompts": []}, 422),
        ("/v1/analyze/batch", {"prompts": ["x"] * 257}, 422),
        ("/v1/score", {"prompt": QUESTION}, 422),
        ("/v1/analyze/stream", {"prompt": QUESTION, "model": "gpt"}, 404),
    ],
)
async def test_a_wrong_request_is_refused_as_a_problem(client, path, body, status):
    """A caller could reach files or hosts of the operator, or could not tell what is wrong."""
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["code"]
    assert QUESTION not in answer.text


@pytest.mark.anyio
async def test_a_batch_has_an_outcome_for_each_prompt(client):
    """One bad prompt would take the answers of all others with it."""
    answer = (
        await client.post(
            "/v1/analyze/batch", json={"prompts": [QUESTION, " ", QUESTION], "max_new_tokens": 4}
        )
    ).json()
    assert answer["failed"] == 1
    assert [item["error"] is None for item in answer["items"]] == [True, False, True]
    assert answer["items"][1]["error"]["code"] == "input"


@pytest.mark.anyio
async def test_a_given_text_is_scored(client):
    """The service could not say how likely a text of somebody else's is."""
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Cedar Bridge"}]
    for body in ({"prompt": QUESTION, "completion": " Cedar"}, {"messages": messages}):
        answer = await client.post("/v1/score", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["analysis"]["finish_reason"] == "given"


@pytest.mark.anyio
async def test_a_report_is_a_page_that_its_policy_lets_run(client):
    """The browser would refuse the report's own script, or run one that an answer brought."""
    body = {"prompt": f"<script>alert(1)</script>{QUESTION}", "max_new_tokens": 8}
    made = (await client.post("/v1/analyze", json=body)).json()
    page = await client.get(f"/v1/analyses/{made['id']}/report")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>alert(1)" not in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.anyio
async def test_labels_feed_the_watch_of_the_gate_once(backend):
    """Labels would be lost, or one answer could refute a promise by being told many times."""
    gate = a_gate(0.5)
    app = create_app(monitors={"reference": HamiltonianMonitor(backend=backend, gate=gate)})
    async with app.router.lifespan_context(app), client_of(app) as client:
        made = (await client.post("/v1/analyze", json={"prompt": QUESTION})).json()
        assert made["analysis"]["gate"]["calibrated"] is True
        answers = [
            (await client.post(f"/v1/analyses/{made['id']}/label", json={"correct": True})).status_code
            for _ in range(2)
        ]
        assert answers == [200, 409]
        listed = (await client.get("/v1/calibrations")).json()
        assert listed["gates"] == {"reference": gate.profile}
        [one] = listed["items"]
        assert one["watch"]["reference"]["labels"] == 1
        assert one["certificate"] is None
        whole = (await client.get(f"/v1/calibrations/{gate.profile}")).json()
        assert whole["certificate"]["id"] == gate.profile
        assert (await client.get("/v1/calibrations/nothing")).status_code == 404
        assert (await client.get(f"/v1/analyses/{made['id']}")).json()["label"] is True


@pytest.mark.anyio
async def test_errors_name_no_model_path_or_host_of_the_operator(tmp_path):
    """Whoever asks would learn where the operator keeps things."""
    settings = Settings(service=ServiceSettings(models=(str(tmp_path),)))
    with pytest.raises(Exception):  # noqa: B017, PT011 - a folder without a model is told at the start
        create_app(settings)
    assert name_of_source("openai:org/model@http://10.0.0.7:8000/v1") == "org/model"
    assert name_of_source(str(tmp_path)) == tmp_path.name
    assert name_of_source("reference") == "reference"


def test_settings_become_options(tmp_path):
    """What an operator sets would not be what the service does."""
    gateway = GatewaySettings(upstream_url="http://engine:8000/v1/", mode="hold", hold_text="No.")
    made = options_of(Settings(gateway=gateway, model=ModelSettings(preload=("reference",))))
    assert made.upstream is not None
    assert made.upstream.base_url == "http://engine:8000/v1"
    assert (made.mode, made.replacement, made.models[0].preload) == ("hold", "No.", True)
    with pytest.raises(ConfigurationError, match="CERT_GATEWAY_MODE=hold"):
        options_of(Settings(gateway=GatewaySettings(fail_closed=True)))
    path = a_gate(0.5).certificate.save(tmp_path / "gate.json")
    gated = options_of(Settings(service=ServiceSettings(gates=(f"reference={path}",))))
    assert gated.models[0].gate is not None
    with pytest.raises(ConfigurationError, match="not served"):
        options_of(Settings(service=ServiceSettings(gates=(f"nobody={path}",))))
