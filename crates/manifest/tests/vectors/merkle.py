#!/usr/bin/env python3
"""Merkle roots and proofs for 1 to 20 leaves, computed without any of our code: writes merkle.json to stdout.

Leaf i is sha256 of the text "leaf i"; the tree is that of docs/manifest.md, "Merkle root".
"""

import hashlib
import json


def sha256(data):
    return hashlib.sha256(data).digest()


def levels(leaves):
    width = 1
    while width < len(leaves):
        width *= 2
    level = leaves + [bytes(32)] * (width - len(leaves))
    yield level
    while len(level) > 1:
        level = [sha256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        yield level


def tree(count):
    leaves = [sha256(b"leaf %d" % i) for i in range(count)]
    *below, top = levels(leaves)
    proofs = [[level[(i >> depth) ^ 1].hex() for depth, level in enumerate(below)] for i in range(count)]
    return {"leaves": [leaf.hex() for leaf in leaves], "root": top[0].hex(), "proofs": proofs}


print(json.dumps([tree(count) for count in range(1, 21)], indent=1))
