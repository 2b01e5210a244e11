"""The tables of jobs: texts are sealed, numbers and states are not."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from cert.coordination.store.schema import Schema, about_table

__all__ = ["ABOUT", "EVENTS", "JOBS", "JOB_SCHEMA", "SPENDING"]

_TABLES = sa.MetaData()
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

ABOUT = about_table("cert_jobs_about", _TABLES)

JOBS = sa.Table(
    "cert_jobs",
    _TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double, index=True),
    # Of the caller's Idempotency-Key and of the request under it, as keyed hashes.
    sa.Column("idempotency", sa.String(64), unique=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("result", sa.LargeBinary),
    sa.Column("report", sa.LargeBinary),
    sa.Column("summary", sa.LargeBinary),
    sa.Column("error", sa.LargeBinary),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("saved_micro_dollars", sa.BigInteger, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    # Who is at work on it: the number of the claim is the fencing token of everything that it writes.
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("deaths", sa.Integer, nullable=False),
)

EVENTS = sa.Table(
    "cert_job_events",
    _TABLES,
    sa.Column("job", sa.String(40), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(20), nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

# Outlives the jobs: what was spent is no text, and budgets are counted from it after a restart.
SPENDING = sa.Table(
    "cert_job_spending",
    _TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("job", sa.String(40), nullable=False, index=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("day", sa.Integer, nullable=False),  # since 1970-01-01, UTC
    sa.Column("micro_dollars", sa.BigInteger, nullable=False),
    sa.Index("cert_job_spending_of", "tenant", "at"),
)

JOB_SCHEMA: Final = Schema(_TABLES, ABOUT, 1, {})
