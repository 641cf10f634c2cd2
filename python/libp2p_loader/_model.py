"""A model that is mapped."""

from __future__ import annotations

import json
import mmap
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, Iterator, Mapping

from . import _core
from ._core import BadUsage
from ._device import on_device, streamed
from ._dtypes import numpy_dtype, torch_dtype, typed
from ._files import File, mapped, verified
from ._settings import Globs, listed

FRAMEWORKS = ("np", "pt")


class Model:
    """A model in the cache, verified. While it, or an array of it, lives, the model is not removed from there.

    It can be pickled to another process on this machine, which maps the same files, and survives a fork.
    """

    def __init__(self, core: _core.Model, is_verified: bool = False) -> None:
        self._core = core
        self._is_verified = is_verified
        self._files: Mapping[str, File] | None = None
        #: The digest of its manifest: 64 hexadecimal characters.
        self.digest: str = core.digest
        #: What a runtime opens: a folder, or the file of a model of one file.
        self.path: Path = Path(core.path)
        #: Whether all of its files are here.
        self.is_complete: bool = core.is_complete

    @property
    def report(self) -> dict[str, Any]:
        """What loading it did: `from_cache`; `fetched_bytes`, `resumed_bytes`, `reused_bytes`, `rebuilt_bytes`; `sources`."""
        return json.loads(self._core.report)

    @property
    def files(self) -> Mapping[str, File]:
        """The files that are here, by their paths in the model, in its order."""
        if self._files is None:
            several = self.path.is_dir()
            files = {}
            for name, size, sha256, is_proven in self._core.files():
                path = self.path.joinpath(name) if several else self.path
                files[name] = File(self._core, name, size, sha256, is_proven, str(path), self._is_verified)
            self._files = MappingProxyType(files)
        return self._files

    def tensors(
        self, framework: str = "np", folder: str = "", *, verify: bool | None = None, device: Any = None
    ) -> Mapping[str, Any]:
        """The tensors of the safetensors files in a folder of the model, by name, without a copy.

        `framework="np"` gives numpy arrays over the map of the file, which are read-only; bfloat16 and float8 need the
        package `ml_dtypes`. `framework="pt"` gives torch tensors: torch knows no read-only ones, so they are over a private
        map, and writing to one changes it in this process only. An index in the folder (`model.safetensors.index.json`)
        says which tensors there are. Arrays are made when they are asked for.

        `verify=True` (the default for a model that was loaded with `verify="load"`) copies instead: every piece is hashed
        against the manifest while its bytes are copied out, so that neither the disk, nor whoever wrote to it, is trusted.
        Arrays are the caller's own then. A piece that is not what it was raises `Integrity`, with its name.

        `device`, such as `"cuda:0"`, is for torch: all tensors are read at once, through two pinned buffers that several
        threads fill (hashing, if `verify`), and are views of one tensor for each stretch of a file.
        """
        if framework not in FRAMEWORKS:
            raise BadUsage(f"framework={framework!r}: expected one of {', '.join(map(repr, FRAMEWORKS))}")
        names = {str(file.path): name for name, file in self.files.items()}
        is_verified = self._is_verified if verify is None else verify
        if device is None:
            return Tensors(self._core, framework, folder, names, is_verified)
        if framework != "pt":
            raise BadUsage(f'device={device!r} is for framework="pt"')
        facts = {
            name: (dtype, shape, names[str(path)], start, size)
            for name, dtype, shape, path, start, size in self._core.tensors(folder)
        }
        return on_device(self._core, facts, device, is_verified)

    def stream(
        self,
        names: Globs = (),
        *,
        framework: str = "np",
        device: Any = None,
        folder: str = "",
        verify: bool | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """The tensors of a folder of the model, one after the other, in the order of the files: of those whose names, or globs,
        are given, else all. `device` and `verify` are as in `tensors`. One that is still being fetched: `Node.stream`."""
        tensors: Any = self.tensors(framework, folder, verify=verify)
        paths = {str(file.path): (number, name) for number, (name, file) in enumerate(self.files.items())}
        facts = {
            name: (*typed(dtype, shape, size), paths[str(path)], start, size)
            for name, dtype, shape, path, start, size in self._core.tensors(folder)
        }
        patterns = listed(names)
        unknown = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in facts)]
        if unknown:
            raise BadUsage(f"the model has no tensor {unknown[0]!r} in {folder or 'its folder'}")
        if device is not None and framework != "pt":
            raise BadUsage(f'device={device!r} is for framework="pt"')
        is_wanted = lambda name: not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)  # noqa: E731
        wanted = {name: fact for name, fact in facts.items() if is_wanted(name)}
        order = sorted(wanted, key=lambda name: (wanted[name][2], wanted[name][3]))
        if device is None:
            return ((name, tensor_of(tensors.bytes(name), *wanted[name][:2], framework)) for name in order)
        is_verified = self._is_verified if verify is None else verify
        return streamed(self._core, [(name, wanted[name]) for name in order], device, is_verified)

    def advise(self, pages: str) -> None:
        """Says how the pages are wanted: `"lazy"`, `"prefetched"` (read soon) or `"populated"` (read now)."""
        self._core.advise(pages)

    def __reduce__(self) -> Any:
        if not self.is_complete:
            raise BadUsage("only some files of this model are here: give its path to the other process")
        return reopened, (str(self._core.cache_dir), self.digest, self._is_verified)

    def __repr__(self) -> str:
        return f"<Model {self.digest[:12]}… at {self.path}>"


class Tensors(Mapping[str, Any]):
    """Tensors by their names: each is an array over the map of its file."""

    def __init__(
        self, core: _core.Model, framework: str, folder: str, names: Mapping[str, str], is_verified: bool
    ) -> None:
        self._core = core
        self._names = names
        self._is_verified = is_verified
        self._framework = framework
        self._facts = {name: facts for name, *facts in core.tensors(folder)}
        self._views: dict[str, memoryview] = {}

    def __getitem__(self, name: str) -> Any:
        dtype, shape, *_ = self._facts[name]
        return tensor_of(self.bytes(name), dtype, shape, self._framework)

    def bytes(self, name: str) -> memoryview:
        """The bytes of a tensor: little-endian elements, the last dimension innermost."""
        _, _, path, start, size = self._facts[name]
        key = str(path)
        if self._is_verified:
            return memoryview(verified(self._core, self._names[key], start, size))
        if key not in self._views:
            access = mmap.ACCESS_READ if self._framework == "np" else mmap.ACCESS_COPY
            self._views[key] = mapped(path, self._core, access)
        return self._views[key][start : start + size]

    def dtype(self, name: str) -> str:
        """The type of its elements, as safetensors calls it, such as `"BF16"`."""
        return self._facts[name][0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Its lengths, the outermost first; none for a scalar."""
        return tuple(self._facts[name][1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return f"<{len(self)} tensors>"


def tensor_of(view: Any, dtype: str, shape: Any, framework: str) -> Any:
    """Elements in a buffer, as an array of a framework."""
    if framework == "np":
        import numpy as np

        return np.frombuffer(view, dtype=numpy_dtype(dtype)).reshape(shape)
    import torch

    kind = torch_dtype(dtype)
    if len(view) == 0:
        return torch.empty(tuple(shape), dtype=kind)
    return torch.frombuffer(view, dtype=kind).reshape(tuple(shape))


def reopened(cache_dir: str, digest: str, is_verified: bool) -> Model:
    """The model that was pickled, mapped in this process."""
    core = _core.open_model(cache_dir, digest)
    if core is None:
        raise _core.LoaderError(f"the model {digest} is not in the cache {cache_dir} any more")
    return Model(core, is_verified)
