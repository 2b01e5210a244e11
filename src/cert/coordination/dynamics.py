"""What talking does to answers, round by round: right to wrong and back, conformity, and what was left lying.

Pure: transcripts and scores in, numbers out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from cert.coordination.consensus import ABOUT_OTHERS
from cert.coordination.types import AgentResponse, Transcript
from cert.core.errors import InputError

__all__ = ["RoundChange", "oracle_gap", "pooled", "round_changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundChange:
    """What agents did between one round and the next; counts, so that tasks can be added up.

    An agent counts where it answered in both rounds. Rates are ``None`` where there is nothing to count.

    Attributes:
        round: the later one.
        right_before, right_to_wrong: of the agents whose score was known in both rounds, those who were
            right, and of these, those who are wrong now.
        wrong_before, wrong_to_right: the same the other way round.
        unscored: agents of which one of the two scores is missing.
        outside_majority: agents outside a majority (more than half of those who answered in the round
            before), and ``adopted``: those of them whose answer now is the majority's.
        outside_wrong_majority, adopted_wrong: the same, where the majority's answer was wrong; with the one
            before, this tells conformity from learning.
    """

    round: int
    right_before: int = 0
    right_to_wrong: int = 0
    wrong_before: int = 0
    wrong_to_right: int = 0
    unscored: int = 0
    outside_majority: int = 0
    adopted: int = 0
    outside_wrong_majority: int = 0
    adopted_wrong: int = 0

    @property
    def right_to_wrong_rate(self) -> float | None:
        """Of those who were right, the share that is wrong now."""
        return _share(self.right_to_wrong, self.right_before)

    @property
    def wrong_to_right_rate(self) -> float | None:
        """Of those who were wrong, the share that is right now."""
        return _share(self.wrong_to_right, self.wrong_before)

    @property
    def adoption_rate(self) -> float | None:
        """Of those outside a majority, the share that adopted its answer."""
        return _share(self.adopted, self.outside_majority)

    @property
    def wrong_adoption_rate(self) -> float | None:
        """Of those outside a wrong majority, the share that adopted its answer."""
        return _share(self.adopted_wrong, self.outside_wrong_majority)

    def __add__(self, other: RoundChange) -> RoundChange:
        if self.round != other.round:
            raise InputError(f"round {self.round} and round {other.round} are not added")
        counts = [one.name for one in fields(self) if one.name != "round"]
        summed = {name: getattr(self, name) + getattr(other, name) for name in counts}
        return RoundChange(round=self.round, **summed)


def round_changes(
    transcript: Transcript,
    scores: Sequence[float | None],
    clusters: Sequence[int | None] | None = None,
    *,
    right_from: float = 0.5,
) -> tuple[RoundChange, ...]:
    """Return what changed in each round after the first, where the same agents answer again (a debate).

    Args:
        transcript: of any strategy; one without a second round of the same agents has no changes.
        scores: of each response of the transcript, in its order, in [0, 1]; ``None`` is missing.
        clusters: of each response, over all rounds together, as of `consensus.cluster_responses`; without
            them adoption is not counted.
        right_from: scores from here on are right.

    Raises:
        InputError: scores or clusters are not one a response.
    """
    _one_each(transcript, scores, "scores")
    if clusters is not None:
        _one_each(transcript, clusters, "clusters")
    rounds: dict[int, dict[str, int]] = defaultdict(dict)
    for place, one in enumerate(transcript.responses):
        if _in_pool(one):
            rounds[one.round][one.agent] = place
    right = [None if score is None else score >= right_from for score in scores]
    changes = []
    for before, after in zip(sorted(rounds), sorted(rounds)[1:], strict=False):
        both = [
            (rounds[before][name], rounds[after][name]) for name in rounds[before] if name in rounds[after]
        ]
        if both:
            change = _turns(after, [(right[a], right[b]) for a, b in both])
            changes.append(change + _adoptions(after, list(rounds[before].values()), both, clusters, right))
    return tuple(changes)


def pooled(changes: Iterable[Sequence[RoundChange]]) -> tuple[RoundChange, ...]:
    """Return the changes of many tasks added up, by round: rates of sums, not means of rates."""
    sums: dict[int, RoundChange] = {}
    for change in (change for of_task in changes for change in of_task):
        sums[change.round] = sums[change.round] + change if change.round in sums else change
    return tuple(sums[number] for number in sorted(sums))


def oracle_gap(
    transcript: Transcript, scores: Sequence[float | None], final_score: float | None
) -> float | None:
    """Return the best score among the agents' answers of all rounds, less that of the final answer.

    What a perfect choice among the answers would have gained. Below zero where the final answer, made of
    several, is better than each of them.

    Args:
        transcript: of any strategy.
        scores: as in `round_changes`.
        final_score: of the final answer.

    Returns:
        ``None`` where the final score is missing, nobody answered, or a missing score might be the best.

    Raises:
        InputError: scores are not one a response.
    """
    _one_each(transcript, scores, "scores")
    pool = [score for one, score in zip(transcript.responses, scores, strict=True) if _in_pool(one)]
    known = [score for score in pool if score is not None]
    if final_score is None or not known:
        return None
    # No score is above 1: then the missing ones do not matter.
    return max(known) - final_score if len(known) == len(pool) or max(known) == 1.0 else None


def _in_pool(one: AgentResponse) -> bool:
    return one.text is not None and one.role not in ABOUT_OTHERS


def _turns(number: int, turns: Sequence[tuple[bool | None, bool | None]]) -> RoundChange:
    counts = Counter(turn for turn in turns if None not in turn)
    return RoundChange(
        round=number,
        right_before=counts[True, True] + counts[True, False],
        right_to_wrong=counts[True, False],
        wrong_before=counts[False, True] + counts[False, False],
        wrong_to_right=counts[False, True],
        unscored=len(turns) - counts.total(),
    )


def _adoptions(
    number: int,
    before: Sequence[int],
    both: Sequence[tuple[int, int]],
    clusters: Sequence[int | None] | None,
    right: Sequence[bool | None],
) -> RoundChange:
    """Count who took over the answer of the majority of the round before."""
    if clusters is None:
        return RoundChange(round=number)
    (majority, size), *_ = Counter(clusters[place] for place in before).most_common(1)
    if majority is None or 2 * size <= len(before):
        return RoundChange(round=number)
    outside = [clusters[b] == majority for a, b in both if clusters[a] != majority]
    known = {right[place] for place in before if clusters[place] == majority} - {None}
    wrong = known == {False}
    return RoundChange(
        round=number,
        outside_majority=len(outside),
        adopted=sum(outside),
        outside_wrong_majority=len(outside) if wrong else 0,
        adopted_wrong=sum(outside) if wrong else 0,
    )


def _share(part: int, of: int) -> float | None:
    return part / of if of else None


def _one_each(transcript: Transcript, given: Sequence[object], what: str) -> None:
    if len(given) != len(transcript.responses):
        raise InputError(f"there are {len(transcript.responses)} responses and {len(given)} {what}")
