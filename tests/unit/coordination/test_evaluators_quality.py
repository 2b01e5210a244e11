"""The judge: what counts as a judgement, what is missing, and what the judgements make together."""

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cert.coordination.chat import Completion, Usage
from cert.coordination.evaluators import Criterion, QualityEvaluator, Rubric
from cert.coordination.evaluators.forms import PointsForm
from cert.coordination.scripted import ScriptedChat
from cert.coordination.types import Task
from cert.core.errors import (
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    InputError,
    RetriesExhaustedError,
    UpstreamTimeoutError,
)

TASK = Task("Name the capital of France.")


def points(correctness=10, completeness=10, clarity=10, rationale="fine"):
    """Return the arguments of a judgement."""
    scores = {"correctness": correctness, "completeness": completeness, "clarity": clarity}
    return {"rationale": rationale, "scores": scores}


def reply(finish="tool_use", text="", structured=None):
    """Return a completion that ends in some way."""
    return Completion(
        text=text,
        model="scripted",
        usage=Usage(100, 20),
        cost_micro_dollars=200,
        latency_seconds=0.0,
        finish=finish,
        structured=structured,
    )


def evaluate(*replies, answer="Paris", task=TASK, otherwise=None, **options):
    """Return an evaluation by a judge that gives these replies."""
    client = ScriptedChat(*replies, otherwise=otherwise)
    return asyncio.run(QualityEvaluator(client, **options).evaluate(task, answer))


def test_points_become_the_weighted_mean():
    """A weight that is ignored, or a scale that is off by one, moves every number of a report."""
    evaluation = evaluate(points(10, 5, 2))
    assert evaluation.score == pytest.approx((3 * 1.0 + 2 * 0.5 + 1 * 0.2) / 6)
    assert evaluation.criteria == {"correctness": 1.0, "completeness": 0.5, "clarity": 0.2}
    assert (evaluation.missing, evaluation.reasons, evaluation.rationale) == (None, (None,), "fine")


@pytest.mark.parametrize(("given_points", "score"), [(0, 0.0), (10, 1.0)])
def test_both_ends_of_the_scale_are_reached(given_points, score):
    """A judge must be able to say that nothing or everything is right."""
    assert evaluate(points(given_points, given_points, given_points)).score == score


UNREADABLE = {
    "prose": (reply(text="I would give this a 10."), "no_tool_call"),
    "nothing": (reply(text="  "), "empty"),
    "refusal": (reply("refusal", "I can't judge this."), "refusal"),
    "refusal with a verdict": (reply("refusal", structured=points()), "refusal"),
    "filtered": (reply("content_filter"), "content_filter"),
    "cut off": (reply("length", structured=points()), "cut_off"),
    "no scores": (reply(structured={"rationale": ""}), "wrong_keys"),
    "no rationale": (reply(structured={"scores": points()["scores"]}), "wrong_keys"),
    "rationale of another type": (reply(structured=points(rationale=7)), "wrong_keys"),
    "scores not an object": (reply(structured={"rationale": "", "scores": [10, 10, 10]}), "wrong_keys"),
    "one criterion short": (reply(structured={"rationale": "", "scores": {"clarity": 10}}), "wrong_keys"),
    "another key beside": (reply(structured=points() | {"verdict": "perfect"}), "wrong_keys"),
    "a criterion of its own": (
        reply(structured={"rationale": "", "scores": points()["scores"] | {"charm": 10}}),
        "wrong_keys",
    ),
    "eleven": (reply(structured=points(11)), "out_of_range"),
    "minus one": (reply(structured=points(-1)), "out_of_range"),
    "an astronomical number": (reply(structured=points(10**400)), "out_of_range"),
    "NaN": (reply(structured=points(float("nan"))), "not_an_integer"),
    "infinity": (reply(structured=points(float("inf"))), "not_an_integer"),
    "true": (reply(structured=points(True)), "not_an_integer"),
    "null": (reply(structured=points(None)), "not_an_integer"),
    "a string": (reply(structured=points("10")), "not_an_integer"),
    "a fraction as a string": (reply(structured=points("10/10")), "not_an_integer"),
    "a float": (reply(structured=points(7.0)), "not_an_integer"),
}


