"""Two logs of Inspect, compared; the files in inspect_logs/ were made by Inspect itself."""

import json
import struct
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cert.cli.main import app
from cert.coordination.chat import Usage
from cert.core.errors import InputError
from cert.integrations.inspect_logs import compare_logs, read_log
from cert.integrations.inspect_logs.values import NOT_A_NUMBER, NOT_SCORED, to_number

MADE = Path(__file__).parent / "inspect_logs"
USED = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def sample(number, value="C", *, epoch=1, **more):
    """One sample with a score of ``match``."""
    return {
        "id": number,
        "epoch": epoch,
        "input": f"question {number}",
        "target": "42",
        "scores": {"match": {"value": value}},
        "model_usage": {"mockllm/model": USED},
        **more,
    }


def header(samples=(), *, status="success", version=2, invalidated=False, config=None, **spec):
    """The header of a log with these samples."""
    return {
        "version": version,
        "status": status,
        "invalidated": invalidated,
        "eval": {
            "task": "sums",
            "model": "mockllm/model",
            "created": "2026-11-01T10:00:00+00:00",
            "dataset": {"name": "sums", "sample_ids": list(dict.fromkeys(one["id"] for one in samples))},
            "config": {"epochs": 1, **(config or {})},
            "scorers": [{"name": "match", "options": {}}],
            **spec,
        },
    }


