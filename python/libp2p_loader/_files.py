"""Files of a model, mapped."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any


class Mapping(mmap.mmap):
    """A map of a file of a model: while it lives, the model is not removed from its cache."""

    model: Any


def mapped(path: os.PathLike[str], model: Any, access: int) -> memoryview:
    """The bytes of a file, without a copy.

    `access` is `mmap.ACCESS_READ`, or `mmap.ACCESS_COPY`: then they can be written to, which changes pages of this
    process only.
    """
    if os.stat(path).st_size == 0:
        return memoryview(b"") if access == mmap.ACCESS_READ else memoryview(bytearray())
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mapping = Mapping(descriptor, 0, access=access)
    finally:
        os.close(descriptor)
    mapping.model = model
    return memoryview(mapping)


def threads() -> int:
    """How many read at once: the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def verified(model: Any, name: str, start: int, size: int) -> Any:
    """A copy of bytes of a file, as a numpy array of which every piece was hashed while it was copied."""
    import numpy as np

    out = np.empty(size, np.uint8)
    model.read(name, start, out, threads(), True)
    return out


class File(os.PathLike):
    """A file of a model. `open(file)` and `memoryview(file.view)` see its bytes; the map is made when it is first used."""

    def __init__(
        self, model: Any, name: str, size: int, sha256: str | None, is_proven: bool, path: str, is_verified: bool
    ) -> None:
        self._model = model
        self._is_verified = is_verified
        self._view: memoryview | None = None
        #: Its path in the model, with slashes.
        self.name = name
        #: In bytes.
        self.size = size
        #: Its SHA-256, in hexadecimal, if the manifest says it.
        self.sha256 = sha256
        #: Whether that was proven by what was verified. What is not proven is what the manifest says of a file whose bytes
        #: were verified as parts of shards.
        self.is_proven = is_proven
        #: Where it is in the file system.
        self.path = Path(path)

    @property
    def view(self) -> memoryview:
        """Its bytes, read-only, without a copy; with `verify="load"` a copy that was hashed."""
        if self._view is None and self._is_verified:
            self._view = memoryview(verified(self._model, self.name, 0, self.size)).toreadonly()
        elif self._view is None:
            self._view = mapped(self.path, self._model, mmap.ACCESS_READ)
        return self._view

    def __buffer__(self, flags: int) -> memoryview:  # from Python 3.12 on
        return memoryview(self.view)

    def __len__(self) -> int:
        return self.size

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<File {self.name!r}, {self.size} bytes>"
