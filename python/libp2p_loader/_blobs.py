"""A node in the place of the existing nodes' blob store and resolver."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Optional, Union

from . import _core

logger = logging.getLogger("libp2p_loader")


class BlobStore:
    """The blobs of a node, with the methods of the existing nodes' `BlobStore` and of their resolvers.

    Blobs are named by the SHA-256 of their bytes, in hexadecimal. Calls block, and may come from any thread; under trio or
    asyncio they belong into `to_thread`. What is put is served to peers at once. What is not here is asked of peers, checked,
    and kept; `None` means that nobody has it, or not in time. A blob that is larger than the store's limit raises `BadUsage`.
    """

    def __init__(self, core: _core.BlobStore) -> None:
        self._core = core

    def put(self, blob: bytes) -> str:
        """Keeps a blob; its digest."""
        return self._core.put(bytes(blob))

    def get(self, cid: str) -> Optional[bytes]:
        """A blob, from here or from a peer."""
        return self._core.get(cid, False)

    def has(self, content_hash: str) -> bool:
        """Whether a blob is here; no peer is asked."""
        return self._core.has(content_hash)

    def __len__(self) -> int:
        return len(self._core.list())

    def __bool__(self) -> bool:
        """A store without blobs is a store: callers ask `if store`."""
        return True

    def add_bytes(self, data: bytes) -> Optional[str]:
        """`put`."""
        return self.put(data)

    def add_json(self, data: dict[str, Any]) -> Optional[str]:
        """Keeps it as JSON with sorted keys, which the existing nodes write, too: the same value has the same digest."""
        return self.put(json.dumps(data, sort_keys=True).encode("utf-8"))

    def add_file(self, filepath: Union[str, os.PathLike[str]]) -> Optional[str]:
        """Keeps the bytes of a file; `None` when there is none."""
        try:
            data = Path(filepath).read_bytes()
        except FileNotFoundError:
            logger.error("there is no file %s", filepath)
            return None
        return self.put(data)

    def get_bytes(self, content_hash: str) -> Optional[bytes]:
        """`get`."""
        return self.get(content_hash)

    def get_bytes_local(self, content_hash: str) -> Optional[bytes]:
        """A blob that is here; no peer is asked."""
        return self._core.get(content_hash, True)

    def get_json(self, content_hash: str) -> Optional[Any]:
        """A blob that is JSON; `None` also when it is not."""
        data = self.get(content_hash)
        if data is None:
            return None
        try:
            return json.loads(data)
        except ValueError:
            logger.error("the blob %s is not JSON", content_hash)
            return None

    def compute_hash(self, data: bytes) -> str:
        """The digest, without keeping anything."""
        return hashlib.sha256(data).hexdigest()

    compute_cid = compute_hash

    def list_hashes(self) -> list[str]:
        """The blobs that were put or fetched."""
        return self._core.list()

    def delete(self, content_hash: str) -> bool:
        """Removes a blob that was put or fetched; whether there was one."""
        return self._core.remove(content_hash)
