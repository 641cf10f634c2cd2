"""How far a load is."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, NamedTuple, Optional, Union


class Progress(NamedTuple):
    """How far a load is, in bytes."""

    #: Of what is wanted; 0 before the manifest is known.
    total: int
    #: Came from peers, and is right.
    fetched: int
    #: Was rebuilt from parity.
    rebuilt: int
    #: Was taken from other models in the cache.
    reused: int
    #: An earlier run has left it.
    resumed: int
    #: Came, and was wrong.
    wrong: int
    #: Connected peers.
    sources: int
    #: All is there, and brought to the disk.
    is_finishing: bool

    @property
    def done(self) -> int:
        """What is here, up to `total`."""
        return min(self.total, self.fetched + self.rebuilt + self.reused + self.resumed)


#: `True` is a bar in a terminal or a notebook, a function is called with each change.
ProgressLike = Union[bool, Callable[[Progress], Any]]


@contextlib.contextmanager
def told(progress: ProgressLike) -> Iterator[Optional[Callable[..., Any]]]:
    """What the core calls with the numbers of a load."""
    if progress is False or progress is None:
        yield None
    elif progress is True:
        with bar() as update:
            yield lambda *numbers: update(Progress(*numbers))
    else:
        yield lambda *numbers: progress(Progress(*numbers))


@contextlib.contextmanager
def bar() -> Iterator[Callable[[Progress], None]]:
    from tqdm.auto import tqdm

    with tqdm(desc="loading", unit="B", unit_scale=True, unit_divisor=1024, total=0) as shown:

        def update(now: Progress) -> None:
            shown.total = now.total
            shown.set_postfix_str(f"{now.sources} peers", refresh=False)
            shown.update(now.done - shown.n)

        yield update
