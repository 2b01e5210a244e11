"""`--gate`: a certificate decides on the command line, says so, and nothing else is let through."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cryptography")
pytest.importorskip("rfc8785")

from cert.trajectory import HamiltonianMonitor
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.conditions import recorded_conditions
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.signing import make_key_pair

PROMPT = "The birth city of"


@pytest.fixture(scope="module")
def conditions():
    """How the commands' defaults make answers."""
    with HamiltonianMonitor("reference", preload=True) as monitor:
        g = monitor.analyze(PROMPT, max_new_tokens=2).generation
    return recorded_conditions(
        g.model, g.sampling, g.logprobs_mode, top_k=20, surprise_probability=0.1, max_new_tokens=150
    )


@pytest.fixture
def certificate(conditions, tmp_path):
    """A certificate whose threshold is 0.001: what is generated fails."""
    data = LabelledData(
        ids=tuple(map(str, range(60))),
        correct=np.ones(60, dtype=bool),
        columns={"sequence_logprob": np.full(60, -0.001)},
        units=np.arange(60),
        groups=np.array(["law"] * 60, dtype=object),
        conditions=conditions,
    )

    def made(name="c.json", *, key=None, **options):
        found = calibrate(data, goal="false-flags", alpha=0.05, **options)
        return (found if key is None else found.sign(key)).save(tmp_path / name)

    return made


def test_the_verdict_is_the_certificates_on_the_screen_and_in_the_json(cert, certificate):
    """Whoever reads the verdict must see that it is calibrated, by what, and what it promises."""
    path = certificate()
    identity = Certificate.load(path).id
    code, out, _ = cert("analyze", PROMPT, "--gate", path)
    told = " ".join(out.split())
    assert code == 1
    assert f"calibrated, certificate {identity[:12]}, not signed" in told
    assert "false flags ≤ 5 % of the right answers" in told
    assert "conditions not checked:" in told
    code, out, _ = cert("analyze", PROMPT, "--gate", path, "--json")
    data = json.loads(out)
    assert code == 1
    assert data["gate"]["certificate"]["id"] == data["gate"]["profile"] == identity
    code, out, _ = cert("watch", PROMPT, "--gate", path)
    assert code == 1
    assert identity[:12] in out


def test_what_the_certificate_does_not_cover_is_refused(cert, certificate):
    """Other settings on the command line end the promise, and exit code 2 says so."""
    path = certificate()
    for options, name in (
        (["--max-new-tokens", "20"], "max_new_tokens"),
        (["--temperature", "0.5"], "sampling"),
        (["--top-k", "5"], "top_k"),
    ):
        code, out, err = cert("analyze", PROMPT, "--gate", path, *options)
        assert (code, out) == (2, "")
        assert name in err
    code, out, _ = cert(
        "analyze", PROMPT, "--gate", path, "--max-new-tokens", "20", "--gate-waive", "max_new_tokens"
    )
    assert code in (0, 1)
    assert "conditions waived: max_new_tokens" in " ".join(out.split())
    code, _, err = cert("analyze", PROMPT, "--gate", path, "--gate-waive", "length")
    assert code == 2
    assert "no condition to waive" in err


def test_options_that_play_no_part_are_refused(cert, certificate):
    """Whoever gives a threshold beside a certificate believes that it counts."""
    path = certificate()
    for options in (
        ["--gate", path, "--entropy-threshold", "1"],
        ["--gate", path, "--top-k-entropy-threshold", "1"],
        ["--gate-group", "law"],
        ["--gate-waive", "model"],
    ):
        code, _, err = cert("analyze", PROMPT, *options)
        assert code == 2
        assert "plays no part" in err


def test_a_key_lets_only_its_own_certificates_decide(cert, certificate, tmp_path):
    """A service that trusts one team must not take another's word."""
    key = make_key_pair(tmp_path / "k.pem", tmp_path / "k.pub.pem")
    signed, unsigned = certificate("signed.json", key=key), certificate()
    public = tmp_path / "k.pub.pem"
    code, out, _ = cert("analyze", PROMPT, "--gate", signed, "--gate-key", public)
    assert code == 1
    assert ", signed" in " ".join(out.split())
    code, _, err = cert("analyze", PROMPT, "--gate", unsigned, "--gate-key", public)
    assert code == 2
    assert "not signed" in err
    signed.write_text(signed.read_text().replace('"alpha": 0.05', '"alpha": 0.04'))
    code, _, err = cert("analyze", PROMPT, "--gate", signed)
    assert code == 2
    assert "damaged or edited" in err


def test_a_group_is_named_or_nothing_is_measured(cert, certificate):
    """An answer of no group has no promise."""
    path = certificate(by_group=True)
    assert cert("analyze", PROMPT, "--gate", path, "--gate-group", "law")[0] == 1
    code, out, _ = cert("analyze", PROMPT, "--gate", path)
    assert code == 4
    assert "no group is given" in out


def test_a_text_that_was_given_has_to_be_vouched_for(cert, certificate):
    """The certificate is of answers of the model, not of texts that somebody brought."""
    path = certificate()
    code, _, err = cert("score", PROMPT, " Rome", "--gate", path)
    assert code == 2
    assert "sampling is not known" in err
    waived = ["--gate-waive", "sampling", "--gate-waive", "max_new_tokens"]
    assert cert("score", PROMPT, " Rome", "--gate", path, *waived)[0] == 1


def test_a_batch_is_judged_by_the_certificate_and_not_gone_on_with_by_another(cert, certificate, tmp_path):
    """One output with the verdicts of two gates could not be read by anybody."""
    source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text(f"{PROMPT}\n")
    path = certificate()
    code, told, err = cert("batch", source, out, "--gate", path)
    assert code == 0, err
    assert "1 fail" in told
    record = json.loads(out.read_text())
    assert record["analysis"]["gate"]["certificate"]["id"] == Certificate.load(path).id
    assert cert("batch", source, out, "--gate", path)[0] == 0
    code, _, err = cert("batch", source, out)
    assert code == 2
    assert "other settings" in " ".join(err.split())
    again = tmp_path / "again.jsonl"
    code, told, err = cert("batch", out, again, "--stored", "--gate", path)
    assert code == 0, err
    assert "1 fail" in told
    assert json.loads(again.read_text())["analysis"]["gate"] == record["analysis"]["gate"]
