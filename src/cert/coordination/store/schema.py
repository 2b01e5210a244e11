"""The tables of a store, and their version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from cert.core.errors import StoreUnusableError

__all__ = [
    "ABOUT",
    "LEASES",
    "LOST",
    "MIGRATIONS",
    "RECORDS",
    "SCHEMA_VERSION",
    "Schema",
    "about_table",
    "prepare",
]

SCHEMA_VERSION = 1

_TABLES = sa.MetaData()


def about_table(name: str, tables: sa.MetaData) -> sa.Table:
    """Return the table that says of which version the others are, and whose they are by its name."""
    return sa.Table(
        name,
        tables,
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.String(40), nullable=False),
    )


ABOUT = about_table("cert_store", _TABLES)

RECORDS = sa.Table(
    "cert_answers",
    _TABLES,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("cost_micro_dollars", sa.BigInteger, nullable=False),
    sa.Column("made_at", sa.Double, nullable=False, index=True),
    sa.Column("made_by", sa.String(32), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
)


def _calls(name: str, *more: sa.Column[object]) -> sa.Table:
    return sa.Table(
        name,
        _TABLES,
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("most_micro_dollars", sa.BigInteger),
        sa.Column("started_at", sa.Double, nullable=False),
        *more,
    )


# One call at a time for each answer: the key is the lock.
LEASES = _calls(
    "cert_leases",
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
)
LOST = _calls(
    "cert_lost",
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("why", sa.String(40), nullable=False),
)

# From each earlier version to the next one.
MIGRATIONS: Mapping[int, Callable[[sa.Connection], None]] = {}

# Of PostgreSQL's advisory lock: any number that nobody else uses.
_LOCK = 0x43455254


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """Tables that belong together.

    Attributes:
        tables: all of them.
        about: the one among them that `about_table` made.
        version: of the others.
        migrations: from each earlier version to the next one.
    """

    tables: sa.MetaData
    about: sa.Table
    version: int
    migrations: Mapping[int, Callable[[sa.Connection], None]]

    def prepare(self, connection: sa.Connection, name: str) -> None:
        """Make the tables, or bring those of an earlier version up to date; in a transaction that writes.

        Raises:
            StoreUnusableError: the file is a database of something else, or of a newer version.
        """
        if connection.dialect.name == "postgresql":
            # Two that make the same table at once fail there, IF NOT EXISTS or not.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        there = set(sa.inspect(connection).get_table_names())
        if self.about.name not in there:
            if there and connection.dialect.name == "sqlite":
                raise StoreUnusableError(
                    f"'{name}' is a database of something else",
                    hint="Give the store a file of its own.",
                    context={"store": name, "reason": "foreign"},
                )
            self.tables.create_all(connection)
            connection.execute(self.about.insert(), {"name": "schema_version", "value": str(self.version)})
        self._bring_up_to_date(connection, name)

    def _bring_up_to_date(self, connection: sa.Connection, name: str) -> None:
        is_version = self.about.c.name == "schema_version"
        told = connection.scalar(sa.select(self.about.c.value).where(is_version))
        version = int(told) if told is not None and told.isdecimal() else None
        if version is None or version > self.version:
            raise StoreUnusableError(
                f"'{name}' has tables of version {told}; this program knows them up to {self.version}",
                hint="Use the newer version of cert-framework that made it, or another store.",
                context={"store": name, "reason": "version"},
            )
        for step in range(version, self.version):
            self.migrations[step](connection)
        if version < self.version:
            connection.execute(self.about.update().where(is_version).values(value=str(self.version)))


def prepare(connection: sa.Connection, name: str) -> None:
    """Prepare the tables of a store of answers, as `Schema.prepare`."""
    Schema(_TABLES, ABOUT, SCHEMA_VERSION, MIGRATIONS).prepare(connection, name)