def archive(path, samples=(), *, members=None, **head) -> Path:
    """Write an .eval log; ``members`` are added to it, or take the place of its own."""
    parts = {
        "header.json": json.dumps(header(samples, **head)),
        "summaries.json": json.dumps(list(samples)),
        **(members or {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in parts.items():
            if text is not None:
                made.writestr(name, text)
    return path


@pytest.fixture
def log(tmp_path):
    """Write and read a made log."""
    counter = iter(range(1000))
    return lambda samples, **head: read_log(archive(tmp_path / f"{next(counter)}.eval", samples, **head))


def samples_of(*values):
    """Samples 0, 1, … with these scores."""
    return [sample(number, value) for number, value in enumerate(values)]


class TestLogsOfInspectItself:
    def test_scores_and_tokens_are_those_of_the_log(self):
        """Numbers that Inspect computed itself (mean of epochs: 0.5 and 0.917) come out of its file."""
        found = compare_logs(
            read_log(MADE / "baseline.eval"), read_log(MADE / "candidate.eval"), scorer="match"
        )
        assert found.samples == 6
        assert found.baseline.quality == 0.5
        assert found.candidate.quality == pytest.approx(11 / 12)
        assert found.baseline.spending.usage == Usage(input_tokens=360, output_tokens=240)
        assert found.candidate.spending.usage == Usage(input_tokens=330, output_tokens=660)
        assert found.token_ratio == pytest.approx(990 / 600)
        assert found.decision.difference.value == pytest.approx(5 / 12)
        assert found.decision.noise_floor.value is not None

    def test_both_formats_say_the_same(self):
        """The verdict must not hang on the format in which somebody keeps logs."""
        first, second = (read_log(MADE / f"candidate.{format}") for format in ("eval", "json"))
        assert first.expected == second.expected
        assert first.records == second.records

    def test_what_has_no_score_is_counted_with_its_reason(self):
        """A sample that failed, one that was not scored and one scored NaN are missing, not wrong."""
        first, second = (read_log(MADE / f"{name}.eval") for name in ("baseline", "candidate"))
        found = compare_logs(first, second, scorer="unsure")
        assert found.baseline.missing == {"not scored": 4}
        assert found.candidate.missing == {"not scored": 4, "error": 1}
        assert found.decision.difference.missing_judgements == 9
        assert (found.decision.difference.tasks, found.decision.difference.dropped) == (4, 2)

    def test_letters_count_as_in_inspect(self):
        """P is half a point; the mean that Inspect computed of C, I, P and N is the one shown."""
        baseline = read_log(MADE / "baseline.eval")
        grades = [record.scores["grade"] for record in baseline.records.values()]
        found = compare_logs(baseline, read_log(MADE / "candidate.eval"), scorer="grade")
        assert set(grades) >= {"C", "P"}
        points = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
        assert found.baseline.quality == sum(points[grade] for grade in grades) / len(grades)

    def test_a_value_of_several_is_named(self):
        """A score that is an object is compared by one of its values, never by 0."""
        first, second = (read_log(MADE / f"{name}.eval") for name in ("baseline", "candidate"))
        assert compare_logs(first, second, scorer="parts", key="size").baseline.quality == 0.75
        with pytest.raises(InputError, match=r"name one of .*'sign', 'size'"):
            compare_logs(first, second, scorer="parts")
        with pytest.raises(InputError, match="have no 'shape'"):
            compare_logs(first, second, scorer="parts", key="shape")

    def test_runs_that_were_stopped_are_said_to_be(self):
        """What a cancelled run did not get to is missing: it must not look like a smaller dataset."""
        found = compare_logs(
            read_log(MADE / "failed.eval"), read_log(MADE / "cancelled.eval"), scorer="match"
        )
        assert (found.baseline.status, found.candidate.status) == ("error", "cancelled")
        assert found.samples == 4
        assert found.candidate.missing == {"error": 1, "not run": 1}
        assert found.candidate.only_here == found.baseline.only_here == 0
        assert any("ended as 'cancelled'" in told for told in found.limits)

    def test_a_run_that_goes_on_is_refused(self):
        """Half a run is no run: the samples that end first are not like the others."""
        with pytest.raises(InputError, match=r"running.eval' has not ended"):
            read_log(MADE / "running.eval")

    def test_scores_on_another_scale_are_refused(self):
        """Points of 100 cut to [0, 1] would all be right."""
        first, second = (read_log(MADE / f"{name}.eval") for name in ("baseline", "candidate"))
        with pytest.raises(InputError, match=r"'points' are not on 0 to 1: sample '\w+.*' has 100"):
            compare_logs(first, second, scorer="points")

    def test_a_scorer_has_to_be_named_where_there_are_several(self):
        """The first of several scorers is not what a reader thinks of."""
        baseline = read_log(MADE / "baseline.eval")
        with pytest.raises(InputError, match="match, grade, parts, points, unsure"):
            compare_logs(baseline, baseline)
        with pytest.raises(InputError, match="not both logs have scores of 'bleu'"):
            compare_logs(baseline, baseline, scorer="bleu")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *(("C", 1.0), ("P", 0.5), ("I", 0.0), ("N", 0.0), ("YES", 1.0), ("false", 0.0), (True, 1.0)),
        *((0.25, 0.25), (1, 1.0), ("0.5", 0.5), ("1e-1", 0.1)),
        *((None, NOT_SCORED), (float("nan"), NOT_SCORED)),
        *(("c", NOT_A_NUMBER), ("nan", NOT_A_NUMBER), ("Infinity", NOT_A_NUMBER), ([1], NOT_A_NUMBER)),
        (10**400, NOT_A_NUMBER),
    ],
)
def test_values_become_numbers_by_the_rules_of_inspect(value, number):
    """A rule of our own would contradict the number that Inspect shows; what has no number gets none."""
    assert to_number(value) == number


class TestPairing:
    def test_a_clear_gain_is_found(self, log):
        """The verdict is that of the statistics, candidate less baseline and not the other way round."""
        baseline = log(samples_of(*"CI" * 30, *"I" * 20))
        candidate = log(samples_of(*"C" * 60, *"C" * 20))
        found = compare_logs(baseline, candidate)
        assert found.decision.verdict == "worth_it"
        assert found.decision.difference.value == pytest.approx(50 / 80)
        assert compare_logs(candidate, baseline).decision.verdict == "not_worth_it"

    def test_samples_are_paired_by_id_and_epoch(self, log):
        """The order of a log is that in which samples ended, and means nothing."""
        scores = {(1, 1): 1.0, (1, 2): 0.0, (2, 1): 0.25, (2, 2): 0.75}
        records = [sample(number, value, epoch=epoch) for (number, epoch), value in scores.items()]
        turned = [
            one | {"id": str(one["id"])} for one in reversed(records)
        ]  # Inspect knows ids by their text
        difference = compare_logs(log(records), log(turned)).decision.difference
        assert (difference.value, difference.discordant, difference.missing_judgements) == (0.0, 0, 0)

    def test_samples_of_one_log_alone_are_counted(self, log):
        """A candidate that ran on the easy half must not look better for it."""
        found = compare_logs(log(samples_of(*"CCIIC")), log(samples_of(*"CCI")))
        assert found.samples == 3
        assert (found.baseline.only_here, found.candidate.only_here) == (2, 0)
        assert any("2 samples of the baseline" in told for told in found.limits)

    @pytest.mark.parametrize(
        ("difference", "said"),
        [
            ({"task": "products"}, "different tasks: 'sums' and 'products'"),
            ({"task_version": 2}, "different versions of the task"),
            ({"dataset": {"name": "others"}}, "different datasets: 'sums' and 'others'"),
            ({"scorers": [{"name": "match", "options": {"location": "any"}}]}, "set in different ways"),
        ],
    )
    def test_logs_of_different_things_are_refused(self, log, difference, said):
        """A difference of tasks, data or rulers is no difference of systems."""
        with pytest.raises(InputError, match=said):
            compare_logs(log(samples_of(*"CI")), log(samples_of(*"CI"), **difference))

    def test_ids_that_name_other_questions_are_refused(self, log):
        """Datasets of one name whose ids are just numbers would be paired at random."""
        other = [one | {"input": f"problem {one['id']}"} for one in samples_of(*"CI")]
        with pytest.raises(InputError, match="of 2 samples 2 have another input"):
            compare_logs(log(samples_of(*"CI")), log(other))

    def test_shuffled_choices_are_the_same_question(self, log):
        """Inspect may shuffle the choices of each run, and the letter of the right one with them."""
        first = [one | {"choices": ["x", "y"], "target": "A"} for one in samples_of(*"CI")]
        second = [one | {"choices": ["y", "x"], "target": "B"} for one in samples_of(*"CI")]
        assert compare_logs(log(first), log(second)).samples == 2

    def test_messages_are_compared_by_what_they_say(self, log):
        """Inspect gives messages new ids in each run."""
        first, second = (
            [one | {"input": [{"id": name, "content": "hi"}]} for one in samples_of(*"CI")] for name in "ab"
        )
        assert compare_logs(log(first), log(second)).samples == 2

    def test_a_model_that_grades_itself_is_refused(self, log):
        """Without a grader Inspect lets the evaluated model grade: two models, two rulers."""
        graded = [one | {"scores": {"model_graded_qa": {"value": "C"}}} for one in samples_of(*"CI")]
        logs = [log(graded, model=f"openai/{name}", scorers=[{"name": "model_graded_qa"}]) for name in "ab"]
        with pytest.raises(InputError, match="asks another model in each log: openai/a and openai/b"):
            compare_logs(*logs)

    def test_scores_of_failed_samples_count_where_they_were_meant_to(self, log):
        """With score_on_error Inspect's own accuracy counts them."""
        failed = [*samples_of("C"), sample(1, "I", error="boom")]
        assert compare_logs(log(failed), log(failed)).baseline.missing == {"error": 1}
        counted = log(failed, config={"score_on_error": True})
        assert compare_logs(counted, counted).baseline.missing == {}

    def test_invalidated_samples_are_missing(self, log):
        """Whoever invalidated a sample meant that its score is not to be used; summaries do not tell."""
        samples = samples_of(*"CI")
        members = {
            f"samples/{one['id']}_epoch_1.json": json.dumps(one | ({"invalidation": {}} if one["id"] else {}))
            for one in samples
        }
        found = log(samples, members=members, invalidated=True)
        assert compare_logs(found, found).baseline.missing == {"invalidated": 1}


class TestSpending:
    def test_without_tokens_the_verdict_is_not_called_budget_matched(self, log):
        """A log without tokens says nothing of the price of a gain."""
        silent = log([sample(0, "C"), sample(1, "I", model_usage={})])
        found = compare_logs(log(samples_of(*"CI")), silent)
        assert found.token_ratio is None
        assert found.budgets.startswith(
            "Not budget-matched: what the runs spent is not known (candidate: 1 of 2"
        )

    def test_money_is_of_published_prices_or_not_measured(self, log):
        """An invented price is worse than none."""
        usage = {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "input_tokens_cache_read": 0}
        priced = log([one | {"model_usage": {"openai/gpt-4o-mini": usage}} for one in samples_of("C")])
        found = compare_logs(priced, log(samples_of("C")))
        assert found.baseline.spending.cost == Decimal("0.75")
        assert found.candidate.spending.cost is None
        assert found.candidate.spending.cost_missing == "no price of 'mockllm/model' is known"
        assert found.cost_ratio is None


class TestFilesThatAreNoHonestLogs:
    """Each is refused with its name, in bounded time and memory."""

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "cannot be read"),
            (b"{}", "cannot be read: Object missing required field"),
            (b"PK\x03\x04 and no more", "damaged or cut short"),
            (b'{"version": 2, "status": "suc', "truncated"),
            (b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "recursion"),
            (b'{"x": NaN, "y": "' + b'\\"' * 200_000, "cannot be read"),
            (b'\xff\xfe{"version": 2}', "cannot be read"),
        ],
    )
    def test_what_is_no_log(self, tmp_path, content, said):
        """Whatever was given by mistake, or to do harm, ends in one sentence."""
        file = tmp_path / "given"
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"given' .*{said}"):
            read_log(file)

    def test_a_cut_archive(self, tmp_path):
        """A download that broke off must not be read as far as it goes."""
        file = tmp_path / "cut.eval"
        file.write_bytes((MADE / "baseline.eval").read_bytes()[:-200])
        with pytest.raises(InputError, match=r"cut.eval' cannot be read"):
            read_log(file)

    @pytest.mark.parametrize("name", ["baseline.eval", "deflated.eval"])
    def test_a_changed_byte(self, tmp_path, name):
        """Damage that still decompresses is found by the checksum."""
        file = tmp_path / name
        content = bytearray(
            archive(file, samples_of(*"CI")).read_bytes()
            if name == "deflated.eval"
            else (MADE / name).read_bytes()
        )
        with zipfile.ZipFile(file if name == "deflated.eval" else MADE / name) as made:
            info = made.getinfo("summaries.json")
        content[info.header_offset + 30 + len("summaries.json") + info.compress_size // 2] ^= 0x55
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}' cannot be read: 'summaries.json'"):
            read_log(file)

    def test_a_bomb(self, tmp_path):
        """Ten kilobytes that become many megabytes are not unpacked to the end."""
        file = archive(tmp_path / "bomb.eval", members={"summaries.json": "[" + " " * (40 * 1024**2)})
        with pytest.raises(InputError, match="much larger than its compressed size tells"):
            read_log(file)

    def test_a_member_that_lies_about_its_size(self, tmp_path):
        """The size in the directory is a claim, and no more is read than it claims."""
        file = archive(tmp_path / "lie.eval", samples_of(*"CI" * 50))
        content = file.read_bytes()
        with zipfile.ZipFile(file) as made:
            size = struct.pack("<I", made.getinfo("summaries.json").file_size)
        assert content.count(size) == 2
        file.write_bytes(content.replace(size, struct.pack("<I", 100)))
        with pytest.raises(InputError, match=r"lie.eval' cannot be read: 'summaries.json'"):
            read_log(file)

    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\..\\..\\b", "C:/x"])
    def test_names_that_lead_out(self, tmp_path, name):
        """Nothing is unpacked here, but whoever unpacks such an archive elsewhere is warned."""
        with pytest.raises(InputError, match="leads out of the archive"):
            read_log(archive(tmp_path / "x.eval", samples_of("C"), members={name: "x"}))

    @pytest.mark.parametrize(
        ("head", "said"),
        [
            ({"version": 1}, "version 1; version 2 is read"),
            ({"version": 3}, "version 3"),
            ({"status": "started"}, "has not ended"),
            ({"status": "perfect"}, "'perfect', which is none"),
            ({"config": {"epochs": 10**9}}, "1,000,000,000 times"),
        ],
    )
    def test_headers_that_cannot_be_used(self, log, head, said):
        """A newer format may mean something else by the same names."""
        with pytest.raises(InputError, match=said):
            log(samples_of("C"), **head)

    @pytest.mark.parametrize(
        ("samples", "said"),
        [
            ([], "it has no samples"),
            ([sample(1), sample("1", "I")], "sample '1', epoch 1, is there twice"),
            ([sample(1, epoch=0)], "epochs count from 1"),
            ([sample(1, "x" * 70_000)], "a score is larger than 64 KiB"),
            ([sample(1, model_usage={"m": {"input_tokens": -1}})], "tokens is negative"),
            ([sample(1, epoch="first")], "Expected `int`, got `str`"),
        ],
    )
    def test_samples_that_cannot_be_used(self, log, samples, said):
        """Which of two scores is meant, or what minus one token is, nobody can say."""
        with pytest.raises(InputError, match=f"eval' .*{said}"):
            log(samples)

    def test_infinite_scores_are_no_numbers(self, log):
        """Inspect writes NaN and Infinity, which are no JSON, and texts may hold the same words."""
        odd = samples_of(float("inf"), float("nan"), 1.0)
        odd[2]["input"] = 'NaN "Infinity" \\'
        found = log(odd)
        assert found.records["2", 1].asked != found.records["1", 1].asked
        assert compare_logs(found, found).baseline.missing == {NOT_A_NUMBER: 1, NOT_SCORED: 1}

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        """A name in place of a file must not hang a pipeline."""
        with pytest.raises(InputError, match="no regular file"):
            read_log("/dev/null")
        with pytest.raises(InputError, match="No such file"):
            read_log(tmp_path / "none.eval")