@pytest.mark.parametrize(("completion", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_judgement_is_missing(completion, reason):
    """A failed judge that becomes a number makes a report of its defaults."""
    evaluation = evaluate(completion)
    assert (evaluation.score, evaluation.missing) == (None, reason)
    assert (evaluation.scores, evaluation.reasons) == ((None,), (reason,))
    assert evaluation.usage == Usage(100, 20)  # it is paid for all the same
    assert evaluation.cost_micro_dollars == 200


NOT_STRICT = {
    "prose before": (f"Here it is: {json.dumps(points())}", "not_json"),
    "prose after": (f"{json.dumps(points())}\nI hope this helps!", "not_json"),
    "two objects": (json.dumps(points()) * 2, "not_json"),
    "a list": (json.dumps([points()]), "not_json"),
    "a number": ("10", "not_json"),
    "two blocks": (f"```json\n{json.dumps(points())}\n```\n```json\n{{}}\n```", "not_json"),
    "prose around a block": (f"Sure.\n```json\n{json.dumps(points())}\n```", "not_json"),
    "an open block": (f"```json\n{json.dumps(points())}", "not_json"),
    "single quotes": (str(points()), "not_json"),
    "cut": (json.dumps(points())[:-1], "not_json"),
    "NaN": (json.dumps(points(float("nan"))), "not_a_number"),
    "Infinity": (json.dumps(points(float("inf"))), "not_a_number"),
    "the same key twice": ('{"rationale": "", "rationale": "", "scores": {}}', "duplicate_keys"),
    "the same criterion twice": (
        '{"rationale": "", "scores": {"correctness": 0, "completeness": 0, "clarity": 0, "correctness": 10}}',
        "duplicate_keys",
    ),
    "huge": (json.dumps(points(rationale="x" * 30_000)), "too_long"),
    "deep": ("[" * 19_000, "not_json"),
    "many digits": (f'{{"rationale": "", "scores": {"9" * 5_000}}}', "not_json"),
    "eleven": (json.dumps(points(11)), "out_of_range"),
    "nothing": ("", "empty"),
}


@pytest.mark.parametrize(("text", "reason"), NOT_STRICT.values(), ids=NOT_STRICT)
def test_a_text_is_one_json_object_or_no_judgement(text, reason):
    """The last number of a text is anybody's: of the question, of the attacker, of a scale."""
    evaluation = evaluate(text, typed=False)
    assert (evaluation.score, evaluation.missing) == (None, reason)


@pytest.mark.parametrize("around", ["{}", "\n{} \n", "```json\n{}\n```", "```\n{}\n```\n"])
def test_one_json_object_is_a_judgement(around):
    """Small models on a server of one's own have no tools, and put their JSON in a block of code."""
    said = json.dumps(points(5, 5, 5, rationale="`print()` is ``` fine"))
    assert evaluate(around.replace("{}", said), typed=False).score == 0.5


def test_without_tools_the_schema_is_in_the_prompt():
    """A model that is not told the form cannot keep to it."""
    client = ScriptedChat(json.dumps(points()))
    asyncio.run(QualityEvaluator(client, typed=False).evaluate(TASK, "Paris"))
    request = client.requests[0]
    assert request.tool is None
    assert '"additionalProperties": false' in request.messages[0].content


def test_a_client_without_tools_is_asked_for_json():
    """A judge in this process, which knows no tools, would else never give a judgement."""

    def without_tools(request):
        refused = ConfigurationError("no typed output", context={"missing": "tool"})
        return refused if request.tool else json.dumps(points())

    assert evaluate(otherwise=without_tools).score == 1.0
    with pytest.raises(ConfigurationError):
        evaluate(otherwise=without_tools, typed=True)


KEYS = st.sampled_from(["rationale", "scores", "correctness", "completeness", "clarity"]) | st.text(
    max_size=3
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
JUDGEMENTS = st.fixed_dictionaries(
    {"rationale": st.text(max_size=5)},
    optional={"scores": st.dictionaries(KEYS, st.integers(-2, 12) | JSON_VALUES, max_size=4)},
)


@given(st.text() | JSON_VALUES.map(json.dumps) | JUDGEMENTS.map(json.dumps), st.booleans())
@example(json.dumps(points()), False)
@example("1" * 5000, False)
def test_no_text_of_a_judge_gives_a_score_off_the_scale(text, typed):
    """Whatever a judge writes: a score in [0, 1] or a reason, never both and never an exception."""
    evaluation = evaluate(text, typed=typed)
    assert (evaluation.score is None) == (evaluation.missing is not None)
    assert evaluation.score is None or (not typed and 0.0 <= evaluation.score <= 1.0)


@given(st.dictionaries(st.text(max_size=3), JSON_VALUES, max_size=3) | JUDGEMENTS)
def test_no_arguments_of_a_judge_give_a_score_off_the_scale(arguments):
    """The same for the arguments of a tool, which nobody has checked before."""
    evaluation = evaluate(reply(structured=arguments))
    assert evaluation.score is None or 0.0 <= evaluation.score <= 1.0


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.integers(0, 10)), min_size=1, max_size=5))
def test_a_score_lies_between_its_criteria(given_points):
    """A mean outside of what it is the mean of is none."""
    rubric = Rubric.default().looking_at({f"c{i}": weight for i, (weight, _) in enumerate(given_points)})
    score = rubric.score([n for _, n in given_points])
    numbers = [n / 10 for _, n in given_points]
    assert min(numbers) - 1e-9 <= score <= max(numbers) + 1e-9
    assert 0.0 <= score <= 1.0


