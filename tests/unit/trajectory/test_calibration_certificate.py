"""Certificates: what is saved is what comes back, and nobody can change it unnoticed."""

import json
import math
import stat
from dataclasses import replace
from importlib import resources
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cryptography")
pytest.importorskip("rfc8785")

from cert.core.errors import InputError, OutputError
from cert.trajectory.calibration.certificate import Certificate
from cert.trajectory.calibration.certificate_json import LARGEST
from cert.trajectory.calibration.certificate_parts import (
    Achieved,
    Quantiles,
    Rate,
    ScoreQuantiles,
    Share,
)
from cert.trajectory.calibration.goals.types import GOALS, Threshold
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.calibration.signing import (
    load_private_key,
    load_public_key,
    make_key_pair,
    public_bytes,
)

SCHEMA = json.loads(
    resources.files("cert.trajectory").joinpath("schemas/gate-certificate.v1.json").read_text()
)
QUANTILES = ScoreQuantiles(Quantiles.of(np.arange(300.0)), Quantiles.of(np.arange(0.0, 300.0, 2.0)))
RATE = Rate(0.04, 0.01, 0.1, 50, 50)


def made(**changes):
    """A certificate as a calibration gives it."""
    usual: dict[str, Any] = {
        "goal": "false-flags",
        "alpha": 0.05,
        "delta": None,
        "score": "msp",
        "threshold": Threshold("false-flags", 3.25, 0.05, None, 100, 90, 20, {"rank": 96, "note": None}),
        "conditions": Conditions(model="m", sampling={"temperature": 0.0}, top_k=20, max_new_tokens=150),
        "n": 100,
        "n_units": 90,
        "n_wrong": 20,
        "not_measured": 1,
        "data_n": 150,
        "data_units": 140,
        "data_sha256": "ab" * 32,
        "dropped": {"no label": 3},
        "split": {"calibration": Share(100, 90, 20), "held_out": Share(50, 50, 9)},
        "seed": 7,
        "created_at": "2026-02-03T04:05:06Z",
        "versions": {"cert-framework": "4"},
        "achieved": Achieved(50, 50, 9, 0, RATE, {"passed": RATE}),
        "score_quantiles": QUANTILES,
        "notes": ("something to know",),
    }
    return Certificate(**usual | changes)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    private = make_key_pair(folder / "private.pem", folder / "public.pem")
    other = make_key_pair(folder / "other.pem", folder / "other.pub.pem")
    return folder, private, other


numbers = st.floats(allow_nan=False)
shares = st.floats(0.001, 0.999)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@st.composite
def certificates(draw):
    goal, alpha, delta = draw(st.sampled_from(GOALS)), draw(shares), draw(st.none() | shares)

    def threshold():
        details = st.dictionaries(names, st.none() | st.integers(0, 2**53 - 1) | st.floats(0, 1), max_size=2)
        return Threshold(goal, draw(numbers), alpha, delta, 10, 9, 2, draw(details))

    grouped = draw(st.booleans())
    sampling = {"temperature": 0.7, "top_p": draw(st.none() | st.floats(0.1, 1.0)), "top_k": None}
    scores = np.array(draw(st.lists(numbers, min_size=1, max_size=5)))
    return made(
        goal=goal,
        alpha=alpha,
        delta=delta,
        threshold=None if grouped else threshold(),
        groups={draw(names): threshold() for _ in range(2)} if grouped else None,
        conditions=Conditions(
            model=draw(st.none() | names),
            sampling=draw(st.sampled_from([None, {"temperature": 0.0}, sampling])),
            logprobs_mode=draw(st.sampled_from([None, "raw", "processed"])),
            surprise_probability=draw(st.none() | shares),
        ),
        achieved=draw(
            st.none() | st.just(Achieved(0, 0, 0, 0, Rate(math.nan, math.nan, math.nan, 0, 0), {}))
        ),
        score_quantiles=ScoreQuantiles(Quantiles.of(scores), Quantiles.of(scores[:0])),
        notes=tuple(draw(st.lists(names, max_size=2))),
    )


@settings(max_examples=60, deadline=None)
@given(certificates())
def test_what_is_written_comes_back_and_keeps_to_the_schema(certificate):
    """A gate that decides by another number than the one that was calibrated keeps no promise."""
    text = json.dumps(certificate.to_dict(), allow_nan=False)
    jsonschema.validate(json.loads(text), SCHEMA, format_checker=jsonschema.FormatChecker())
    again = Certificate.of_dict(json.loads(text))
    assert again.to_dict() == certificate.to_dict()
    assert again.id == certificate.id
    assert [t.value for t in again.thresholds] == [t.value for t in certificate.thresholds]
    assert again.score_quantiles == certificate.score_quantiles
    assert again.conditions == certificate.conditions


