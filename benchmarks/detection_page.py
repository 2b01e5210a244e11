"""The page on what each signal is worth, made of the results and of detection_page.md; see detection.py.

python benchmarks/detection.py --only-page --page docs/explanation/what-each-signal-is-worth.md
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["page_of", "write_page"]

Report = dict[str, Any]
WORDS: Final = Path(__file__).with_suffix(".md")
"""The words; tables and numbers come where names stand between @."""
SINGLE_ANSWER: Final = ("msp", "mean_entropy", "p_true", "combiner")
SHOWN_ALARMS: Final = ("msp", "max_surprisal", "max_cusum", "max_entropy")
SHOWN_UNITS: Final = 300
SHIFT_NAMES: Final = {
    "none": "none: other people, as at the calibration",
    "wording": "a wording that training had",
    "temperature": "temperature 1 in place of greedy",
    "attribute": "birth dates, calibrated on the other four attributes",
    "rare facts": "facts that training showed at most 4 times",
}
GOAL_NAMES: Final = {
    "false-flags": "flagged, of the right ones",
    "misses": "passed, of the wrong ones",
    "selective-risk": "wrong, of those that pass",
    "undetected-errors": "wrong and passed, of all",
}


def write_page(results: Path, page: Path) -> None:
    """Write the page of results, with those of the peers that lie beside them."""
    report = json.loads(results.read_text(encoding="utf-8"))
    peers = json.loads((results.parent / "peers_formulas.json").read_text(encoding="utf-8"))
    page.write_text(page_of(report, peers), encoding="utf-8")


def page_of(report: Report, peers: Report) -> str:
    """Return the page as Markdown."""
    tables: dict[str, Callable[[], str]] = {
        "ONE_PASS": lambda: one_pass(report),
        "MEASURES": lambda: measures(report),
        "COMBINER": lambda: combiner(report),
        "SAMPLES": lambda: samples(report),
        "SCOPES": lambda: scopes(report),
        "TOKENS": lambda: tokens(report),
        "ALARMS": lambda: alarms(report),
        "PROMISES": lambda: promises(report),
        "SHIFTS": lambda: shift_rates(report),
        "WATCH": lambda: watch(report),
        "POWER": lambda: power(report),
        "UNDECIDED": lambda: undecided(report),
        "PEERS": lambda: formulas(peers),
        "RAN_ON": lambda: ran_on(report),
    }
    text = WORDS.read_text(encoding="utf-8")
    for name, made in tables.items():
        text = text.replace(f"@{name}@", made())
    for name, value in figures(report, peers).items():
        text = text.replace(f"@{name}@", value)
    return text


# --- how numbers are written ---


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Return a number as the page writes it; a dash is not measured."""
    return "–" if value is None else f"{value:{sign}.{digits}f}".replace("-", "−")


def interval(one: Report | None, sign: str = "") -> str:
    """Return an estimate with its interval, without one where it has none."""
    if one is None or one["value"] is None:
        return "–"
    if one["low"] is None:
        return number(one["value"], sign=sign)
    low, high = (number(one[end], sign=sign) for end in ("low", "high"))
    return f"{number(one['value'], sign=sign)} ({low} to {high})"


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def models(report: Report) -> list[Report]:
    return list(report["models"].values())


def heads(report: Report) -> list[str]:
    return list(report["models"])


# --- whole answers ---


def one_pass(report: Report) -> str:
    whole = report["together"]["one_pass"]
    rows = []
    for name in whole["order"]:
        cells = [interval(one["answers"]["one_pass"]["scores"][name]["auroc"]) for one in models(report)]
        against = whole["against_msp"].get(name, "")
        rows.append([f"`{name}`", *cells, number(whole["auroc"][name]["mean"]), against])
    return table(["score", *heads(report), "mean", "against `msp`"], rows)