class TestCommand:
    def test_people_read_verdict_budgets_and_limits(self):
        """Whoever compares two logs sees at once that one arm spent more."""
        arguments = ["coordinate", "inspect", str(MADE / "baseline.eval"), str(MADE / "candidate.json")]
        done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*arguments, "--scorer", "match"])
        assert done.exit_code == 0, done.output
        assert done.output.startswith("? NOT ENOUGH DATA  sums, by match")
        assert "Not budget-matched: a run of the candidate used 1.65 times the tokens" in done.output
        assert "When not to believe it" in done.output

    def test_programs_read_the_same_as_json(self):
        """A pipeline decides on the verdict and the ratio of tokens."""
        arguments = ["coordinate", "inspect", str(MADE / "baseline.eval"), str(MADE / "candidate.eval")]
        done = CliRunner().invoke(app, [*arguments, "--scorer", "match", "--margin", "0.1", "--json"])
        data = json.loads(done.stdout)
        assert data["kind"] == "inspect_log_comparison"
        assert (data["verdict"], data["rules"]["margin"]) == ("not_enough_data", 0.1)
        assert data["token_ratio"] == pytest.approx(1.65)

    def test_a_log_cannot_steer_the_terminal(self, tmp_path):
        """Names in a log are somebody else's text."""
        evil = [archive(tmp_path / f"{n}.eval", samples_of(*"CI"), model="m\x1b[2J[red]") for n in "ab"]
        done = CliRunner().invoke(app, ["coordinate", "inspect", *map(str, evil)])
        assert done.exit_code == 0, done.output
        assert "\x1b[2J" not in done.output
        assert "[red]" in done.output


def test_a_header_alone_is_no_log(tmp_path):
    """A file that was made by --header-only has nothing to compare."""
    file = tmp_path / "header.json"
    file.write_text(json.dumps(header(samples_of("C"))), encoding="utf-8")
    with pytest.raises(InputError, match="it has no samples"):
        read_log(file)