def test_the_same_calibration_has_the_same_id_on_another_day(tmp_path):
    """Verdicts name the id: repeated work must be recognised as such, and the date still be protected."""
    today, tomorrow = made(), made(created_at="2026-02-04T04:05:06Z")
    assert today.id == tomorrow.id
    assert today.checksum != tomorrow.checksum
    assert made(alpha=0.05, seed=8).id != today.id
    with pytest.raises(InputError, match="damaged or edited"):
        Certificate.of_dict(today.to_dict() | {"created_at": tomorrow.created_at})


def test_a_saved_certificate_is_loaded_signed_or_not(tmp_path, keys):
    """What the calibration gave is what the monitor gets, through a file."""
    folder, private, _ = keys
    for certificate in (made(), made().sign(private)):
        path = certificate.save(tmp_path / "c.json")
        assert Certificate.load(path) == certificate
    assert Certificate.load(path, public_key=folder / "public.pem") == certificate
    assert Certificate.load(path, public_key=private.public_key()).id == made().id


# --- attacks ---


def leaves(data, path=()):
    """Every number, text and null of JSON data, with its place."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from leaves(value, (*path, name))
    elif isinstance(data, list):
        for place, value in enumerate(data[:3]):
            yield from leaves(value, (*path, place))
    else:
        yield path, data


def edited(data, path, value):
    data = json.loads(json.dumps(data))
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return data


@pytest.mark.parametrize("signed", [False, True])
def test_no_value_can_be_changed_unnoticed(keys, signed):
    """One digit more in a threshold or a rate would be a promise that nobody gave."""
    certificate = made().sign(keys[1]) if signed else made()
    data = json.loads(json.dumps(certificate.to_dict()))
    tried = 0
    for path, value in leaves(data):
        for other in (0.25, 7, "x", None, True):
            if other == value and type(other) is type(value):
                continue
            with pytest.raises(InputError):
                Certificate.of_dict(edited(data, path, other))
            tried += 1
    assert tried > 300


def test_an_edit_with_new_hashes_passes_unsigned_and_fails_signed(keys, tmp_path):
    """The hash of an unsigned certificate stops accidents; only a signature stops those who edit it too."""
    whole = made().threshold
    assert whole is not None
    loose = made(threshold=replace(whole, value=99.0))
    assert Certificate.of_dict(loose.to_dict()).threshold == loose.threshold
    forged = loose.to_dict() | {"signature": made().sign(keys[1]).to_dict()["signature"]}
    with pytest.raises(InputError, match="signature is not of this certificate"):
        Certificate.of_dict(forged)
    with pytest.raises(InputError, match="not signed"):
        loose.verify(keys[1].public_key())
    path = loose.save(tmp_path / "c.json")
    with pytest.raises(InputError, match="not signed"):
        Certificate.load(path, public_key=keys[0] / "public.pem")


def test_another_key_is_refused_though_its_signature_is_right(keys, tmp_path):
    """Whoever edits a certificate can sign it with a key of his own; it is not the one that is trusted."""
    folder, _, other = keys
    path = made().sign(other).save(tmp_path / "c.json")
    Certificate.load(path)  # whole, and signed by somebody
    with pytest.raises(InputError, match="not with the one that is trusted"):
        Certificate.load(path, public_key=folder / "public.pem")


def test_a_signature_under_a_trusted_keys_name_is_refused(keys):
    """The key beside a signature can be exchanged for the trusted one; the signature is still another's."""
    _, private, other = keys
    data = made().sign(other).to_dict()
    data["signature"]["public_key"] = public_bytes(private).hex()
    with pytest.raises(InputError, match="damaged or edited"):
        Certificate.of_dict(data)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("huge", b" " * (LARGEST + 1), "bytes"),
        ("deep", b"[" * 200_000, "no JSON"),
        ("deep inside", b'{"kind": "gate_certificate", "combiner": ' + b'{"a":' * 5_000, "no JSON"),
        ("empty", b"", "no JSON"),
        ("not text", b"\xff\xfe\x00", "no JSON"),
        ("another thing", b'{"kind": "trajectory_analysis"}', "no certificate"),
        ("a list", b"[1]", "no certificate"),
        ("twice", b'{"kind": "gate_certificate", "kind": "gate_certificate"}', "occurs twice"),
        ("NaN", b'{"kind": "gate_certificate", "alpha": NaN}', "no number"),
        ("infinite", b'{"kind": "gate_certificate", "alpha": 1e999}', "larger than any number"),
        ("long number", b'{"kind": "gate_certificate", "n": ' + b"9" * 10_000 + b"}", "no JSON"),
        ("version 2", b'{"kind": "gate_certificate", "schema_version": 2}', "version 2"),
        ("version true", b'{"kind": "gate_certificate", "schema_version": true}', "version True"),
        ("no version", b'{"kind": "gate_certificate"}', "version None"),
        ("hidden", b'{"kind": "gate_certificate", "schema_version": "1\\u202e"}', "U\\+202E"),
    ],
)
def test_a_file_of_a_stranger_is_refused_in_one_sentence(tmp_path, name, text, reason):
    """A file that was sent must neither crash the service nor be taken for a certificate."""
    path = tmp_path / "c.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=reason):
        Certificate.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    """The reason is told, and it is no traceback."""
    for path in (tmp_path / "none.json", tmp_path, "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            Certificate.load(path)


def test_unknown_fields_are_refused_everywhere():
    """A field that this version passes over may be one that its author relies on."""
    data = json.loads(json.dumps(made().to_dict()))
    places = [data, data["threshold"], data["conditions"], data["achieved"]["promised"], data["data"]]
    for place in (*places, data["score_quantiles"]["all"], data["conditions"]["sampling"]):
        place["also"] = 1
        with pytest.raises(InputError, match="also"):
            Certificate.of_dict(data)
        del place["also"]
    Certificate.of_dict(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"delta": 1.5},
        {"goal": "everything"},
        {"threshold": None},
        {"groups": {"a": Threshold("false-flags", 1.0, 0.05, None, 1, 1, 0, {})}},
        {"threshold": Threshold("false-flags", math.nan, 0.05, None, 1, 1, 0, {})},
        {"threshold": Threshold("misses", 1.0, 0.05, None, 1, 1, 0, {})},
        {"threshold": Threshold("false-flags", 1.0, 0.01, None, 1, 1, 0, {})},
        {"groups": {}, "threshold": None},
        {"n": 0},
        {"n_units": 101},
        {"n_wrong": -1},
        {"not_measured": 101},
        {"data_n": 99},
        {"data_units": 10},
        {"data_sha256": "xyz"},
        {"created_at": "yesterday"},
        {"created_at": "2026-02-03T04:05:06"},
    ],
)
def test_no_certificate_can_say_what_no_calibration_gives(changes):
    """Values that contradict each other would be believed, one of them by one reader."""
    with pytest.raises(InputError):
        made(**changes)


