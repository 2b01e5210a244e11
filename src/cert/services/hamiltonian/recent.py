"""The analyses of late, of each tenant by itself: a ring in memory, by number and by bytes."""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from cert.backends.base import Generation
from cert.core.errors import InputError
from cert.services.common.errors import ConflictError, NotFoundError
from cert.signals import TokenSteps
from cert.trajectory.gate import Verdict
from cert.trajectory.types import TrajectoryAnalysis

__all__ = [
    "HAS_LABEL",
    "Entry",
    "Listed",
    "Page",
    "RecentAnalyses",
    "Source",
    "cursor_of",
    "missing",
    "place_of",
]

Source: TypeAlias = Literal["analyze", "batch", "stream", "score", "chat"]

# What a token takes besides its candidates: columns of signals, its text, what JSON is made of.
_PER_TOKEN = 400
_PER_CANDIDATE = 16
# Characters of prompt and answer that a list has.
_LISTED = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a list shows of an analysis.

    Attributes:
        number: its place in the list.
        asked, text: the beginnings of the prompt's end and of the answer.
        label: as of an `Entry`; the others too.
    """

    id: str
    number: int
    created_at: str
    model: str
    source: Source
    verdict: Verdict
    calibrated: bool
    reasons: tuple[str, ...]
    finish_reason: str
    tokens: int
    asked: str
    text: str
    label: bool | None


@dataclass(eq=False, slots=True)
class Entry:
    """One analysis that is kept.

    Attributes:
        id: random, so that nobody can guess another's.
        number: grows with every analysis of the ring, so that pages are stable.
        model: by the name of the allow-list, or as the engine names it.
        generation: as the monitor gave it.
        source: what asked for it.
        group: of the answer, for a gate with groups.
        label: whether the answer turned out right; ``None`` while nobody has said.
        kept: it outlives this process.
        written: its JSON, once it was asked for, by what was asked.
    """

    id: str
    number: int
    model: str
    source: Source
    generation: Generation
    analysis: TrajectoryAnalysis
    group: str | None = None
    label: bool | None = None
    kept: bool = False
    written: dict[tuple[object, ...], bytes] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """About as many bytes as it takes."""
        steps: TokenSteps = self.analysis.generation.steps
        prompt = self.analysis.generation.prompt
        asked = len(prompt) if isinstance(prompt, str) else sum(len(m.content) for m in prompt or ())
        text = 4 * (asked + len(self.analysis.generation.text))
        return 2_000 + text + len(steps) * (_PER_TOKEN + _PER_CANDIDATE * steps.top_k)

    def listed(self) -> Listed:
        """Return what a list shows of it."""
        analysis = self.analysis
        prompt = analysis.generation.prompt
        asked = prompt if isinstance(prompt, str) or not prompt else prompt[-1].content
        return Listed(
            id=self.id,
            number=self.number,
            created_at=analysis.created_at,
            model=self.model,
            source=self.source,
            verdict=analysis.verdict,
            calibrated=analysis.decision.calibrated,
            reasons=analysis.decision.reasons,
            finish_reason=analysis.generation.finish_reason,
            tokens=analysis.generation_steps,
            asked=str(asked or "")[:_LISTED],
            text=analysis.generated_text[:_LISTED],
            label=self.label,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some of them, the latest first; ``next`` is where the next page begins, ``None`` at the end."""

    entries: tuple[Listed, ...]
    next: int | None


class _Ring:
    def __init__(self) -> None:
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        # By identity: an answer that comes from the cache is the very generation of the first time.
        self.by_generation: dict[tuple[int, str | None], Entry] = {}
        self.weight = 0
        self.count = 0

    def forget(self, gone: Entry) -> None:
        self.weight -= gone.weight
        if self.by_generation.get(_key(gone.generation, gone.group)) is gone:
            del self.by_generation[_key(gone.generation, gone.group)]


