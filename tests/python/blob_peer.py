"""A peer of the existing network: serves and fetches blobs over /autonet/blob/1.0.0 with py-libp2p.

    blob_peer.py serve DIR                    serves the files of DIR, each named by its digest; prints its multiaddr
    blob_peer.py fetch MULTIADDR DIGEST FILE  fetches one blob, checks it, writes it; exit status 4: not found
    blob_peer.py told MULTIADDR DIGEST FILE   waits until it is told that the blob is there, and fetches it from who has told it
    blob_peer.py odd MULTIADDR DIGEST FILE    tells all kinds of nonsense first, then fetches on the same connection
    blob_peer.py hold MULTIADDR DIR           tells that it has the files of DIR, and serves them; prints a line once it is told

It frames like the existing nodes do: a header is read with one read of four bytes, a request is one write.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import sys

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr

PROTOCOL = TProtocol("/autonet/blob/1.0.0")
CAPABILITY = TProtocol("/autonet/capability/1.0.0")
CHUNK_BYTES = 64 * 1024
FETCH_TIMEOUT_S = 60


@dataclasses.dataclass
class Capability:
    """The fields that the existing nodes' class had first. Later ones have more, each with a default."""

    peer_id: str
    node_id: str
    roles: list
    gpu_type: str
    gpu_memory_mb: int
    bandwidth_mbps: float
    modules_hosted: list
    listen_addrs: list
    timestamp: float


async def read_exactly(stream, length: int) -> bytes:
    parts = []
    while length > 0:
        part = await stream.read(min(length, CHUNK_BYTES))
        if not part:
            raise EOFError(f"the stream ended {length} bytes early")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


async def read_header(stream) -> int:
    header = await stream.read(4)
    if len(header) != 4:
        raise EOFError(f"expected a header of 4 bytes in one read, got {len(header)}")
    return int.from_bytes(header, "big")


async def answer(stream, directory: pathlib.Path) -> None:
    try:
        length = await read_header(stream)
        digest = (await read_exactly(stream, length)).decode()
        path = directory / digest
        found = re.fullmatch("[0-9a-f]{64}", digest) and path.is_file()
        blob = path.read_bytes() if found else b""
        await stream.write(len(blob).to_bytes(4, "big") + blob)
        await stream.close()
    except Exception as error:  # One stream that fails must not end the peer.
        print(f"a stream failed: {error!r}", file=sys.stderr)
        await stream.reset()


async def serve(directory: pathlib.Path) -> None:
    host = new_host(key_pair=create_new_key_pair())
    async with host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):

        async def on_stream(stream):
            await answer(stream, directory)

        host.set_stream_handler(PROTOCOL, on_stream)
        (address, *_) = host.get_addrs()
        print(address, flush=True)
        await trio.sleep_forever()


@contextlib.asynccontextmanager
async def connected(address: str, told=None):
    """A host that has connected to this address, and the peer there. `told` gets what is pushed to it."""
    host = new_host(key_pair=create_new_key_pair())
    async with host.run(listen_addrs=[]):
        if told is not None:

            async def on_stream(stream):
                text = await read_exactly(stream, await read_header(stream))
                await stream.close()
                await told.send(Capability(**json.loads(text)))

            host.set_stream_handler(CAPABILITY, on_stream)
        with trio.fail_after(FETCH_TIMEOUT_S):
            peer = info_from_p2p_addr(multiaddr.Multiaddr(address))
            await host.connect(peer)
            yield host, peer.peer_id


async def push(host, peer: ID, frame: bytes) -> None:
    stream = await host.new_stream(peer, [CAPABILITY])
    try:
        # The header is a write of its own.
        await stream.write(frame[:4])
        for start in range(4, len(frame), CHUNK_BYTES):
            await stream.write(frame[start : start + CHUNK_BYTES])
        await stream.close()
    except Exception as error:
        print(f"it does not want to hear that: {error!r}", file=sys.stderr)


def framed(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


async def tell_nonsense(host, peer: ID) -> None:
    texts = [b"", b"{", b"[]", b"\xff", b'{"modules_hosted": 7}', b'{"modules_hosted": ["blob:x", "", null]}', b"[" * 10_000]
    frames = [framed(text) for text in texts] + [b"", b"\0", b"\xff" * 4, b"\0\0\1\0{", b"\xff" * 2_000_000]
    for frame in frames:
        await push(host, peer, frame)


async def hold(address: str, directory: pathlib.Path) -> None:
    async with connected(address) as (host, peer):

        async def on_stream(stream):
            await answer(stream, directory)

        host.set_stream_handler(PROTOCOL, on_stream)
        modules = [f"blob:{path.name}" for path in directory.iterdir()]
        capability = Capability(str(host.get_id()), "python", [], "", 0, 0.0, modules, [], 0.0)
        fields = {**dataclasses.asdict(capability), "agents": [], "model_state": {}}
        await push(host, peer, framed(json.dumps(fields).encode()))
        print("told", flush=True)
        await trio.sleep_forever()


async def fetch(command: str, address: str, digest: str, file: pathlib.Path) -> int:
    told, heard = trio.open_memory_channel(16)
    async with connected(address, told if command == "told" else None) as (host, peer):
        if command == "odd":
            await tell_nonsense(host, peer)
        if command == "told":
            while True:
                capability = await heard.receive()
                if f"blob:{digest}" in capability.modules_hosted:
                    break
            assert capability.listen_addrs == [address], capability.listen_addrs
            peer = ID.from_base58(capability.peer_id)
        stream = await host.new_stream(peer, [PROTOCOL])
        await stream.write(len(digest).to_bytes(4, "big") + digest.encode())
        blob = await read_exactly(stream, await read_header(stream))
        await stream.close()
    if not blob:
        print(f"{digest} is not there", file=sys.stderr)
        return 4
    found = hashlib.sha256(blob).hexdigest()
    if found != digest:
        print(f"expected {digest}, found {found}", file=sys.stderr)
        return 1
    file.write_bytes(blob)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve")
    command.add_argument("directory", type=pathlib.Path)
    for name in ("fetch", "told", "odd"):
        command = commands.add_parser(name)
        command.add_argument("address")
        command.add_argument("digest")
        command.add_argument("file", type=pathlib.Path)
    command = commands.add_parser("hold")
    command.add_argument("address")
    command.add_argument("directory", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "serve":
        trio.run(serve, arguments.directory)
        return 0
    if arguments.command == "hold":
        trio.run(hold, arguments.address, arguments.directory)
        return 0
    return trio.run(fetch, arguments.command, arguments.address, arguments.digest, arguments.file)


if __name__ == "__main__":
    sys.exit(main())