@pytest.mark.parametrize("seed", [2**53, 2**70])
def test_whole_numbers_that_readers_round_have_no_hash(seed):
    """Above 2^53 two numbers read alike in some languages: one signature would be of both."""
    with pytest.raises(InputError):
        _ = made(seed=seed).id


# --- keys ---


def test_a_private_key_is_for_its_owner_and_never_replaced(tmp_path):
    """Whoever reads it can sign for its owner; and one that is lost makes old signatures useless."""
    private, public = tmp_path / "a.pem", tmp_path / "a.pub.pem"
    key = make_key_pair(private, public)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert public_bytes(load_private_key(private)) == public_bytes(load_public_key(public))
    assert public_bytes(key) == public_bytes(load_public_key(public))
    for paths in (
        (private, tmp_path / "b"),
        (tmp_path / "b", public),
        (tmp_path / "no" / "c", tmp_path / "b"),
    ):
        with pytest.raises(OutputError):
            make_key_pair(*paths)
    assert public_bytes(load_private_key(private)) == public_bytes(key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pem", "a.pub.pem"]


def test_what_is_no_key_is_refused(tmp_path, keys):
    """A wrong file in the place of a key must not read as one."""
    folder, _, _ = keys
    junk = tmp_path / "junk.pem"
    for content in (b"", b"junk", b"x" * 10_000, (folder / "public.pem").read_bytes()):
        junk.write_bytes(content)
        with pytest.raises(InputError):
            load_private_key(junk)
    for path in (folder / "private.pem", tmp_path / "none"):
        with pytest.raises(InputError):
            load_public_key(path)


def test_a_key_of_another_kind_is_refused(tmp_path):
    """Signatures are of one kind: another would be checked by rules that nobody wrote."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    path = tmp_path / "x.pem"
    path.write_bytes(
        x25519.X25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(InputError, match="Ed25519"):
        load_public_key(path)
