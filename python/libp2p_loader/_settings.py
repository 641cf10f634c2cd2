"""The settings of a node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterable, Optional, Union

Text = Union[str, "os.PathLike[str]"]


def default_cache_dir() -> Path:
    """The cache of the command line: `$XDG_CACHE_HOME/loader`, or `~/.cache/loader`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "loader"


def settings(
    *,
    cache_dir: Optional[Text] = None,
    blob_dir: Optional[Text] = None,
    blob_dir_bytes: int = 64 << 30,
    peers: Iterable[str] = (),
    bootstrap: Iterable[str] = (),
    listen: Iterable[str] = (),
    allow_peers: Iterable[str] = (),
    mdns: bool = True,
    psk_file: Optional[Text] = None,
    upload_limit: Optional[int] = None,
    download_limit: Optional[int] = None,
    contract: Optional[str] = None,
    rpc_urls: Iterable[str] = (),
    quorum: Optional[int] = None,
    chain_id: Optional[int] = None,
    block_tag: Optional[str] = None,
    poll_interval: Optional[float] = None,
    allow_stale: Optional[float] = None,
    offline: bool = False,
    wait: float = 30.0,
    memory: Optional[int] = None,
    durable: bool = True,
) -> dict[str, Any]:
    """Checked by the core."""
    return {
        "cache_dir": os.fspath(default_cache_dir() if cache_dir is None else cache_dir),
        "blob_dir": None if blob_dir is None else os.path.expanduser(blob_dir),
        "blob_dir_bytes": blob_dir_bytes,
        "peers": listed(peers),
        "bootstrap": listed(bootstrap),
        "listen": listed(listen),
        "allow_peers": listed(allow_peers),
        "mdns": mdns,
        "psk_file": None if psk_file is None else os.fspath(psk_file),
        "upload_limit": upload_limit,
        "download_limit": download_limit,
        "contract": contract,
        "rpc_urls": listed(rpc_urls),
        "quorum": quorum,
        "chain_id": chain_id,
        "block_tag": block_tag,
        "poll_interval_s": poll_interval,
        "allow_stale_s": allow_stale,
        "offline": offline,
        "wait_s": wait,
        "memory_bytes": memory,
        "durable": durable,
    }


#: One, or several.
Globs = Union[str, Iterable[str]]


def listed(values: Union[str, Iterable[str], None]) -> list[str]:
    """A string where a list is meant is a list of one."""
    if values is None:
        return []
    return [values] if isinstance(values, str) else list(values)
