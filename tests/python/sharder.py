#!/usr/bin/env python3
"""Writes what the network's own sharder writes of a model: its blobs, named `<digest>.shard`, and its list as JSON.

Its field names and its mistakes: the total counts parity, `data_shards` counts layers while parity is made of ten rows, and
parity is an exclusive or of some of them. usage: sharder.py layer_wise|replica DIR LIST
"""

import hashlib
import json
import math
import pathlib
import sys

ROWS, PARITY = 10, 4


def store(folder, blob):
    digest = hashlib.sha256(blob).hexdigest()
    (folder / f"{digest}.shard").write_bytes(blob)
    return digest


def entry(index, digest, size, is_parity, name, shape=None, dtype=None):
    return {
        "shard_index": index,
        "shard_hash": digest,
        "cid": digest,
        "size": size,
        "is_parity": is_parity,
        "layer_name": name,
        "shape": shape,
        "dtype": dtype,
    }


def parity_of(data):
    size = math.ceil(len(data) / ROWS)
    rows = [data[i * size : (i + 1) * size].ljust(size, b"\0") for i in range(ROWS)]
    for number in range(PARITY):
        parity = bytearray(size)
        for index, row in enumerate(rows):
            if (index + number) % PARITY == 0:
                parity = bytearray(a ^ b for a, b in zip(parity, row))
        yield bytes(parity)


def main():
    strategy, folder, path = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    # Of any sizes; the last two are equal.
    layers = {
        f"encoder.layer.{i}.weight": bytes((i * 31 + j * j) % 251 for j in range(size))
        for i, size in enumerate([70_000, 1, 200_000, 65_536, 999])
    }
    layers["head.weight"] = layers["head.bias"] = b"the same" * 1000
    if strategy == "replica":
        layers = {"full_model": b"".join(layers.values())}
    shards, total = [], 0
    for name, blob in layers.items():
        shards.append(entry(len(shards), store(folder, blob), len(blob), False, name, [len(blob)], "uint8"))
        total += len(blob)
    parity = 0
    if strategy == "layer_wise":
        parity = PARITY
        for number, blob in enumerate(parity_of(b"".join(layers.values()))):
            shards.append(entry(len(shards), store(folder, blob), len(blob), True, f"parity_{number}"))
            total += len(blob)
    path.write_text(
        json.dumps(
            {
                "model_hash": hashlib.sha256(b"".join(layers.values())).hexdigest(),
                "merkle_root": "00" * 32,
                "total_shards": len(shards),
                "data_shards": len(layers),
                "parity_shards": parity,
                "total_size": total,
                "strategy": strategy,
                "shards": shards,
                "layer_map": {},
            }
        )
    )
    # What the weights are.
    path.with_suffix(".weights").write_bytes(b"".join(layers.values()))


main()
