"""Tensors from the page cache to a GPU: `gpu.py [--size-gib 8] [--rounds 3] [--dir DIR] --loader LOADER`.

Needs the wheel, torch with CUDA, and the `loader` command, which publishes what is measured; compares with safetensors and
fastsafetensors where they are installed. Beside each other, in turn, in one process:

- a copy of as many bytes from pinned memory that is full already: what the bus does;
- `model.tensors("pt", device=…)`, without and with every piece hashed on its way;
- `safetensors.torch.load_file(device=…)`, `torch.frombuffer(map).to(device)`, fastsafetensors without GPU direct storage.

A first round warms everything up: libraries, the page cache, and memory that is pinned. Prints Markdown.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import time

import torch

import libp2p_loader

TENSOR_BYTES = 128 << 20


def make(folder: pathlib.Path, size_bytes: int) -> None:
    """bf16 tensors in one file, that cannot be compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    count = size_bytes // TENSOR_BYTES
    header = {"__metadata__": {"format": "pt"}}
    for number in range(count):
        offsets = [number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES]
        header[f"layer.{number}"] = {"dtype": "BF16", "shape": [TENSOR_BYTES // 2 // 8192, 8192], "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = os.urandom(TENSOR_BYTES)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number in range(count):
            # Another beginning each: no two tensors are equal.
            file.write(number.to_bytes(8, "little") + noise[8:])


def publish(loader: str, folder: pathlib.Path, cache: pathlib.Path) -> str:
    command = [loader, "--json", "publish", "--model-kind", "simplenet", "--cache-dir", str(cache), str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["manifest"]


def contenders(model, device: str) -> dict:
    path = model.files["model.safetensors"].path
    size = sum(model.tensors().shape(name)[0] * 8192 * 2 for name in model.tensors())
    full = torch.ones(256 << 20, dtype=torch.uint8, pin_memory=True)

    def pinned():
        there = torch.empty(size, dtype=torch.uint8, device=device)
        for at in range(0, size, len(full)):
            part = min(len(full), size - at)
            there[at : at + part].copy_(full[:part], non_blocking=True)
        return there

    def frombuffer():
        return {name: tensor.to(device) for name, tensor in model.tensors("pt").items()}

    found = {
        "pinned copy": pinned,
        "loader": lambda: model.tensors("pt", device=device),
        "loader, every piece hashed": lambda: model.tensors("pt", device=device, verify=True),
        "torch.frombuffer(map).to": frombuffer,
    }
    try:
        from safetensors.torch import load_file

        found["safetensors load_file"] = lambda: load_file(path, device=device)
    except ImportError as error:
        print(f"left out: safetensors ({error})", file=sys.stderr)
    try:
        from fastsafetensors import SafeTensorsFileLoader, SingleGroup

        def fast():
            files = SafeTensorsFileLoader(SingleGroup(), torch.device(device), nogds=True)
            files.add_filenames({0: [str(path)]})
            buffer = files.copy_files_to_device()
            return buffer, files, {key: buffer.get_tensor(key) for key in files.get_keys()}

        found["fastsafetensors, nogds"] = fast
    except ImportError as error:
        print(f"left out: fastsafetensors ({error})", file=sys.stderr)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--loader", required=True)
    options.add_argument("--size-gib", type=int, default=8)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("/dev/shm/loader-gpu"))
    options.add_argument("--device", default="cuda:0")
    options = options.parse_args()
    folder, cache = options.dir / "source", options.dir / "cache"
    began = time.monotonic()
    make(folder, options.size_gib << 30)
    print(f"made after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    digest = publish(options.loader, folder, cache)
    os.remove(folder / "model.safetensors")
    model = libp2p_loader.load(digest, cache_dir=cache, mdns=False)
    print(f"published after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    size = sum(file.size for file in model.files.values())
    speeds: dict[str, list[float]] = {}
    runs = contenders(model, options.device)
    for round_ in range(options.rounds + 1):
        for name, run in list(runs.items()):
            torch.cuda.synchronize()
            started = time.perf_counter()
            try:
                there = run()
                torch.cuda.synchronize()
            except Exception as error:  # one that fails does not end the others
                print(f"left out: {name} ({error})", file=sys.stderr, flush=True)
                del runs[name]
                continue
            took = time.perf_counter() - started
            if hasattr(there, "items"):
                # What arrived is what was sent: the first bytes of each tensor are its number.
                for key, tensor in there.items():
                    first = tensor.reshape(-1)[:4].view(torch.uint8)[:8].cpu().numpy().tobytes()
                    assert int.from_bytes(first, "little") == int(key.rsplit(".", 1)[1]), (name, key)
            if isinstance(there, tuple):
                there[0].close()
                there[1].close()
            del there
            gc.collect()
            print(f"round {round_}: {name}: {size / took / 1e9:.1f} GB/s", file=sys.stderr, flush=True)
            if round_ > 0:
                speeds.setdefault(name, []).append(size / took / 1e9)
    floor = statistics.median(speeds["pinned copy"])
    cpus = len(os.sched_getaffinity(0))
    print(f"{torch.cuda.get_device_name(0)}, {cpus} CPUs, torch {torch.__version__}, {options.size_gib} GiB of bf16 in the page cache.")
    print("\n| | GB/s | of a pinned copy |\n|---|---|---|")
    for name, found in speeds.items():
        middle = statistics.median(found)
        print(f"| {name} | {middle:.1f} ({min(found):.1f}–{max(found):.1f}) | {middle / floor:.2f} |")


if __name__ == "__main__":
    main()
