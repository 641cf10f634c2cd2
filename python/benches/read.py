"""Bytes of a cached model into memory of the caller, as they are and with every piece hashed on its way: `read.py --loader LOADER`.

In turn, in one process, from the page cache, 256 MiB at a time, on one thread and on all. Prints Markdown.
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
from libp2p_loader._files import threads

BUFFER_BYTES = 256 << 20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--loader", required=True)
    options.add_argument("--size-mib", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=5)
    options = options.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="loader-read-"))
    try:
        source = work / "weights.bin"
        with open(source, "wb") as file:
            for _ in range(options.size_mib):
                file.write(os.urandom(1 << 20))
        publish = [options.loader, "--json", "publish", "--model-kind", "simplenet", "--cache-dir", work / "cache", source]
        digest = json.loads(subprocess.run(publish, check=True, stdout=subprocess.PIPE).stdout)["manifest"]
        model = libp2p_loader.load(digest, cache_dir=work / "cache", mdns=False)
        out = np.ones(min(BUFFER_BYTES, source.stat().st_size), np.uint8)

        def read(count: int, verify: bool) -> float:
            began, done = time.perf_counter(), 0
            while done + len(out) <= model.files["weights.bin"].size:
                model._core.read("weights.bin", done, out, count, verify)
                done += len(out)
            return done / (time.perf_counter() - began) / 1e9

        cases = [(count, verify) for count in sorted({1, threads()}) for verify in (False, True)]
        speeds: dict[tuple[int, bool], list[float]] = {case: [] for case in cases}
        for round_ in range(options.rounds + 1):
            for case in cases:
                speed = read(*case)
                if round_ > 0:
                    speeds[case].append(speed)
        print(f"{options.size_mib} MiB in the page cache, {options.rounds} rounds after one that warms up; medians.\n")
        print("| threads | as it is, GB/s | hashed, GB/s | ratio |\n|---|---|---|---|")
        for count in sorted({1, threads()}):
            plain, hashed = speeds[count, False], speeds[count, True]
            ratio = statistics.median(hashed) / statistics.median(plain)
            cell = lambda found: f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"
            print(f"| {count} | {cell(plain)} | {cell(hashed)} | {ratio:.2f} |")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
