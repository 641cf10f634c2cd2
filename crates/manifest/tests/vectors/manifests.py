#!/usr/bin/env python3
"""Manifests as a producer in Python writes them, one per line, made without any of our code."""

import hashlib
import json


def digest(data):
    return hashlib.sha256(data).hexdigest()


def merkle_root(digests):
    level = [bytes.fromhex(text) for text in digests]
    while len(level) & (len(level) - 1):
        level.append(bytes(32))
    while len(level) > 1:
        level = [hashlib.sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0].hex()


def manifest(kind, total_size, data_shards, parity_shards, data, codec, pieces=None, files=None):
    blobs = data_shards + parity_shards
    digests = [digest(blob) for blob in blobs]
    value = {
        "version": 1,
        "model_kind": kind,
        "total_size": total_size,
        "shards": [
            {"index": i, "hash": digests[i], "size": len(blob), "is_parity": i >= len(data_shards)}
            for i, blob in enumerate(blobs)
        ],
        "erasure": {"data": data, "parity": len(parity_shards), "codec": codec},
        "merkle_root": merkle_root(digests),
    }
    if pieces is not None:
        value["pieces"] = {"size": pieces, "index": digest(b"index")}
    if files is not None:
        value["files"] = [
            {"path": path, "size": len(content), "sha256": digest(content)} for path, content in files
        ]
    print(json.dumps(value, sort_keys=True))


ROWS = [b"aaaa", b"bbbb", b"cc\0\0"]
manifest("vl-jepa", 10, ROWS, [b"1111", b"2222"], 3, "rs", pieces=1048576)
manifest("llm-backbone", 10, ROWS, ROWS[:2], 3, "replica")
manifest("simplenet", 10, [b"layer 1", b"two"], [b"1111"], 3, "rs", pieces=64)
manifest("simplenet", 1, [b"x"], [], 1, "rs")
manifest("one row of padding", 4, [b"ab", b"cd", b"\0\0"], [], 3, "rs")
manifest('kind "of" \\ a \x7f\x00\x1f\b\f\n\r\t model/é☃\U0001f600\uffff', 1, [b"x"], [], 1, "rs")
# A folder, file by file: each file that is not empty is a data shard.
manifest(
    "simplenet", 10, [b"layer 1", b"two"], [b"1111"], 3, "rs", pieces=64,
    files=[("a/é☃.txt", b""), ("config.json", b"layer 1"), ("z \"q\".bin", b"two")],
)
# The same bytes as rows.
manifest(
    "simplenet", 10, [b"laye", b"r 1t", b"wo\0\0"], [], 3, "rs",
    files=[("config.json", b"layer 1"), ("z/w.bin", b"two")],
)
