"""The asynchronous twins of calls that wait."""

from __future__ import annotations

import asyncio
from typing import Any, Callable

from . import _core


async def in_thread(call: Callable[[_core.Cancel], Any]) -> Any:
    """Runs a call in a thread. Cancelling the task cancels the call, and waits until it has ended."""
    cancel = _core.Cancel()
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, call, cancel)
    try:
        # Waiting for it, and not for its result: that is not cancelled with the task.
        await asyncio.wait([work])
    except asyncio.CancelledError:
        cancel.cancel()
        await asyncio.wait([work])
        # Its result is of no use any more.
        work.cancelled() or work.exception()
        raise
    return work.result()