def measures(report: Report) -> str:
    columns = ("auprc", "prr", "aurc")
    plain = ("ece", "length_correlation", "auroc_within_length")
    rows = []
    for name in report["together"]["one_pass"]["order"]:
        found = [one["answers"]["one_pass"]["scores"][name] for one in models(report)]
        cells = [number(mean(one[column]["value"] for one in found)) for column in columns]
        cells += [number(mean(one[column] for one in found)) for column in plain]
        rows.append([f"`{name}`", *cells])
    return table(
        ["score", "AUPRC", "PRR", "AURC", "ECE", "correlation with length", "AUROC within length"], rows
    )


def combiner(report: Report) -> str:
    rows = []
    for name, one in report["models"].items():
        found = one["answers"]["combiner"]
        on_test = [interval(found["advantage_on_test"][scope], "+") for scope in ("seen", "middle")]
        inner = interval(found["advantage_in_training"], "+")
        rows.append([name, f"`{found['best_single']}`", inner, "yes" if found["used"] else "no", *on_test])
    return table(
        ["model", "best single score", "advantage, fitting half", "used", "advantage, test half",
         "the same, facts shown 4 to 64 times"],
        rows,
    )  # fmt: skip


def samples(report: Report) -> str:
    whole = report["together"]["samples"]
    found_by_samples = {name for name in whole["order"] if name.rpartition("_")[2] in ("5", "10")}
    rows = []
    for name in whole["order"]:
        if name not in SINGLE_ANSWER and name not in found_by_samples:
            continue
        cells = [interval(one["answers"]["samples"]["scores"][name]["auroc"]) for one in models(report)]
        cost = name.rpartition("_")[2]
        generations = f"1 + {cost}" if cost in ("5", "10") else "2" if name == "p_true" else "1"
        against = whole["against_msp"].get(name, "")
        rows.append([f"`{name}`", generations, *cells, number(whole["auroc"][name]["mean"]), against])
    return table(["score", "generations", *heads(report), "mean", "against `msp`"], rows)


def scopes(report: Report) -> str:
    names = ("msp", "max_surprisal", "mean_entropy", "p_true", "combiner")
    rows = []
    for title, scope in (
        ("facts shown 4 to 64 times", "middle"),
        ("everyone, never named ones too", "everyone"),
    ):
        for name in names:
            cells = [interval(one["answers"]["scopes"][scope]["auroc"][name]) for one in models(report)]
            rows.append([title, f"`{name}`", *cells])
    return table(["answers", "score", *heads(report)], rows)


# --- single tokens ---


def tokens(report: Report) -> str:
    found = [one["onset"]["tokens"]["auroc"] for one in models(report)]
    rows = []
    for name in found[0]:
        levels = ("value_start", "value_largest", "value_sum", "all_tokens")
        rows.append(
            [
                f"`{name}`",
                *(" / ".join(number(one[name][level]["value"]) for one in found) for level in levels),
            ]
        )
    return table(
        ["signal", "first token of a value", "largest of the value's tokens", "their sum", "all tokens"], rows
    )


def alarms(report: Report) -> str:
    found = [{(row["score"], row["alpha"]): row for row in one["onset"]["alarms"]} for one in models(report)]
    rows = []
    for key in found[0]:
        if key[0] not in SHOWN_ALARMS:
            continue
        of = [one[key] for one in found if key in one]
        shares = ("false_alarms", "wrong_alarmed", "wrong_alarmed_within", "wrong_alarmed_before")
        rows.append(
            [
                f"`{key[0]}`",
                number(key[1], 2),
                *(" / ".join(percent(row[share]["value"]) for row in of) for share in shares),
                " / ".join(number(row["delay_median"], 0) for row in of),
                " / ".join(number(row["delay_p90"], 0) for row in of),
            ]
        )
    return table(
        ["score", "α", "false alarms", "wrong texts with an alarm", "within the value", "before it",
         "median delay", "90 % within"],
        rows,
    )  # fmt: skip


# --- promises ---