def test_repeats_are_draws_of_their_own():
    """A cache that takes the second repeat for the first shows a judge without noise."""
    client = ScriptedChat(points(10), points(5), points(0))
    evaluator = QualityEvaluator(client, repeats=3)
    evaluation = asyncio.run(evaluator.evaluate(TASK, "Paris", draw="run-7"))
    assert [request.draw for request in client.requests] == [f"run-7/judge-0/repeat-{r}" for r in range(3)]
    assert len({request.prompt_sha256 for request in client.requests}) == 1
    assert evaluation.score == pytest.approx((1.0 + (3 * 0.5 + 3) / 6 + 0.5) / 3)
    assert client.most_at_once == 3
    assert client.agents == ["judge"] * 3


def test_seeds_differ_from_draw_to_draw_and_not_from_run_to_run():
    """Repeats with one seed are one judgement three times; without a seed no run can be repeated."""

    def seeds():
        client = ScriptedChat(otherwise=points())
        asyncio.run(QualityEvaluator(client, repeats=3, seed=1).evaluate(TASK, "Paris"))
        return [request.seed for request in client.requests]

    assert seeds() == seeds()
    assert len(set(seeds())) == 3


def test_a_panel_counts_each_judge_once():
    """A judge that answered once of three times must not count a third of another."""
    one = ScriptedChat(points(0, 0, 0), "prose", "prose", model="one")
    two = ScriptedChat(otherwise=points(), model="two")
    evaluation = asyncio.run(QualityEvaluator(one, panel=[two], repeats=3).evaluate(TASK, "Paris"))
    assert evaluation.score == 0.5
    assert evaluation.scores == (0.0, None, None, 1.0, 1.0, 1.0)
    assert evaluation.reasons == (None, "no_tool_call", "no_tool_call", None, None, None)
    assert evaluation.n_judges == 2
    assert evaluation.usage.total_tokens == sum(
        len(f"{r.system} {r.messages[0].content}".split()) for r in [*one.requests, *two.requests]
    ) + len(["prose", "prose"])


def test_below_the_least_share_there_is_no_score():
    """A score of one judgement of three is one that the judge chose to give."""
    replies = [points(), UpstreamTimeoutError("slow"), "prose"]
    assert evaluate(*replies, repeats=3).score is None
    evaluation = evaluate(*replies, repeats=3, least_share=1 / 3)
    assert (evaluation.score, evaluation.scores) == (1.0, (1.0, None, None))
    missing = evaluate(*replies, repeats=3).missing
    assert missing == "too_few_judgements (1 of 3: 1 × upstream_timeout, 1 × no_tool_call)"


