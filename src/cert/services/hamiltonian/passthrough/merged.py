"""Several streams of tokens as one, each token with the number of its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from cert.trajectory.streaming import AsyncTrajectoryStream, StreamedToken

__all__ = ["merged"]


async def merged(
    streams: Sequence[AsyncTrajectoryStream],
) -> AsyncGenerator[tuple[int, StreamedToken], None]:
    """Yield tokens as they come, each stream's in its order; none is asked for before the last was taken.

    Raises:
        CertError: as the first stream that fails.
    """
    if len(streams) == 1:
        async for token in streams[0]:
            yield 0, token
        return
    asked = {asyncio.ensure_future(_next(stream)): index for index, stream in enumerate(streams)}
    try:
        while asked:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=asked.__getitem__):
                index = asked.pop(task)
                if (found := task.result()) is not None:
                    asked[asyncio.ensure_future(_next(streams[index]))] = index
                    yield index, found
    finally:
        for task in asked:
            task.cancel()
        if asked:
            await asyncio.wait(asked)


async def _next(stream: AsyncTrajectoryStream) -> StreamedToken | None:
    return await anext(stream, None)
