"""The MiniLM folder as one GGUF file that llama.cpp runs: `bert_gguf.py FOLDER FILE`.

Names of tensors and keys: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py (architecture `bert`).
"""

import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

# Of the whole model, and of each layer.
NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
OF_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def piece(word: str) -> str:
    """llama.cpp marks where words begin, BERT where they go on."""
    if word.startswith("[") and word.endswith("]"):
        return word
    return word.removeprefix("##") if word.startswith("##") else "\u2581" + word


def make(folder: pathlib.Path, path: pathlib.Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([piece(word) for word in words])
    kinds = [gguf.TokenType.CONTROL if word.startswith("[") and word.endswith("]") else gguf.TokenType.NORMAL for word in words]
    writer.add_token_types(kinds)
    writer.add_token_type_count(config["type_vocab_size"])
    special = {word: words.index(word) for word in ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")}
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_mask_token_id(special["[MASK]"])
    names = dict(NAMES)
    for layer in range(layers):
        names |= {f"encoder.layer.{layer}.{theirs}": f"blk.{layer}.{ours}" for theirs, ours in OF_LAYER.items()}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem, _, end = name.rpartition(".")
        if stem in names:
            writer.add_tensor(f"{names[stem]}.{end}", tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    make(*map(pathlib.Path, sys.argv[1:]))