def test_half_of_the_judgements_are_enough_by_default():
    """One of two is the share that the documentation says."""
    assert evaluate(points(), "prose", repeats=2).score == 1.0


@pytest.mark.parametrize(
    "error", [CircuitOpenError("open"), RetriesExhaustedError("tried"), UpstreamTimeoutError("slow")]
)
def test_a_judge_out_of_reach_is_missing_and_says_so(error):
    """A server that was down for a minute must not end a suite, nor score what it did not see."""
    assert evaluate(error).missing == error.code


def test_a_request_that_one_judge_cannot_take_is_missing():
    """A text too long for one judge's window is no reason to lose the others' judgements."""
    assert evaluate(InputError("too long"), points(), repeats=2).reasons == ("input", None)


@pytest.mark.parametrize("error", [BudgetExceededError("no money"), ConfigurationError("no such model")])
def test_what_concerns_all_judgements_goes_through(error):
    """A suite that went on with an empty purse would report hundreds of missing judgements."""
    with pytest.raises(type(error)):
        evaluate(points(), error, points(), repeats=3)


def test_an_error_stops_the_other_judgements():
    """Judgements that nobody will look at cost money."""

    async def run():
        ended = []

        async def slowly(_):
            try:
                await asyncio.sleep(30)
            finally:
                ended.append(True)

        client = ScriptedChat(slowly, BudgetExceededError("no money"))
        with pytest.raises(BudgetExceededError):
            await QualityEvaluator(client, repeats=2).evaluate(TASK, "Paris")
        assert ended == [True]

    asyncio.run(run())


def test_cancelling_an_evaluation_cancels_it():
    """A user who gives up waits for nothing."""

    async def run():
        client = ScriptedChat(otherwise=points(), latency=30)
        evaluation = asyncio.create_task(QualityEvaluator(client, repeats=2).evaluate(TASK, "Paris"))
        await asyncio.sleep(0.01)
        evaluation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await evaluation

    asyncio.run(run())


@pytest.mark.parametrize("answer", ["", " \n\t"])
def test_an_empty_answer_is_not_sent_to_a_judge(answer):
    """No answer is not a bad answer; whoever counts it as one has to say so."""
    client = ScriptedChat(points())
    evaluation = asyncio.run(QualityEvaluator(client, repeats=2).evaluate(TASK, answer))
    assert (evaluation.missing, client.requests) == ("empty_answer", [])
    assert evaluation.reasons == ("empty_answer", "empty_answer")


@pytest.mark.parametrize("answer", ["x" * 100_001, "\u200b" * 20_000])
def test_an_answer_too_long_to_be_shown_whole_is_not_judged(answer):
    """Judged without its end it would be another answer; written out, what is invisible costs money."""
    client = ScriptedChat(points())
    evaluation = asyncio.run(QualityEvaluator(client).evaluate(TASK, answer))
    assert (evaluation.missing, client.requests) == ("too_long", [])


def test_references_are_shown_if_wanted():
    """A judge that sees the reference measures something else than one that does not."""
    task = Task("Capital?", references=("Paris", "Paris, France"))
    for wanted in (True, False):
        client = ScriptedChat(points())
        asyncio.run(QualityEvaluator(client, with_references=wanted).evaluate(task, "Lyon"))
        assert ("| Paris, France" in client.requests[0].messages[0].content) is wanted


