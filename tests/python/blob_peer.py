"""A peer of the existing network: serves and fetches blobs over /autonet/blob/1.0.0 with py-libp2p.

    blob_peer.py serve DIR                    serves the files of DIR, each named by its digest; prints its multiaddr
    blob_peer.py fetch MULTIADDR DIGEST FILE  fetches one blob, checks it, writes it; exit status 4: not found

It frames like the existing nodes do: a header is read with one read of four bytes, a request is one write.
"""

import argparse
import hashlib
import pathlib
import re
import sys

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr

PROTOCOL = TProtocol("/autonet/blob/1.0.0")
CHUNK_BYTES = 64 * 1024
FETCH_TIMEOUT_S = 60


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


async def fetch(address: str, digest: str, file: pathlib.Path) -> int:
    host = new_host(key_pair=create_new_key_pair())
    async with host.run(listen_addrs=[]):
        with trio.fail_after(FETCH_TIMEOUT_S):
            peer = info_from_p2p_addr(multiaddr.Multiaddr(address))
            await host.connect(peer)
            stream = await host.new_stream(peer.peer_id, [PROTOCOL])
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
    command = commands.add_parser("fetch")
    command.add_argument("address")
    command.add_argument("digest")
    command.add_argument("file", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "serve":
        trio.run(serve, arguments.directory)
        return 0
    return trio.run(fetch, arguments.address, arguments.digest, arguments.file)


if __name__ == "__main__":
    sys.exit(main())
