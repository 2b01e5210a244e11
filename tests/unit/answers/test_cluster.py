"""Clusters of answers: right, deterministic, with few comparisons, and open where the rule is."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.sparse.csgraph
from hypothesis import given
from hypothesis import strategies as st

from cert.answers import Clustering, ExactMatcher, MatcherEquivalence, NumericMatcher, cluster, cluster_async
from cert.core.errors import ConfigurationError, InputError, UpstreamConnectionError
from cert.signals.samples import discrete_semantic_entropy


@dataclass
class Rule:
    """Any relation as an equivalence, sync and async, which remembers what it was asked."""

    relation: Callable[[str, str], bool | None]
    calls: list[list[tuple[str, str]]] = field(default_factory=list)
    name: str = "rule"

    def same(self, question, pairs):
        self.calls.append(list(pairs))
        return [self.relation(a, b) for a, b in pairs]

    async def same_async(self, question, pairs):
        await asyncio.sleep(0)
        return self.same(question, pairs)


def by_letter(a, b):
    return a[0] == b[0]


# Answers such as "b3": the letter is the meaning, the digit the wording.
ANSWERS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("0123")).map("".join), max_size=12)
LINKAGES = ["first_member", "connected"]


def partition(labels):
    return {frozenset(i for i, other in enumerate(labels) if other == label) for label in labels}


@pytest.mark.parametrize("linkage", LINKAGES)
@given(answers=ANSWERS)
def test_an_equivalence_relation_is_found_whatever_the_linkage(linkage, answers):
    """Entropy over wrong clusters is a wrong entropy."""
    result = cluster("", answers, Rule(by_letter), linkage)
    assert result.labels == result.finest == result.coarsest
    assert result.n_clusters == len({answer[0] for answer in answers})
    assert partition(result.labels) == partition([answer[0] for answer in answers])
    firsts = list(dict.fromkeys(result.labels))
    assert firsts == list(range(len(firsts)))  # numbered in the order of first members


@pytest.mark.parametrize("linkage", LINKAGES)
@given(data=st.data(), answers=ANSWERS)
def test_the_order_of_the_answers_plays_no_part_for_an_equivalence(linkage, data, answers):
    """The same answers would give another entropy when they arrive in another order."""
    order = data.draw(st.permutations(range(len(answers))))
    straight = cluster("", answers, Rule(by_letter), linkage).labels
    shuffled = cluster("", [answers[i] for i in order], Rule(by_letter), linkage).labels
    assert straight is not None
    assert partition([straight[i] for i in order]) == partition(shuffled)


@pytest.mark.parametrize("linkage", LINKAGES)
@given(answers=ANSWERS)
def test_no_pair_is_asked_twice_nor_texts_that_are_the_same(linkage, answers):
    """Each comparison costs two passes of a model, or dollars."""
    rule = Rule(by_letter)
    result = cluster("", answers, rule, linkage)
    asked = [frozenset(pair) for call in rule.calls for pair in call]
    assert len(set(asked)) == len(asked) == result.n_comparisons
    assert all(len(pair) == 2 for pair in asked)
    assert all(call for call in rule.calls)
    distinct = list(dict.fromkeys(answers))
    meanings = list(dict.fromkeys(answer[0] for answer in distinct))
    if linkage == "first_member":
        # Each answer meets the first member of each earlier cluster, and of its own unless it is that.
        heads = [next(a for a in distinct if a[0] == m) for m in meanings]
        assert len(asked) == sum(meanings.index(a[0]) + (a not in heads) for a in distinct)
    assert len(rule.calls) <= (len(meanings) if linkage == "first_member" else len(distinct))


def test_texts_that_read_the_same_are_never_compared():
    """Five times the same answer would cost comparisons, and a noisy rule could part it from itself."""
    rule = Rule(lambda *_: False)
    result = cluster("", ["caf\u00e9", " cafe\u0301\n", "tea", "tea "], rule)
    assert result.labels == (0, 0, 1, 1)
    assert rule.calls == [[("caf\u00e9", "tea")]]


def test_the_first_member_decides_as_in_the_paper():
    """A chain a ~ b ~ c without a ~ c: semantic entropy compares with the first member alone."""
    chain = Rule(lambda a, b: abs(int(a) - int(b)) <= 1)
    assert cluster("", ["1", "2", "3"], chain).labels == (0, 0, 1)
    assert cluster("", ["2", "1", "3"], chain).labels == (0, 0, 0)
    assert cluster("", ["1", "3", "2"], chain).labels == (0, 1, 0)  # the earlier cluster takes it, for good
    for answers in itertools.permutations(["1", "2", "3", "7"]):
        result = cluster("", answers, chain, "connected")
        assert partition(result.labels) == partition([answer == "7" for answer in answers])


@given(st.lists(st.booleans(), min_size=28, max_size=28), st.integers(0, 8))
def test_connected_clusters_are_the_components_of_the_graph(edges, n):
    """An answer would be cut off from those it is connected to."""
    pairs = dict(zip(itertools.combinations(range(8), 2), edges, strict=True))
    graph = np.zeros((n, n))
    for (a, b), joined in pairs.items():
        if b < n:
            graph[a, b] = joined
    rule = Rule(lambda a, b: pairs[int(a), int(b)])  # fails if the later answer comes first
    result = cluster("", list(map(str, range(n))), rule, "connected")
    components = scipy.sparse.csgraph.connected_components(graph, directed=False)[1] if n else []
    assert partition(result.labels) == partition(list(components))


@pytest.mark.parametrize("linkage", LINKAGES)
@given(answers=ANSWERS, hidden=st.sets(st.tuples(st.integers(0, 15), st.integers(0, 15))))
def test_the_truth_lies_between_the_finest_and_the_coarsest(linkage, answers, hidden):
    """An undecided comparison would silently become "different", and the entropy too high."""

    def partly(a, b):
        code = [4 * "abcd".index(x[0]) + int(x[1]) for x in (a, b)]
        return None if (min(code), max(code)) in hidden else by_letter(a, b)

    result = cluster("", answers, Rule(partly), linkage)
    truth = [answer[0] for answer in answers]
    for fine in partition(result.finest):
        assert any(fine <= true for true in partition(truth))
    for true in partition(truth):
        assert any(true <= coarse for coarse in partition(result.coarsest))
    if answers:
        exact = discrete_semantic_entropy(np.unique(truth, return_inverse=True)[1])
        assert discrete_semantic_entropy(result.coarsest) - 1e-12 <= exact
        assert exact <= discrete_semantic_entropy(result.finest) + 1e-12
    if result.labels is not None:
        assert partition(result.labels) == partition(truth)
    assert all(partly(answers[a], answers[b]) is None for a, b in result.undecided)


def test_undecided_comparisons_leave_the_clusters_open_unless_others_settle_them():
    """What is open would be given as measured, or what is settled as open."""
    open_ = cluster("", ["x", "y"], Rule(lambda *_: None))
    assert (open_.labels, open_.n_clusters, open_.undecided) == (None, None, ((0, 1),))
    assert (open_.finest, open_.coarsest) == ((0, 1), (0, 0))
    known = {("x", "y"): False, ("x", "z"): None, ("y", "z"): True}
    settled = cluster("", ["x", "y", "z"], Rule(lambda a, b: known[a, b]))
    assert settled.labels == (0, 1, 1)  # z is y, and y is not x
    assert settled.undecided == ((0, 2),)
    assert cluster("", ["x", "y", "z"], Rule(lambda a, b: known[a, b]), "connected").labels is None


@pytest.mark.parametrize("linkage", LINKAGES)
def test_none_and_one(linkage):
    """A prompt sampled once would crash, or cost a comparison with itself."""
    rule = Rule(by_letter)
    assert cluster("", [], rule, linkage) == Clustering((), (), 0, (), "rule", linkage)
    assert cluster("", ["a"], rule, linkage).labels == (0,)
    assert cluster("", [""], rule, linkage).labels == (0,)
    assert rule.calls == []


@pytest.mark.parametrize("linkage", LINKAGES)
@given(answers=ANSWERS)
def test_the_asynchronous_clustering_is_the_same(linkage, answers):
    """A service would get other clusters than a script."""
    rule, other = Rule(by_letter), Rule(by_letter)
    assert asyncio.run(cluster_async("", answers, rule, linkage)) == cluster("", answers, other, linkage)
    assert rule.calls == other.calls


def test_the_rule_is_asked_with_the_question_and_the_original_answers():
    """A judge would be shown what nobody wrote."""
    seen = []

    class Recorder(Rule):
        def same(self, question, pairs):
            seen.append((question, pairs))
            return super().same(question, pairs)

    cluster("Q?", ["a ", "b\n"], Recorder(by_letter))
    assert seen == [("Q?", [("a ", "b\n")])]


def test_numbers_cluster_by_value():
    """Notations of one result would count as disagreement."""
    rule = MatcherEquivalence(NumericMatcher(), ("last_number",))
    answers = ["42", "It is 42.0", "1/2", "0.5", "50%", "7"]
    assert cluster("", answers, rule).labels == (0, 0, 1, 1, 1, 2)


def test_what_cannot_be_clustered_is_refused():
    """A string would be clustered letter by letter."""
    rule = MatcherEquivalence(ExactMatcher())
    with pytest.raises(InputError, match="list"):
        cluster("", "abc", rule)
    with pytest.raises(InputError, match="NoneType"):
        cluster("", ["a", None], rule)  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="nearest"):
        cluster("", ["a"], rule, "nearest")  # type: ignore[arg-type]


def test_errors_and_miscounts_of_a_rule_come_through():
    """A server that is away would look like disagreement."""

    def away(*_):
        raise UpstreamConnectionError("no connection")

    with pytest.raises(UpstreamConnectionError):
        cluster("", ["a", "b"], Rule(away))

    class Short(Rule):
        def same(self, question, pairs):
            return []

    with pytest.raises(ValueError, match="rule returned 0"):
        cluster("", ["a", "b"], Short(by_letter))
    with pytest.raises(ValueError, match="rule returned 0"):
        asyncio.run(cluster_async("", ["a", "b"], Short(by_letter)))
