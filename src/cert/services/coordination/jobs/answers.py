"""Paid answers of jobs, sealed."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from cert.coordination.store.databases import Database
from cert.coordination.store.records import Call, Lease, Record
from cert.coordination.store.schema import RECORDS
from cert.coordination.store.sql import SqlStore
from cert.services.sealed.cipher import Cipher
from cert.services.sealed.resealing import Column, Resealed, reseal

__all__ = ["SealedStore"]


class SealedStore(SqlStore):
    """A `SqlStore` whose answers only the holder of the key can read.

    Args:
        store: a path, or the URL of a database.
        cipher: seals the answers.
        database: that several stores of the same place share, and that stays its maker's to close: each job
            has a store, and a PostgreSQL gives out a hundred connections by default.
        **options: as of `SqlStore`.
    """

    def __init__(
        self, store: str, cipher: Cipher, *, database: Database | None = None, **options: Any
    ) -> None:
        super().__init__(store, **options)
        self._cipher = cipher
        self._is_shared = database is not None
        if database is not None:
            self._database = database

    async def _find(self, key: str) -> Record | None:
        found = await super()._find(key)
        return None if found is None else self._opened(found)

    async def _claim(self, call: Call) -> Record | Lease | None:
        found = await super()._claim(call)
        return self._opened(found) if isinstance(found, Record) else found

    async def _record(self, lease: Lease, record: Record) -> Record:
        sealed = base64.b64encode(self._cipher.seal(record.value.encode(), _place(record))).decode()
        return self._opened(await super()._record(lease, replace(record, value=sealed)))

    async def reseal(self) -> Resealed:
        """Seal every answer anew that an earlier key sealed; see `cert.services.sealed.resealing.reseal`.

        Raises:
            StoreError: the database cannot be used.
        """
        return await self._told(reseal(self._database, self._cipher, _SEALED))

    async def _close(self) -> None:
        if not self._is_shared:
            await super()._close()

    def _opened(self, record: Record) -> Record:
        try:
            sealed = base64.b64decode(record.value, validate=True)
        except ValueError:
            sealed = b""  # which does not open, and says so
        return replace(record, value=self._cipher.open(sealed, _place(record)).decode())


def _place(record: Record) -> str:
    return f"answer:{record.scope}:{record.key}"


_SEALED = Column(RECORDS.c.value, lambda row: f"answer:{row['scope']}:{row['key']}", (RECORDS.c.scope,))
