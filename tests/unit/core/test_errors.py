"""The error tree: structured, picklable, and drawn as it is."""

import json
import pickle
import re

import pytest

from cert.core import errors
from cert.core.errors import CertError, InputError, PromptTooLongError

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_the_way_between_processes(cls):
    """A worker's error must arrive whole: default pickling loses keyword-only arguments."""
    error = cls("it broke", hint="mend it", retry_after=2.5, context={"n": 1})
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert copy.to_dict() == error.to_dict()


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_are_json_with_the_same_keys(cls):
    """Services and records show errors as data; a client relies on the keys."""
    error = cls("it broke", hint="mend it", retry_after=2.5, context={"n": 1})
    assert json.loads(json.dumps(error.to_dict())) == {
        "code": cls.code,
        "message": "it broke",
        "hint": "mend it",
        "retryable": cls.retryable,
        "retry_after": 2.5,
        "context": {"n": 1},
    }
    assert set(cls("x").to_dict()) == set(error.to_dict())


def test_every_class_has_a_code_of_its_own():
    """Two errors with one code could not be told apart by a client."""
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


def test_the_tree_in_the_docstring_is_the_tree():
    """People choose what to catch from that drawing."""
    drawn = re.findall(r"(\w+Error)(?: \((\w+)\))?\s{2,}", errors.__doc__)
    assert {name for name, _ in drawn} | {"CertError"} == set(errors.__all__)
    for name, builtin in drawn:
        if builtin:
            assert builtin in {base.__name__ for base in getattr(errors, name).__mro__}


def test_which_errors_may_pass_by_themselves():
    """A client tries again what says so: one wrong word is a storm on a server, or a lost answer."""
    assert {cls.__name__ for cls in CLASSES if cls.retryable} == {
        "EvidenceError",
        "OverloadedError",
        "RateLimitedError",
        "StoreError",
        "UpstreamConnectionError",
        "UpstreamProtocolError",
        "UpstreamRateLimitError",
        "UpstreamTimeoutError",
        "UpstreamUnavailableError",
    }


def test_bad_input_is_also_a_value_error():
    """Code that never heard of CERT catches it as what it is."""
    assert issubclass(InputError, ValueError)
    assert issubclass(PromptTooLongError, InputError)
    assert issubclass(InputError, CertError)
