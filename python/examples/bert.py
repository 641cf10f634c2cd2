"""BERT in numpy, for sentence embeddings."""

import math

import numpy as np


def embed(config, weights, tokenizer, sentences) -> np.ndarray:
    """One vector of length one for each sentence: the mean over the tokens of the last layer.

    `config` is that of the model (`config.json`), `weights` its tensors by name, `tokenizer` one of the package `tokenizers`.
    """
    heads = config["num_attention_heads"]
    erf = np.vectorize(math.erf, otypes=[np.float32])

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normalize(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return x * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def split(x):
        return x.reshape(len(x), heads, -1).transpose(1, 0, 2)

    def attend(name, x):
        query, key, value = (split(linear(f"{name}.self.{part}", x)) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ value
        mixed = mixed.transpose(1, 0, 2).reshape(x.shape)
        return normalize(f"{name}.output", linear(f"{name}.output.dense", mixed) + x)

    def layer(name, x):
        x = attend(f"{name}.attention", x)
        inner = linear(f"{name}.intermediate.dense", x)
        inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
        return normalize(f"{name}.output", linear(f"{name}.output.dense", inner) + x)

    embeddings = []
    for sentence in sentences:
        tokens = tokenizer.encode(sentence).ids
        x = weights["embeddings.word_embeddings.weight"][tokens]
        x = x + weights["embeddings.position_embeddings.weight"][: len(tokens)]
        x = normalize("embeddings", x + weights["embeddings.token_type_embeddings.weight"][0])
        for number in range(config["num_hidden_layers"]):
            x = layer(f"encoder.layer.{number}", x)
        mean = x.mean(0)
        embeddings.append(mean / np.linalg.norm(mean))
    return np.array(embeddings)