def test_everything_that_changes_scores_is_in_the_identity():
    """Two instruments of one name would be compared as if they were one."""
    chat = ScriptedChat(points())
    other = ScriptedChat(points(), model="other")
    other_scale = replace(Rubric.default(), most=5, levels=())
    made = [
        QualityEvaluator(chat),
        QualityEvaluator(other),
        QualityEvaluator(chat, panel=[other]),
        QualityEvaluator(chat, repeats=2),
        QualityEvaluator(chat, temperature=0.5),
        QualityEvaluator(chat, max_tokens=99),
        QualityEvaluator(chat, seed=1),
        QualityEvaluator(chat, typed=False),
        QualityEvaluator(chat, with_references=False),
        QualityEvaluator(chat, least_share=1.0),
        QualityEvaluator(chat, rubric=other_scale),
        QualityEvaluator(chat, criteria={"correctness": 1}),
        QualityEvaluator(chat, criteria={"correctness": 2, "completeness": 2, "clarity": 1}),
        QualityEvaluator(chat, criteria=[Criterion("correctness", 1, "said otherwise")]),
    ]
    assert len({evaluator.identity for evaluator in made}) == len(made)
    assert QualityEvaluator(chat).identity == QualityEvaluator(chat).identity


def test_a_rehearsal_asks_the_stand_ins():
    """An estimate of the cost that asks the real judges costs what it is there to prevent."""
    judges = [ScriptedChat(points(), model="one"), ScriptedChat(points(), model="two")]
    evaluator = QualityEvaluator(judges[0], panel=judges[1:], repeats=2)
    stand_ins = []

    def stand_in(client):
        stand_ins.append(ScriptedChat(otherwise="words", model=client.identity.model))
        return stand_ins[-1]

    rehearsed = evaluator.through(stand_in)
    asyncio.run(rehearsed.evaluate(TASK, "Paris"))
    assert [len(client.requests) for client in (*judges, *stand_ins)] == [0, 0, 2, 2]
    assert rehearsed.identity == evaluator.identity


def test_a_rubric_of_the_user_is_read_from_a_file(tmp_path):
    """Criteria are data: a team keeps its own under version control."""
    file = tmp_path / "rubric.json"
    criteria = [{"name": "Is it polite?", "weight": 2}, {"name": "Ist es höflich?"}, {"name": "?"}]
    file.write_text(json.dumps({"version": "ours", "most": 4, "levels": {"0": "rude"}, "criteria": criteria}))
    rubric = Rubric.load(file)
    assert rubric.keys == ("is_it_polite", "ist_es_h_flich", "criterion_3")
    said = {"rationale": "", "scores": {"is_it_polite": 4, "ist_es_h_flich": 0, "criterion_3": 2}}
    evaluation = evaluate(said, rubric=file)
    assert evaluation.score == pytest.approx((2 * 4 + 0 + 2) / 16)
    assert evaluation.criteria["Is it polite?"] == 1.0


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 1, "most": "10", "levels": {}, "criteria": []}']
)
def test_a_file_that_is_no_rubric_is_refused_by_name(tmp_path, content):
    """A rubric that was half read would judge by half of it."""
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"mine\.json|rubric"):
        Rubric.load(file)


@pytest.mark.parametrize(
    "options",
    [
        {"repeats": 0},
        {"repeats": True},
        {"least_share": 0.0},
        {"least_share": 1.5},
        {"criteria": []},
        {"criteria": "correctness"},
        {"criteria": {"a": 0}},
        {"criteria": {"a": float("nan")}},
        {"criteria": ["a", "a"]},
        {"criteria": {"two\nlines": 1}},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"rubric": "no/such/file.json"},
    ],
)
def test_settings_that_cannot_be_right_are_refused(options):
    """A mistake in a setting must show before the first dollar is spent."""
    with pytest.raises(ConfigurationError):
        QualityEvaluator(ScriptedChat(points()), **options)


def test_the_schema_takes_just_what_is_read():
    """A schema that allows more than the reader does makes judgements missing without need."""
    jsonschema = pytest.importorskip("jsonschema")
    form = PointsForm(Rubric.default())
    schema = dict(form.tool.schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    for arguments in (points(), points(0, 3, 10)):
        jsonschema.validate(arguments, schema)
        form.read(arguments)
    for wrong in (points(11), points("10"), points() | {"more": 1}, {"rationale": ""}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_a_long_rationale_is_cut_for_the_record():
    """A judge that never stops writing must not fill the store."""
    assert len(evaluate(points(rationale="x" * 9_999)).rationale) == 2_000
