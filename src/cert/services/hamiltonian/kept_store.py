"""Analyses in a database: sealed, of each tenant by itself, shared by replicas, for a limited time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from cert.coordination.store.schema import Schema, about_table
from cert.services.common.errors import ConflictError
from cert.services.hamiltonian import kept_form
from cert.services.hamiltonian.recent import HAS_LABEL, Entry, Page, missing
from cert.services.sealed.cipher import Cipher
from cert.services.sealed.database import SealedDatabase
from cert.services.sealed.resealing import Column, Resealed, reseal

__all__ = ["ANALYSES", "AnalysisStore", "Kept", "Packed"]

_TABLES = sa.MetaData()
_ABOUT = about_table("cert_analyses_about", _TABLES)

ANALYSES = sa.Table(
    "cert_analyses",
    _TABLES,
    sa.Column(
        "number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("kept_at", sa.Double, nullable=False, index=True),
    # Of what was generated, as a keyed hash: an answer from a cache is found again by it.
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("label", sa.Boolean),
    sa.Column("listed", sa.LargeBinary, nullable=False),
    sa.Column("analysis", sa.LargeBinary, nullable=False),
    sa.Index("cert_analyses_of", "tenant", "number"),
    sa.Index("cert_analyses_by", "tenant", "fingerprint"),
    sqlite_autoincrement=True,  # a number that was once a cursor is never another's
)
_IDS_AT_ONCE: Final = 500
_SCHEMA: Final = Schema(_TABLES, _ABOUT, 1, {})


@dataclass(frozen=True, slots=True)
class Packed:
    """An analysis as it is written.

    Attributes:
        id, tenant: of the analysis.
        fingerprints: of what was generated, under every key.
        again: it is of a cache, so that it may be there already, under another id.
        listed, analysis: sealed.
    """

    id: str
    tenant: str
    fingerprints: tuple[str, ...]
    again: bool
    listed: bytes
    analysis: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """Under which id an analysis is kept, and its label."""

    id: str
    label: bool | None


class AnalysisStore(SealedDatabase):
    """What the service keeps. Whatever is another tenant's is not there.

    Args:
        place: a path, or the URL of a database.
        cipher: seals texts.
        retention_seconds: after which an analysis is gone.
        most: analyses of a tenant; the oldest go first, when `forget` is called.
        timeout, now: as of `SealedDatabase`.

    Raises:
        ConfigurationError: no URL of a database that is known here.
    """

    def __init__(
        self,
        place: str,
        cipher: Cipher,
        *,
        retention_seconds: float,
        most: int,
        timeout: float = 2.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(place, _SCHEMA, cipher, timeout=timeout, now=now)
        self._retention, self._most = retention_seconds, most

    def pack(self, tenant: str, entry: Entry) -> Packed:
        """Return an entry as it is written; takes a millisecond or more, and touches no database."""
        return Packed(
            id=entry.id,
            tenant=tenant,
            fingerprints=self.cipher.names("analysis", tenant, *_told(entry)),
            again=entry.analysis.from_cache,
            listed=self.cipher.seal(kept_form.pack_listed(entry), _place(tenant, entry.id, "listed")),
            analysis=self.cipher.seal(kept_form.pack(entry), _place(tenant, entry.id, "analysis")),
        )

    async def keep(self, packed: Sequence[Packed]) -> list[Kept]:
        """Write analyses in one transaction: when this returns, they outlive the machine.

        One that is there already stays as it is.

        Raises:
            StoreError: none of them is kept for sure.
        """

        def insert(connection: sa.Connection) -> list[Kept]:
            at = self.now(connection)
            return [self._inserted(connection, one, at) for one in packed]

        return await self.write(insert)

    async def get(self, tenant: str, identifier: str) -> Entry:
        """Return one.

        Raises:
            NotFoundError: this tenant has none of this id, or it is too old.
            StoreError: the database cannot be read, or a key is missing.
        """
        row = await self._row(tenant, identifier, (ANALYSES.c.number, ANALYSES.c.label, ANALYSES.c.analysis))
        packed = self.cipher.open(bytes(row["analysis"]), _place(tenant, identifier, "analysis"))
        return kept_form.entry_of(packed, identifier, row["number"], row["label"])

    async def label_of(self, tenant: str, identifier: str) -> bool | None:
        """Return the label of one; errors as `get`."""
        label: bool | None = (await self._row(tenant, identifier, (ANALYSES.c.label,)))["label"]
        return label

    async def page(self, tenant: str, limit: int, before: int | None = None) -> Page:
        """Return up to ``limit`` analyses, the latest first, from before a number on.

        Raises:
            StoreError: as `get`.
        """
        asked = sa.select(ANALYSES.c.number, ANALYSES.c.id, ANALYSES.c.label, ANALYSES.c.listed)
        asked = asked.where(ANALYSES.c.tenant == tenant).order_by(ANALYSES.c.number.desc()).limit(limit + 1)
        if before is not None:
            asked = asked.where(ANALYSES.c.number < before)

        def look(connection: sa.Connection) -> list[sa.RowMapping]:
            return list(connection.execute(asked.where(self._fresh(connection))).mappings().all())

        rows = await self.read(look)
        listed = tuple(self._listed(tenant, row) for row in rows[:limit])
        return Page(listed, rows[limit - 1]["number"] if len(rows) > limit else None)

    async def label(self, tenant: str, identifier: str, correct: bool) -> None:
        """Say once whether an answer turned out right; of several replicas one succeeds.

        Raises:
            NotFoundError: as `get`.
            ConflictError: somebody has said so already.
            StoreError: it is not kept for sure.
        """

        def put(connection: sa.Connection) -> bool:
            unsaid = (_of(tenant, identifier), ANALYSES.c.label.is_(None), self._fresh(connection))
            return bool(connection.execute(ANALYSES.update().where(*unsaid).values(label=correct)).rowcount)

        if not await self.write(put):
            await self.label_of(tenant, identifier)
            raise ConflictError(HAS_LABEL)

    async def unlabel(self, tenant: str, identifier: str) -> None:
        """Take a label back that could not be counted.

        Raises:
            StoreError: as `label`.
        """

        def clear(connection: sa.Connection) -> None:
            connection.execute(ANALYSES.update().where(_of(tenant, identifier)).values(label=None))

        await self.write(clear)

    async def forget(self) -> int:
        """Delete what is too old or too many, and return how many.

        Raises:
            StoreError: the database cannot be used.
        """

        def delete(connection: sa.Connection) -> int:
            gone = connection.execute(ANALYSES.delete().where(sa.not_(self._fresh(connection)))).rowcount
            counted = sa.select(ANALYSES.c.tenant).group_by(ANALYSES.c.tenant)
            for tenant in list(connection.scalars(counted.having(sa.func.count() > self._most))):
                of = ANALYSES.c.tenant == tenant
                numbers = sa.select(ANALYSES.c.number).where(of).order_by(ANALYSES.c.number.desc())
                last = connection.scalar(numbers.offset(self._most).limit(1))
                gone += connection.execute(ANALYSES.delete().where(of, ANALYSES.c.number <= last)).rowcount
            return gone

        return await self.write(delete)

    async def there(self, identifiers: Sequence[str]) -> set[str]:
        """Return those of some ids, of all tenants, that are still there.

        Raises:
            StoreError: the database cannot be read.
        """
        some = [identifiers[at : at + _IDS_AT_ONCE] for at in range(0, len(identifiers), _IDS_AT_ONCE)]

        def look(connection: sa.Connection) -> set[str]:
            asked = sa.select(ANALYSES.c.id).where(self._fresh(connection))
            found = [connection.scalars(asked.where(ANALYSES.c.id.in_(ids))) for ids in some]
            return {identifier for rows in found for identifier in rows}

        return await self.read(look)

    async def check(self) -> None:
        """Ask the database for nothing.

        Raises:
            StoreError: it does not answer.
        """
        await self.read(lambda connection: connection.scalar(sa.select(ANALYSES.c.number).limit(1)))

    async def reseal(self) -> Resealed:
        """Seal every text anew that an earlier key sealed; see `cert.services.sealed.resealing.reseal`.

        Raises:
            StoreError: the database cannot be used.
        """
        return await reseal(self, self.cipher, _LISTED) + await reseal(self, self.cipher, _ANALYSIS)

    def _inserted(self, connection: sa.Connection, packed: Packed, at: float) -> Kept:
        same = sa.select(ANALYSES.c.id, ANALYSES.c.label).where(ANALYSES.c.tenant == packed.tenant)
        by = ANALYSES.c.id == packed.id
        if packed.again:
            by = sa.or_(by, ANALYSES.c.fingerprint.in_(packed.fingerprints))
        there = connection.execute(same.where(by).order_by(ANALYSES.c.number.desc()).limit(1)).first()
        if there is not None:
            return Kept(there[0], there[1])
        row = {
            "id": packed.id,
            "tenant": packed.tenant,
            "kept_at": at,
            "fingerprint": packed.fingerprints[0],
            "listed": packed.listed,
            "analysis": packed.analysis,
        }
        connection.execute(ANALYSES.insert(), row)
        return Kept(packed.id, None)

    async def _row(self, tenant: str, identifier: str, columns: tuple[sa.Column[Any], ...]) -> sa.RowMapping:
        asked = sa.select(*columns).where(_of(tenant, identifier))
        row = await self.read(
            lambda connection: connection.execute(asked.where(self._fresh(connection))).mappings().first()
        )
        if row is None:
            raise missing()
        return row

    def _listed(self, tenant: str, row: sa.RowMapping) -> Any:
        packed = self.cipher.open(bytes(row["listed"]), _place(tenant, row["id"], "listed"))
        return kept_form.listed_of(packed, row["number"], row["label"])

    def _fresh(self, connection: sa.Connection) -> sa.ColumnElement[bool]:
        return ANALYSES.c.kept_at >= self.now(connection) - self._retention


def _of(tenant: str, identifier: str) -> sa.ColumnElement[bool]:
    return sa.and_(ANALYSES.c.id == identifier, ANALYSES.c.tenant == tenant)


def _place(tenant: str, identifier: str, what: str) -> str:
    return f"analysis:{tenant}:{identifier}:{what}"


def _told(entry: Entry) -> tuple[str, ...]:
    """Return what one generation has and no other: the time that it took, to the nanosecond, too."""
    g = entry.analysis.generation
    said = (entry.model, entry.analysis.created_at, g.prompt, g.sampling, g.duration_s, entry.group)
    return (*map(repr, said), g.text, g.steps.logprob.tobytes().hex())


def _column(of: sa.Column[Any]) -> Column:
    return Column(
        of, lambda row: _place(row["tenant"], row["id"], of.name), (ANALYSES.c.tenant, ANALYSES.c.id)
    )


_LISTED, _ANALYSIS = map(_column, (ANALYSES.c.listed, ANALYSES.c.analysis))
