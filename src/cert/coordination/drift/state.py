"""Series in a database: each change is one transaction, so that processes can share them and be killed.

The database layer of the stores, and not a JSON file: a file that is written whole is safe against a kill but
not against two writers, of which the later undoes the earlier; it would take a lock beside it, and all series
and anchors would be written anew for each score. Here a change of one series reads and writes one row under
the database's lock, and the same code serves machines that share a PostgreSQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cert.coordination.drift.anchors import AnchorSet
from cert.coordination.drift.codec import decode_series, encode_series
from cert.coordination.drift.series import Series
from cert.coordination.store.databases import open_database
from cert.coordination.store.faults import store_error
from cert.coordination.store.schema import Schema, about_table
from cert.coordination.store.uninterrupted import uninterrupted
from cert.core.errors import StoreUnusableError

__all__ = ["DRIFT_SCHEMA", "Held", "SeriesStore"]

T = TypeVar("T")

_TABLES = sa.MetaData()
_ABOUT = about_table("cert_drift", _TABLES)
_SERIES = sa.Table(
    "cert_drift_series",
    _TABLES,
    sa.Column("system", sa.Text, primary_key=True),
    sa.Column("family", sa.Text, primary_key=True),
    sa.Column("series", sa.Text, nullable=False),
    sa.Column("alarm", sa.String(20)),  # the kind, to be counted without reading all series
    sa.Column("anchors", sa.Text),
    sa.Column("anchors_sha256", sa.String(64)),
)
_KEYS = sa.Table(
    "cert_drift_keys",
    _TABLES,
    sa.Column("system", sa.Text, primary_key=True),
    sa.Column("family", sa.Text, primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
)
DRIFT_SCHEMA: Final = Schema(_TABLES, _ABOUT, 1, {})

_DAMAGED = "It was not touched. Restore a copy, or move it away and begin a new reference phase."


@dataclass(frozen=True, slots=True)
class Held:
    """A series with what is known of its anchors.

    Attributes:
        series: of one system and family.
        anchors_sha256: of its anchors; ``None`` where there are none.
        anchors: those that are to be kept from now on.
    """

    series: Series
    anchors_sha256: str | None = None
    anchors: AnchorSet | None = None


class SeriesStore:
    """All series of a database.

    Args:
        store: a path, or the URL of a database.
        timeout: seconds to wait for a lock, a connection, or an answer of the database.

    Raises:
        ConfigurationError: no URL of a database that is known here.
    """

    def __init__(self, store: str, timeout: float = 10.0) -> None:
        self._database = open_database(store, timeout, DRIFT_SCHEMA.prepare)
        self.name = self._database.name

    async def read(self, system: str, family: str) -> Held | None:
        """Return a series, ``None`` where there is none.

        Raises:
            StoreError: the store cannot be read, or what is in it is damaged.
        """
        return await self._told(
            self._database.read(lambda connection: self._look(connection, system, family))
        )

    async def names(self) -> tuple[tuple[str, str], ...]:
        """Return systems and families of all series.

        Raises:
            StoreError: the store cannot be read.
        """

        def look(connection: sa.Connection) -> tuple[tuple[str, str], ...]:
            rows = connection.execute(
                sa.select(_SERIES.c.system, _SERIES.c.family).order_by(_SERIES.c.system, _SERIES.c.family)
            )
            return tuple((row.system, row.family) for row in rows)

        return await self._told(self._database.read(look))

    async def standing(self) -> Mapping[tuple[str, str], int]:
        """Return how many alarms stand, by system and kind.

        Raises:
            StoreError: the store cannot be read.
        """

        def count(connection: sa.Connection) -> dict[tuple[str, str], int]:
            counting = (
                sa.select(_SERIES.c.system, _SERIES.c.alarm, sa.func.count().label("alarms"))
                .where(_SERIES.c.alarm.is_not(None))
                .group_by(_SERIES.c.system, _SERIES.c.alarm)
            )
            return {(row.system, row.alarm): row.alarms for row in connection.execute(counting)}

        return await self._told(self._database.read(count))

    async def anchors(self, system: str, family: str) -> AnchorSet | None:
        """Return the anchors of a series, ``None`` where there are none.

        Raises:
            StoreError: the store cannot be read, or the anchors are not those that were frozen.
        """

        def look(connection: sa.Connection) -> AnchorSet | None:
            row = connection.execute(sa.select(_SERIES).where(_this(system, family))).first()
            if row is None or row.anchors is None:
                return None
            if hashlib.sha256(row.anchors.encode()).hexdigest() != row.anchors_sha256:
                raise self._damaged(system, family, "anchors that are not those that were frozen")
            try:
                return AnchorSet.of_json(row.anchors)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise self._damaged(system, family, "anchors that cannot be read") from error

        return await self._told(self._database.read(look))

    async def change(
        self,
        system: str,
        family: str,
        begin: Callable[[], Held],
        work: Callable[[Held, Sequence[int]], Held],
        keys: Sequence[str | None] = (),
    ) -> tuple[Held, Held]:
        """Do one change in one transaction; what it raises leaves everything as it was.

        Args:
            system: whose series.
            family: on which tasks.
            begin: makes a series where there is none, or raises.
            work: from what is there, and the indices of the keys that are new, to what shall be.
            keys: are kept; ``None`` is always new.

        Returns:
            What was there or had begun, and what is now.

        Raises:
            StoreError: the store cannot be used, or what is in it is damaged.
        """

        def changing(connection: sa.Connection) -> tuple[Held, Held]:
            # Whoever has the row changes this series alone, so there has to be a row before anything else.
            before = self._look(connection, system, family, lock=True)
            if before is None:
                row = {"system": system, "family": family} | _row(begin())
                connection.execute(_insert(_SERIES, connection.dialect.name), row)
                before = self._look(connection, system, family, lock=True)
            assert before is not None
            insert = _insert(_KEYS, connection.dialect.name)
            fresh = [
                i
                for i, key in enumerate(keys)
                if key is None or connection.execute(insert, _key_row(system, family, key)).rowcount
            ]
            after = work(before, fresh)
            connection.execute(_SERIES.update().where(_this(system, family)).values(**_row(after)))
            return before, after

        return await self._told(self._database.write(changing))

    async def aclose(self) -> None:
        """Let go of the connections; a later use opens new ones."""
        await uninterrupted(self._database.aclose())

    def _look(
        self, connection: sa.Connection, system: str, family: str, *, lock: bool = False
    ) -> Held | None:
        asking = sa.select(_SERIES.c.series, _SERIES.c.anchors_sha256).where(_this(system, family))
        row = connection.execute(asking.with_for_update() if lock else asking).first()
        if row is None:
            return None
        try:
            return Held(decode_series(row.series), row.anchors_sha256)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._damaged(system, family, "a state that cannot be read") from error

    def _damaged(self, system: str, family: str, what: str) -> StoreUnusableError:
        return StoreUnusableError(
            f"'{self.name}' has, for '{system}' on '{family}', {what}",
            hint=_DAMAGED,
            context={"store": self.name, "system": system, "family": family, "reason": "corrupt"},
        )

    async def _told(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except Exception as error:
            told = store_error(error, self.name)
            if told is None:
                raise
            raise told from error


def _insert(table: sa.Table, dialect: str) -> Any:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def _this(system: str, family: str) -> sa.ColumnElement[bool]:
    return sa.and_(_SERIES.c.system == system, _SERIES.c.family == family)


def _row(held: Held) -> dict[str, Any]:
    alarm = held.series.alarm
    row: dict[str, Any] = {
        "series": encode_series(held.series),
        "alarm": None if alarm is None else alarm.kind,
        "anchors_sha256": held.anchors_sha256,
    }
    if held.anchors is not None:
        row |= {"anchors": held.anchors.to_json(), "anchors_sha256": held.anchors.sha256}
    elif held.anchors_sha256 is None:
        row["anchors"] = None
    return row


def _key_row(system: str, family: str, key: str) -> dict[str, str]:
    # The key may be of any length; a name of a customer or a task is nobody's business here.
    return {"system": system, "family": family, "key": hashlib.sha256(key.encode()).hexdigest()}
