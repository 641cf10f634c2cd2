"""A node: loads, serves, and follows a contract."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any, AsyncIterator, Iterable, Iterator, NamedTuple, Optional, Union

from . import _core
from ._blobs import BlobStore
from ._core import BadUsage, LoaderError
from ._model import Model, tensor_of
from ._progress import ProgressLike, told
from ._settings import Globs, listed, settings
from ._stream import TensorStream, framework_for
from ._waiting import in_thread

class Named(NamedTuple):
    """What a contract says of a model."""

    #: The digest of its manifest.
    manifest: str
    #: In the contract's own unit.
    price: int
    chain_id: int
    #: The block in which it was read.
    block_number: int
    block_hash: str
    #: When that block was made, in seconds since 1970.
    block_timestamp: int

    @classmethod
    def of(cls, facts: Any) -> Named:
        manifest, price, *others = facts
        return cls(manifest, int(price), *others)


class NamedModel(NamedTuple):
    """A model that the contract names, and that is loaded."""

    named: Named
    model: Model


class Node:
    """A node of the network: it loads models into a cache, and serves what is there.

    It runs threads of its own until it is closed, by `close` or at the end of `with`. Models that it has loaded stay mapped. To
    start it may take a moment, as it opens the cache: `await asyncio.to_thread(lambda: Node(…))` where that matters.

    - `cache_dir`: where models are kept; default: the cache of the command line, `~/.cache/loader`.
    - `peers`, `bootstrap`: addresses such as `/ip4/192.0.2.7/tcp/4201/p2p/12D3…`; `mdns`: look for peers in the local network.
    - `listen`: addresses where others reach it, such as `/ip4/0.0.0.0/tcp/4201`; default: none, so it serves only those that it
      has connected to. `allow_peers`: ids of the only peers that it talks to. `psk_file`: the key of a private network.
    - `contract`, `rpc_urls`: where the model is named. `quorum`: how many endpoints must agree (default: more than half).
      `chain_id`, `block_tag` (`latest`, `safe`, `finalized`), `poll_interval` (seconds). `allow_stale`: when the chain cannot be
      read, use the model that was last loaded, if it is no older than so many seconds; `offline=True`: do not ask the chain.
    - `blob_dir`: a folder of blobs, each a file named by its SHA-256, that the node writes and serves: see `blob_store`; it takes
      `blob_dir_bytes` bytes, by default 64 GiB.
    - `wait`: how long to look for peers, in seconds. `memory`: the most bytes for pieces under way. `durable=False`: do not wait
      for the disk. `upload_limit`, `download_limit`: bytes a second.
    """

    def __init__(self, **arguments: Any) -> None:
        self._core = _core.Node(settings(**arguments))

    @property
    def peer_id(self) -> str:
        """Its name in the network."""
        return self._core.peer_id

    @property
    def addresses(self) -> list[str]:
        """Where it listens now, each address with its peer id."""
        return self._core.addresses()

    @property
    def status(self) -> dict[str, Any]:
        """What it does now: what `loader status --json` tells."""
        return json.loads(self._core.status())

    def add_peer(self, address: str) -> None:
        """Adds a peer to fetch from, also for loads in progress."""
        self._core.add_peer(address)

    def join(self) -> None:
        """Lets others find this node, as `loader serve` does."""
        self._core.join()

    def named(self) -> Named:
        """What the contract says now."""
        return Named.of(self._core.named())

    def load(
        self,
        manifest: Optional[str] = None,
        *,
        files: Globs = (),
        exclude: Globs = (),
        progress: ProgressLike = False,
        verify: Optional[str] = None,
    ) -> Model:
        """Loads a model, by its digest or the one that the contract names: see `libp2p_loader.load`."""
        return self._load(manifest, files, exclude, progress, verify, None)

    async def load_async(
        self,
        manifest: Optional[str] = None,
        *,
        files: Globs = (),
        exclude: Globs = (),
        progress: ProgressLike = False,
        verify: Optional[str] = None,
    ) -> Model:
        """`load` for asyncio."""
        return await in_thread(lambda cancel: self._load(manifest, files, exclude, progress, verify, cancel))

    def _load(
        self,
        manifest: Optional[str],
        files: Globs,
        exclude: Globs,
        progress: ProgressLike,
        verify: Optional[str],
        cancel: Optional[_core.Cancel],
    ) -> Model:
        if verify not in (None, "load"):
            raise BadUsage(f'verify={verify!r}: expected None or "load"')
        with told(progress) as callback:
            core = self._core.load(manifest, listed(files), listed(exclude), callback, cancel)
        return Model(core, verify == "load")

    def load_tensors(
        self,
        names: Globs,
        manifest: Optional[str] = None,
        *,
        dim0: Optional[tuple[int, int]] = None,
        framework: str = "np",
        progress: ProgressLike = False,
    ) -> dict[str, Any]:
        """Loads tensors into memory, by their names or globs, fetching only the pieces that hold them.

        `dim0=(a, b)`: only the rows `a` up to `b` of the first dimension, which is what one rank needs of a tensor that is
        split by columns of the layer. The arrays are the caller's, and may be written to.
        """
        with told(progress) as callback:
            loaded = self._core.load_tensors(manifest, listed(names), dim0, callback, None)
        return {name: tensor_of(bytes_, dtype, shape, framework) for name, dtype, shape, bytes_ in loaded}

    def stream(
        self,
        manifest: Optional[str] = None,
        *,
        names: Globs = (),
        dim0: Optional[tuple[int, int]] = None,
        framework: str = "np",
        device: Any = None,
        verify: bool = False,
        progress: ProgressLike = False,
    ) -> TensorStream:
        """Loads a model, and hands out its tensors while it arrives: `for name, tensor in node.stream(…)`.

        With `names` (names or globs) or `dim0` only those, as `load_tensors` does, and only the pieces that hold them are
        fetched. `verify=True` hashes every piece again while its bytes are copied out, so that neither the disk nor whoever
        wrote to it meanwhile is trusted. `device`, such as `"cuda:0"`, is for torch, through pinned buffers.
        """
        return self._stream(manifest, names, dim0, framework, device, verify, progress, ExitStack())

    def _stream(
        self,
        manifest: Optional[str],
        names: Globs,
        dim0: Optional[tuple[int, int]],
        framework: str,
        device: Any,
        verify: bool,
        progress: ProgressLike,
        at_end: ExitStack,
    ) -> TensorStream:
        framework_for(framework, device)
        with at_end:
            callback = at_end.enter_context(told(progress))
            core = self._core.stream(manifest, listed(names), dim0, verify, callback)
            return TensorStream(core, framework, device, at_end.pop_all())

    def verify(self, manifest: str) -> None:
        """Hashes a model of the cache again. Raises `Integrity` when it is not right, naming the pieces."""
        found = self._core.verify(manifest)
        if found is None:
            raise LoaderError(f"the model {manifest} is not in the cache")
        is_good, text = found
        if not is_good:
            raise _core.Integrity(f"the model {manifest} is corrupt: {text}")

    def blob_store(self, *, max_bytes: int = 256 << 20, timeout: float = 30.0) -> BlobStore:
        """The node as a store of blobs of at most `max_bytes`, in the folder `blob_dir`; peers are asked for `timeout` seconds."""
        return BlobStore(_core.BlobStore(self._core, max_bytes, timeout))

    def watch(self) -> Iterator[NamedModel]:
        """Each model that the contract names, once it is loaded; the one before stays mapped while it is held.

        Ends when the node is closed. Troubles, such as endpoints that do not answer, go to `logging`, and it goes on.
        """
        watch = self._core.watch()
        while (update := watch.next()) is not None:
            ready = ready_of(update)
            if ready is not None:
                yield ready

    async def watch_async(self) -> AsyncIterator[NamedModel]:
        """`watch` for asyncio."""
        watch = self._core.watch()
        while (update := await in_thread(watch.next)) is not None:
            ready = ready_of(update)
            if ready is not None:
                yield ready

    def close(self) -> None:
        """Ends it, and calls that wait for it; answers to peers that are under way may end first. A second call does nothing."""
        self._core.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    async def __aenter__(self) -> Node:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __reduce__(self) -> Any:
        raise TypeError("a node cannot be pickled: start one in each process, or give models to it")


def ready_of(update: Any) -> Optional[NamedModel]:
    import logging

    named, model, trouble = update
    if model is not None:
        return NamedModel(Named.of(named), Model(model))
    if trouble is not None:
        about = f"{named[0]}: " if named is not None else ""
        logging.getLogger("libp2p_loader").warning("%s%s", about, trouble)
    return None