class RecentAnalyses:
    """The latest analyses of every tenant, in the memory of this process.

    Args:
        size: most analyses of a tenant.
        most_bytes: most memory of a tenant's; the latest one is kept whatever it takes.
    """

    def __init__(self, size: int = 200, most_bytes: int = 256 * 2**20) -> None:
        self._size, self._most_bytes = size, most_bytes
        self._rings: dict[str, _Ring] = {}
        self._lock = threading.Lock()

    async def keep(
        self,
        tenant: str,
        analysis: TrajectoryAnalysis,
        *,
        model: str,
        source: Source,
        group: str | None = None,
    ) -> Entry:
        """Keep an analysis and return its entry; one from the cache is the entry of the first time.

        An answer that names the entry is sent after this.
        """
        return self._noted(tenant, analysis, model=model, source=source, group=group)

    async def get(self, tenant: str, identifier: str) -> Entry:
        """Return one.

        Raises:
            NotFoundError: there is none, it is too old, or it is another tenant's.
        """
        entry = self._known(tenant, identifier)
        if entry is None:
            raise missing()
        return entry

    async def page(self, tenant: str, limit: int, before: int | None = None) -> Page:
        """Return up to ``limit`` analyses, the latest first, from before a number on."""
        with self._lock:
            ring = self._rings.get(tenant)
            entries = [] if ring is None else list(reversed(ring.entries.values()))
        found = [entry for entry in entries if before is None or entry.number < before]
        more = len(found) > limit
        shown = tuple(entry.listed() for entry in found[:limit])
        return Page(shown, found[limit - 1].number if more else None)

    async def label(self, tenant: str, identifier: str, correct: bool) -> Entry:
        """Say once whether an answer turned out right.

        Raises:
            NotFoundError: as `get`.
            ConflictError: somebody has said so already; labels of one answer count once.
        """
        entry = await self.get(tenant, identifier)
        with self._lock:
            if entry.label is not None:
                raise ConflictError(HAS_LABEL)
            entry.label = correct
            entry.written.clear()
        return entry

    async def unlabel(self, tenant: str, identifier: str) -> None:
        """Take a label back that could not be counted."""
        entry = await self.get(tenant, identifier)
        with self._lock:
            entry.label = None
            entry.written.clear()

    def _noted(
        self, tenant: str, analysis: TrajectoryAnalysis, *, model: str, source: Source, group: str | None
    ) -> Entry:
        with self._lock:
            ring = self._rings.setdefault(tenant, _Ring())
            # Of equal questions at once, the one that was generated for may come after the others.
            known = ring.by_generation.get(_key(analysis.generation, group))
            if known is not None:
                ring.entries.move_to_end(known.id)
                ring.count += 1
                known.number = ring.count
                if analysis.decision is not known.analysis.decision or not known.analysis.from_cache:
                    known.analysis = _named(analysis, model)
                return known
            ring.count += 1
            entry = Entry(
                id="an_" + secrets.token_hex(12),
                number=ring.count,
                model=model,
                source=source,
                generation=analysis.generation,
                analysis=_named(analysis, model),
                group=group,
            )
            ring.entries[entry.id] = entry
            ring.by_generation[_key(entry.generation, group)] = entry
            ring.weight += entry.weight
            gone = self._trim(ring)
        for one in gone:
            self._let_go(one)
        return entry

    def _known(self, tenant: str, identifier: str) -> Entry | None:
        with self._lock:
            ring = self._rings.get(tenant)
            return None if ring is None else ring.entries.get(identifier)

    def _renamed(self, tenant: str, entry: Entry, identifier: str) -> None:
        """Give an entry the id that it had before it was out of memory."""
        with self._lock:
            ring = self._rings[tenant]
            if ring.entries.pop(entry.id, None) is not None:
                ring.entries[identifier] = entry
            entry.id = identifier
            entry.written.clear()

    def _all(self) -> list[tuple[str, Entry]]:
        """Return everything with its tenant, the oldest of each first."""
        with self._lock:
            return [(of, one) for of, ring in self._rings.items() for one in ring.entries.values()]

    def _not_kept(self) -> list[tuple[str, Entry]]:
        """Return of `_all` what would not outlive this process."""
        return [(of, one) for of, one in self._all() if not one.kept]

    def _dropped(self, tenant: str, entry: Entry) -> None:
        """Take an entry out."""
        with self._lock:
            ring = self._rings[tenant]
            if ring.entries.pop(entry.id, None) is not None:
                ring.forget(entry)

    def _let_go(self, entry: Entry) -> None:
        """Hear that an analysis is in memory no longer."""

    def _trim(self, ring: _Ring) -> list[Entry]:
        trimmed = []
        while len(ring.entries) > max(1, self._size) or (
            ring.weight > self._most_bytes and len(ring.entries) > 1
        ):
            _, gone = ring.entries.popitem(last=False)
            ring.forget(gone)
            trimmed.append(gone)
        return trimmed


HAS_LABEL = "this analysis has its label already"


def missing() -> NotFoundError:
    """Return the error of an analysis that is not there."""
    return NotFoundError("there is no such analysis, or it is kept no longer")


def _key(generation: Generation, group: str | None) -> tuple[int, str | None]:
    return id(generation), group


def _named(analysis: TrajectoryAnalysis, model: str) -> TrajectoryAnalysis:
    """Return an analysis with the public name of its model, in place of the operator's folder or host."""
    generation = analysis.generation
    return replace(analysis, generation=replace(generation, model=replace(generation.model, name=model)))


def cursor_of(place: int | None) -> str | None:
    """Return a place as callers see it."""
    return None if place is None else base64.urlsafe_b64encode(str(place).encode()).decode().rstrip("=")


def place_of(cursor: str | None) -> int | None:
    """Return the place of a cursor.

    Raises:
        InputError: it is none that `cursor_of` gave.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii")
        if text.isdecimal() and len(text) < 20:
            return int(text)
    except (binascii.Error, ValueError):
        pass
    raise InputError("the cursor is none that a page gave", hint="take `next` of the page before")
