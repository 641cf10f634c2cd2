"""Loading a model in one call."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Iterable, Optional, Union

from ._core import BadUsage
from ._model import Model
from ._node import Node
from ._progress import ProgressLike
from ._stream import TensorStream
from ._waiting import in_thread


def load(
    manifest: Optional[str] = None,
    *,
    files: Union[str, Iterable[str]] = (),
    exclude: Union[str, Iterable[str]] = (),
    progress: ProgressLike = False,
    verify: Optional[str] = None,
    **settings: Any,
) -> Model:
    """Loads a model: maps it when it is in the cache, else fetches it from peers first, verifying every byte.

    `manifest` is the digest of its manifest (64 hexadecimal characters, or the beginning of one in the cache); without it
    `contract` and `rpc_urls` say where it is named. `files` and `exclude` are globs of the files that are wanted. With
    `progress=True` a bar is shown, and a function is called with a `Progress` ten times a second at most. The other
    arguments are those of `Node`.

    `verify="load"`: what `tensors()` and `files[…].view` give are copies, of which every piece is hashed against the manifest while it
    is copied: a bit that rots on the disk, or somebody who writes to it, is found (`Integrity`).

    Ctrl-C ends it within a second, and the next call goes on from what was verified.
    """
    require_name(manifest, settings)
    with Node(**settings) as node:
        return node.load(manifest, files=files, exclude=exclude, progress=progress, verify=verify)


async def load_async(
    manifest: Optional[str] = None,
    *,
    files: Union[str, Iterable[str]] = (),
    exclude: Union[str, Iterable[str]] = (),
    progress: ProgressLike = False,
    verify: Optional[str] = None,
    **settings: Any,
) -> Model:
    """`load` for asyncio. Cancelling the task ends it; the next call goes on from what was verified."""
    require_name(manifest, settings)
    async with await in_thread(lambda _: Node(**settings)) as node:
        return await node.load_async(manifest, files=files, exclude=exclude, progress=progress, verify=verify)


def stream(
    manifest: Optional[str] = None,
    *,
    names: Union[str, Iterable[str]] = (),
    dim0: Optional[tuple[int, int]] = None,
    framework: str = "np",
    device: Any = None,
    verify: bool = False,
    progress: ProgressLike = False,
    **settings: Any,
) -> TensorStream:
    """Loads a model, and hands out its tensors while it arrives: `for name, tensor in stream(…)`.

    The arguments are those of `Node.stream` and of `Node`. The node runs until the last tensor, or `close()`.
    """
    require_name(manifest, settings)
    with ExitStack() as at_end:
        node = at_end.enter_context(Node(**settings))
        return node._stream(manifest, names, dim0, framework, device, verify, progress, at_end.pop_all())


def require_name(manifest: Optional[str], settings: dict[str, Any]) -> None:
    if manifest is None and settings.get("contract") is None:
        raise BadUsage("which model? Give manifest=… (a digest), or contract=… and rpc_urls=[…]")
