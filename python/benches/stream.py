"""Tensors while their model arrives, beside fetching it first and loading it then: `stream.py --loader LOADER`.

One seeder on this machine with a limit for its uploads, as a line would be. The model is four safetensors files. Each round, each
into an empty cache: fetch it and then copy every tensor out; and stream. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import numpy as np

import libp2p_loader

FILES = 4
TENSOR_BYTES = 32 << 20


def write(path: pathlib.Path, first: int, count: int) -> None:
    entries = {
        f"layer.{first + number}.weight": {
            "dtype": "F16",
            "shape": [TENSOR_BYTES // 8192, 4096],
            "data_offsets": [number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES],
        }
        for number in range(count)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(count):
            file.write(os.urandom(TENSOR_BYTES))


def fetch_then_load(digest: str, settings: dict) -> tuple[float, float]:
    began = time.perf_counter()
    model = libp2p_loader.load(digest, **settings)
    fetched = time.perf_counter()
    for _, tensor in model.stream():
        np.array(tensor)
    return fetched - began, time.perf_counter() - fetched


def stream(digest: str, settings: dict) -> tuple[float, float, float]:
    began = time.perf_counter()
    tensors = libp2p_loader.stream(digest, **settings)
    times = [time.perf_counter() - began for _ in tensors]
    assert tensors.model.is_complete
    return times[0], times[-1], time.perf_counter() - began


def cell(found: list[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--loader", required=True)
    options.add_argument("--size-mib", type=int, default=2048)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--gbit", type=float, nargs="+", default=[1, 4])
    options = options.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="loader-stream-"))
    try:
        folder = work / "model"
        folder.mkdir()
        count = options.size_mib * (1 << 20) // TENSOR_BYTES // FILES
        for number in range(FILES):
            write(folder / f"model-{number + 1:05}-of-{FILES:05}.safetensors", number * count, count)
        publish = [options.loader, "--json", "publish", "--model-kind", "simplenet", "--cache-dir", work / "seeder", folder]
        digest = json.loads(subprocess.run(publish, check=True, stdout=subprocess.PIPE).stdout)["manifest"]
        shutil.rmtree(folder)
        print(f"{FILES * count} tensors of {TENSOR_BYTES >> 20} MiB, {options.rounds} rounds; medians, smallest and largest.\n")
        print("| line, Gbit/s | fetch, s | then load, s | stream: first tensor, s | last tensor, s | × the longer alone | end, s |")
        print("|---|---|---|---|---|---|---|")
        for gbit in options.gbit:
            limit = str(int(gbit * 1e9 / 8))
            serve = [options.loader, "--json", "serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--cache-dir", work / "seeder"]
            seeder = subprocess.Popen([*serve, "--upload-limit", limit], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try:
                peer = json.loads(seeder.stdout.readline())["address"]
                rounds = []
                for _ in range(options.rounds):
                    round_: list[float] = []
                    for way in (fetch_then_load, stream):
                        settings = dict(peers=peer, cache_dir=work / "cache", mdns=False)
                        round_.extend(way(digest, settings))
                        shutil.rmtree(work / "cache")
                    rounds.append(round_)
            finally:
                seeder.terminate()
                seeder.wait()
            fetch, load, first, last, end = (list(column) for column in zip(*rounds))
            ratio = statistics.median(last) / max(statistics.median(fetch), statistics.median(load))
            print(f"| {gbit:g} | {cell(fetch)} | {cell(load)} | {cell(first)} | {cell(last)} | {ratio:.2f} | {cell(end)} |")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
