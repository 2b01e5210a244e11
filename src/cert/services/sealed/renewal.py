"""The end of an earlier key: no text is left of it, and the operator hears so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cert.core.errors import ConfigurationError
from cert.observability.logging import get_logger
from cert.services.sealed.database import SealedDatabase
from cert.services.sealed.resealing import Resealed

__all__ = ["renew_seals"]

# A replica that still seals with the earlier key could give it work for ever.
_MOST_PASSES = 5


async def renew_seals(database: SealedDatabase, reseal: Callable[[], Awaitable[Resealed]]) -> None:
    """Seal everything anew that an earlier key sealed, if there is one, and tell when it is done.

    Args:
        database: whose keys they are.
        reseal: does it once to every text.

    Raises:
        StoreError: the database cannot be used; a later call goes on.
    """
    log = get_logger("cert.services.sealed")
    try:
        # Tells the others of our key again, where they have seen no text of it and forgot it.
        await database.prepare()
    except ConfigurationError:
        log.error("seals_of_another_key", setting=database.cipher.setting)
        return
    if len(database.cipher.key_ids) == 1:
        return
    done = Resealed(0, 0)
    for _ in range(_MOST_PASSES):
        last = await reseal()
        done += last
        if last == Resealed(0, 0):
            await database.forget_other_keys()
            break
    told = {"texts": done.texts, "present": database.cipher.key_ids[0]}
    if last == Resealed(0, 0):
        log.info("seals_renewed", unused=list(database.cipher.key_ids[1:]), **told)
    else:
        log.warning("seals_left", left=last.left, **told)