def promises(report: Report) -> str:
    by = [
        {(r["pool"], r["score"], r["goal"], r["units"], r["alpha"]): r for r in one["promises"]}
        for one in models(report)
    ]
    rows = []
    for key in by[0]:
        pool, score, goal, units, alpha = key
        if units != SHOWN_UNITS:
            continue
        of = [one[key] for one in by]
        if goal == "selective-risk":
            kept = " / ".join(f"{row['violations']} ({row['most_violations']})" for row in of)
        else:
            kept = "–"
        rows.append([
            pool, f"`{score}`", f"`{goal}`", number(alpha, 2),
            " / ".join(str(row["refused"]) for row in of),
            " / ".join(percent(row["mean_rate"], 2) for row in of), kept,
            " / ".join(percent(row["pass_rate"]) for row in of),
            "yes" if all(row["kept"] for row in of) else "**no**",
        ])  # fmt: skip
    return table(
        ["answers", "score", "goal", "α", "refused", "mean rate", "above α (band)", "pass", "kept"],
        rows,
    )


def shift_rates(report: Report) -> str:
    rows = []
    for name, title in SHIFT_NAMES.items():
        found = [one["shifts"][name] for one in models(report)]
        errors = " / ".join(percent(one["later_error_rate"]) for one in found)
        cells = []
        for goal in GOAL_NAMES:
            of = [next(row for row in one["rates"] if row["goal"] == goal) for one in found]
            numbers = [percent(row["mean_rate"]) for row in of]
            cells.append(
                " / ".join(one if row["kept"] else f"**{one}**" for one, row in zip(numbers, of, strict=True))
            )
        rows.append([title, errors, *cells])
    return table(["shift", "error rate then", *GOAL_NAMES.values()], rows)


def watch(report: Report) -> str:
    rows = []
    for goal in ("selective-risk", "false-flags"):
        for name, title in SHIFT_NAMES.items():
            of = [one["shifts"][name]["watch"][goal] for one in models(report)]
            rows.append([
                f"`{goal}`", title, " / ".join(str(row["watched"]) for row in of),
                *(
                    " / ".join(
                        percent(row[what]["share"], 0)
                        + ("" if row[what]["median"] is None else f" at {row[what]['median']}")
                        for row in of
                    )
                    for what in ("warned", "void")
                ),
            ])  # fmt: skip
    return table(["goal", "shift", "gates", "warned of a shift, at answer", "void, at label"], rows)


# --- few candidates ---


def power(report: Report) -> str:
    rows = []
    by = [{(r["score"], r["k"]): r for r in one["truncation"]["power"]} for one in models(report)]
    for key in by[0]:
        of = [one[key] for one in by]
        lost = [interval(row.get("auroc_difference"), "+") for row in of] if key[1] else ["–"] * len(of)
        gates = [
            " / ".join(percent(row["gates"][goal]["pass_rate"]) for row in of)
            for goal in ("selective-risk", "misses")
        ]
        aurocs = " / ".join(number(row["auroc"]) for row in of)
        rows.append([f"`{key[0]}`", "all" if key[1] is None else str(key[1]), aurocs, *lost, *gates])
    return table(
        ["score", "K", "AUROC", *(f"difference, {name}" for name in heads(report)),
         "pass, `selective-risk`", "pass, `misses`"],
        rows,
    )  # fmt: skip


def undecided(report: Report) -> str:
    found = [one["truncation"]["undecided"] for one in models(report)]
    rows = []
    for of in zip(*found, strict=True):
        cells = [" / ".join(percent(row["fail_with_all"]) for row in of)]
        cells += [
            " / ".join(percent(row[known]["undecided"]) for row in of)
            for known in ("vocabulary_known", "vocabulary_unknown")
        ]
        cells.append(" / ".join(percent(row["vocabulary_unknown"]["pass"]) for row in of))
        rows.append([number(of[0]["threshold"], 2), str(of[0]["k"]), *cells])
    return table(
        ["threshold", "K", "fail with all candidates", "undecided, V known", "undecided, V unknown",
         "pass, V unknown"],
        rows,
    )  # fmt: skip


# --- peers, and the rest ---


