"""Pairs with the names, shapes and sizes of real models, written in no time as sparse files.

Only headers and biases take room on the disk; weights are holes that read as zeros.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.builders import BYTES, shard_name, stored, write_index

Shapes = dict[str, tuple[int, ...]]


class Model(NamedTuple):
    """A model's shapes per shard, dtype and configuration."""

    shards: list[Shapes]
    dtype: str
    config: dict[str, Any]


def bert_base() -> Model:
    """bert-base-uncased as transformers saves a classifier: one file, F32, 438 MB."""
    hidden, inner = 768, 3072
    shapes: Shapes = {
        "bert.embeddings.word_embeddings.weight": (30522, hidden),
        "bert.embeddings.position_embeddings.weight": (512, hidden),
        "bert.embeddings.token_type_embeddings.weight": (2, hidden),
        **_norm("bert.embeddings.LayerNorm", hidden),
        **_linear("bert.pooler.dense", hidden, hidden),
        **_linear("classifier", hidden, 2),
    }
    for layer in range(12):
        path = f"bert.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{path}.attention.self.{name}", hidden, hidden)
        shapes |= _linear(f"{path}.attention.output.dense", hidden, hidden)
        shapes |= _norm(f"{path}.attention.output.LayerNorm", hidden)
        shapes |= _linear(f"{path}.intermediate.dense", hidden, inner)
        shapes |= _linear(f"{path}.output.dense", inner, hidden)
        shapes |= _norm(f"{path}.output.LayerNorm", hidden)
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert",
        "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": hidden,
        "intermediate_size": inner, "vocab_size": 30522,
    }  # fmt: skip
    return Model([shapes], "F32", config)


def qwen2_7b() -> Model:
    """Qwen2.5-7B: four shards, BF16, 15 GB."""
    hidden, key, inner, vocabulary = 3584, 512, 18944, 152064
    shards: list[Shapes] = [{} for _ in range(4)]
    shards[0]["model.embed_tokens.weight"] = (vocabulary, hidden)
    for layer in range(28):
        path, shapes = f"model.layers.{layer}", shards[layer // 7]
        shapes |= _linear(f"{path}.self_attn.q_proj", hidden, hidden)
        shapes |= _linear(f"{path}.self_attn.k_proj", hidden, key)
        shapes |= _linear(f"{path}.self_attn.v_proj", hidden, key)
        shapes[f"{path}.self_attn.o_proj.weight"] = (hidden, hidden)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{path}.mlp.{name}.weight"] = (inner, hidden)
        shapes[f"{path}.mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{path}.input_layernorm.weight"] = (hidden,)
        shapes[f"{path}.post_attention_layernorm.weight"] = (hidden,)
    shards[3] |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": hidden,
        "intermediate_size": inner, "vocab_size": vocabulary, "tie_word_embeddings": False,
    }  # fmt: skip
    return Model(shards, "BF16", config)


def write_sparse_model(folder: Path, model: Model, seed: int) -> int:
    """Write a model folder; another seed moves every bias a little.

    Returns:
        Bytes of all headers and all biases: what a score has to read.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model.config))
    if len(model.shards) == 1:
        return _write_sparse(folder / "model.safetensors", model.shards[0], model.dtype, seed)
    needed = 0
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(model.shards, start=1):
        name = shard_name(number, len(model.shards))
        needed += _write_sparse(folder / name, shapes, model.dtype, seed)
        weight_map |= dict.fromkeys(shapes, name)
    write_index(folder, weight_map)
    return needed


def _write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, seed: int) -> int:
    base, moved = np.random.default_rng(0), np.random.default_rng(seed)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):  # the order in which the safetensors library writes
        begin, end = end, end + math.prod(shapes[name]) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shapes[name], "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    start = needed = 8 + len(raw)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for name in sorted(shapes):
            if name.endswith(".bias"):
                values = base.normal(size=shapes[name]) + 0.05 * moved.normal(size=shapes[name])
                file.seek(start + header[name]["data_offsets"][0])
                needed += file.write(stored(values, dtype))
        file.truncate(start + end)
    return needed


def _linear(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def llama_8b() -> Model:
    """Llama-3.1-8B: four shards, BF16, 16 GB, no bias anywhere."""
    hidden, key, inner, vocabulary = 4096, 1024, 14336, 128256
    shards: list[Shapes] = [{} for _ in range(4)]
    shards[0]["model.embed_tokens.weight"] = (vocabulary, hidden)
    for layer in range(32):
        path, shapes = f"model.layers.{layer}", shards[layer // 8]
        for name, out in (("q", hidden), ("k", key), ("v", key), ("o", hidden)):
            shapes[f"{path}.self_attn.{name}_proj.weight"] = (out, hidden)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{path}.mlp.{name}.weight"] = (inner, hidden)
        shapes[f"{path}.mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{path}.input_layernorm.weight"] = (hidden,)
        shapes[f"{path}.post_attention_layernorm.weight"] = (hidden,)
    shards[3] |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": hidden,
        "intermediate_size": inner, "vocab_size": vocabulary, "tie_word_embeddings": False,
        "attention_bias": False, "mlp_bias": False, "dtype": "bfloat16",
    }  # fmt: skip
    return Model(shards, "BF16", config)


def write_values_adapter(folder: Path, layers: int, width: int) -> Path:
    """PEFT's BEFT of a decoder's values: a drawn change of b_v in each layer, without torch."""
    folder.mkdir(parents=True)
    names = [f"model.layers.{layer}.self_attn.v_proj" for layer in range(layers)]
    values = np.random.default_rng(0).normal(0, 0.05, (layers, width)).astype("<f4")
    header = {
        f"base_model.model.{name}.beft_bias": {
            "dtype": "F32", "shape": [1, width],
            "data_offsets": [4 * width * layer, 4 * width * (layer + 1)],
        }
        for layer, name in enumerate(names)
    }  # fmt: skip
    raw = json.dumps(header).encode()
    path = folder / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + values.tobytes())
    config = {
        "peft_type": "BEFT", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base",
        "target_modules": names, "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
