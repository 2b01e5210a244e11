"""The page on what each signal is worth is that of the committed results, and its words are true of them."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/explanation/what-each-signal-is-worth.md"
RESULTS = json.loads((ROOT / "benchmarks/results/detection.json").read_text(encoding="utf-8"))
PEERS = json.loads((ROOT / "benchmarks/results/peers_formulas.json").read_text(encoding="utf-8"))
MODELS = list(RESULTS["models"].values())


@pytest.fixture(scope="module")
def page():
    """The benchmark's program for the page, which needs nothing but the results."""
    spec = importlib.util.spec_from_file_location("detection_page", ROOT / "benchmarks/detection_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_results(page):
    """A figure that was typed or is old misleads whoever decides by it."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page.page_of(RESULTS, PEERS)
    assert "@" not in text


def test_no_single_score_beats_the_answers_probability():
    """The sentence that people choose a score by."""
    for part in ("one_pass", "samples"):
        whole = RESULTS["together"][part]
        better = [name for name, found in whole["against_msp"].items() if found == "better"]
        assert set(better) <= {"combiner"}
        for one in MODELS:
            for name, score in one["answers"][part]["scores"].items():
                difference = score["difference_from_msp"]
                if name != "combiner" and difference is not None and difference["low"] is not None:
                    assert difference["low"] <= 0.0, name
        assert whole["auroc"]["msp"]["mean"] > 0.85


def test_what_is_said_of_the_combiner():
    """An advantage that is told without its interval, or on the fitting half alone, would be a promise."""
    used = [one["answers"]["combiner"]["used"] for one in MODELS]
    on_test = [one["answers"]["combiner"]["advantage_on_test"]["seen"] for one in MODELS]
    assert used == [True, False, False]
    assert on_test[0]["low"] > 0.0
    assert on_test[1]["value"] < 0.0
    assert on_test[2]["low"] > 0.0
    assert all(found["value"] < 0.01 for found in on_test)


def test_samples_and_asking_back_are_worth_less_here():
    """Who pays for ten answers must get what the page says."""
    whole = RESULTS["together"]["samples"]
    several = [name for name in whole["order"] if name.rpartition("_")[2] in ("5", "10")]
    best = max(several, key=lambda name: whole["auroc"][name]["mean"])
    assert best == "semantic_entropy_unnormalized_10"
    assert whole["auroc"][best]["mean"] < whole["auroc"]["msp"]["mean"]
    assert all(whole["auroc"][name]["most"] < whole["auroc"]["msp"]["most"] for name in several)
    assert RESULTS["together"]["one_pass"]["auroc"]["p_true"]["most"] < 0.6


def test_a_value_shows_in_all_of_its_tokens():
    """An alarm on a value's first token alone would miss what the others show."""
    for one in MODELS:
        found = one["onset"]["tokens"]["auroc"]["surprisal"]
        assert found["value_largest"]["low"] > found["value_start"]["high"]
        assert found["all_tokens"]["high"] < found["value_start"]["low"]


def test_promises_are_kept_where_answers_come_as_they_did():
    """The first thing that a calibrated gate is for."""
    for one in MODELS:
        assert all(row["kept"] for row in one["promises"])
        assert all(row["draws"] >= 500 for row in one["promises"])
        assert all(row["kept"] for row in one["shifts"]["none"]["rates"])


def test_a_shift_for_the_worse_breaks_them_and_is_noticed():
    """A page that only showed what holds would be an advertisement."""
    for one in MODELS:
        rare = one["shifts"]["rare facts"]
        assert not any(row["kept"] for row in rare["rates"] if row["goal"] == "selective-risk")
        for name in ("rare facts", "attribute", "temperature"):
            for goal in ("selective-risk", "false-flags"):
                warned = one["shifts"][name]["watch"][goal]["warned"]
                assert warned["share"] == 1.0
                assert warned["median"] < 100
        assert all(row["kept"] for row in one["shifts"]["temperature"]["rates"])
        assert all(w["void"]["share"] <= 0.02 for w in one["shifts"]["temperature"]["watch"].values())
        assert rare["watch"]["selective-risk"]["void"]["share"] > 0.9
        quiet = one["shifts"]["none"]["watch"]
        assert all(w["warned"]["share"] <= 0.05 for w in quiet.values())


def test_few_candidates_lose_no_power():
    """What the page says of five candidates, within a hundredth of AUROC."""
    for one in MODELS:
        for row in one["truncation"]["power"]:
            if row["k"] is not None:
                lost = row["auroc_difference"]
                assert abs(lost["value"]) < 0.01
                assert lost["high"] is None or lost["high"] >= 0.0
        for score in ("mean_entropy", "max_entropy"):
            by_k = {row["k"]: row["gates"] for row in one["truncation"]["power"] if row["score"] == score}
            for goal in ("selective-risk", "misses"):
                assert by_k[5][goal]["pass_rate"] > by_k[None][goal]["pass_rate"] - 0.005
        assert all(row["vocabulary_unknown"]["pass"] == 0.0 for row in one["truncation"]["undecided"])


def test_peers_agree():
    """Formulas that mean the same give the same numbers, or one of the two is wrong."""
    rows = [row for peer in PEERS["peers"].values() for row in peer["rows"]]
    assert set(PEERS["peers"]) == {"lm-polygraph", "uqlm", "artefactual"}
    assert all(row["agrees"] for row in rows if not row["why"])