def formulas(peers: Report) -> str:
    rows = []
    for name, peer in peers["peers"].items():
        for row in peer["rows"]:
            verdict = row["why"] or ("agrees" if row["agrees"] else "**does not agree**")
            what = f"{name} {peer['version']}"
            rows.append([what, row["formula"], str(row["n"]), f"{row['largest_difference']:.1e}", verdict])
    return table(["peer", "its formula and ours", "n", "largest difference", ""], rows)


def ran_on(report: Report) -> str:
    on = report["ran_on"]
    packages = ", ".join(f"{name} {version}" for name, version in on["packages"].items())
    return (
        f"Commit {on['commit'][:12]}, {on['date'][:10]}, {on['processor']}, one thread, "
        f"Python {on['python']}, {packages}."
    )


def figures(report: Report, peers: Report) -> dict[str, str]:
    """Return the numbers in the words."""
    found = models(report)
    whole = report["together"]["one_pass"]
    sampled = report["together"]["samples"]

    def each(of: Callable[[Report], Any]) -> str:
        return " / ".join(str(of(one)) for one in found)

    singles = [name for name in whole["order"] if name != "combiner"]
    checked = [row for peer in peers["peers"].values() for row in peer["rows"] if not row["why"]]
    return {
        "MSP_AUROC": number(whole["auroc"]["msp"]["mean"]),
        "OPEN_SINGLES": _listed(f"`{n}`" for n in singles if whole["against_msp"].get(n) == "open"),
        "KEPT_ROWS": each(lambda one: f"{sum(row['kept'] for row in one['promises'])}"),
        "ALL_ROWS": str(len(found[0]["promises"])),
        "EMPTY": str(
            sum(one["answers"]["samples"]["scores"]["semantic_entropy_10"]["not_measured"] for one in found)
        ),
        "PTRUE_AUROC": number(whole["auroc"]["p_true"]["mean"]),
        "SE10_AUROC": number(sampled["auroc"]["semantic_entropy_unnormalized_10"]["mean"]),
        "MSP_SAMPLED_AUROC": number(sampled["auroc"]["msp"]["mean"]),
        "PAIRS": str(whole["pairs"]),
        "PAIRS_KEPT": str(whole["pairs_in_one_order"]),
        "RANKS": ", ".join(number(value, 2) for value in whole["rank_correlations"]),
        "ANSWERS": each(lambda one: f"{one['answers']['one_pass']['answers']:,}"),
        "PEOPLE": each(lambda one: one["answers"]["one_pass"]["people"]),
        "WRONG": each(lambda one: percent(one["answers"]["error_rate"]["seen"])),
        "NEVER_WRONG": each(lambda one: percent(one["answers"]["error_rate"]["never_seen"])),
        "SAMPLED": each(lambda one: f"{one['answers']['samples']['answers']:,}"),
        "SAMPLED_PEOPLE": each(lambda one: one["answers"]["samples"]["people"]),
        "USED": str(sum(one["answers"]["combiner"]["used"] for one in found)),
        "RUNS": each(lambda one: f"{one['onset']['runs']:,}"),
        "RUNS_LEFT_OUT": each(lambda one: one["onset"]["not_judged"]),
        "RUNS_WRONG": each(lambda one: f"{one['onset']['wrong_runs']:,}"),
        "RUNS_SEVERAL": each(lambda one: one["onset"]["runs_with_several_values"]),
        "VALUES": each(lambda one: f"{one['onset']['tokens']['values']:,}"),
        "POOL": each(lambda one: f"{one['answers']['scopes']['never_seen']['answers']:,}"),
        "DRAWS": f"{report['draws']:,}",
        "WATCHED": str(report["watched"]),
        "REPLICATES": f"{report['replicates']:,}",
        "MAX_REJECTION": percent(report["max_rejection"], 0),
        "VOCABULARY": f"{found[0]['truncation']['vocabulary']:,}",
        "CHECKED": str(len(checked)),
        "AGREE": str(sum(row["agrees"] for row in checked)),
    }


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
