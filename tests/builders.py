"""Checkpoints for tests: real families' names, odd small widths, random values, written by hand.

Nothing here uses the code under test, nor the safetensors library: a damaged file is a valid one
with one thing changed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[np.float64]]
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
LAYERS, WIDTH, KV_WIDTH, MLP_WIDTH, HEADS = 2, 6, 4, 10, 2

_BERT = {
    "attention.self.query": WIDTH, "attention.self.key": WIDTH, "attention.self.value": WIDTH,
    "attention.output.dense": WIDTH, "attention.output.LayerNorm": WIDTH,
    "intermediate.dense": MLP_WIDTH, "output.dense": WIDTH, "output.LayerNorm": WIDTH,
}  # fmt: skip
_OPT = {
    "self_attn.q_proj": WIDTH, "self_attn.k_proj": WIDTH, "self_attn.v_proj": WIDTH,
    "self_attn.out_proj": WIDTH, "self_attn_layer_norm": WIDTH, "fc1": MLP_WIDTH, "fc2": WIDTH,
    "final_layer_norm": WIDTH,
}  # fmt: skip
_GPT2 = {
    "attn.c_attn": 3 * WIDTH, "attn.c_proj": WIDTH, "mlp.c_fc": MLP_WIDTH, "mlp.c_proj": WIDTH,
    "ln_1": WIDTH, "ln_2": WIDTH,
}  # fmt: skip
_QWEN2 = {
    "self_attn.q_proj": WIDTH, "self_attn.k_proj": KV_WIDTH, "self_attn.v_proj": KV_WIDTH,
}  # fmt: skip
#: family -> (path of the layers, module -> width of its bias)
FAMILIES: dict[str, tuple[str, dict[str, int]]] = {
    "bert": ("bert.encoder.layer", _BERT),
    "opt": ("model.decoder.layers", _OPT),
    "gpt2": ("transformer.h", _GPT2),
    "qwen2": ("model.layers", _QWEN2),
}


def config(family: str, **changes: Any) -> dict[str, Any]:
    """The part of a family's ``config.json`` that beftkit reads."""
    heads = {"n_head": HEADS} if family == "gpt2" else {"num_attention_heads": HEADS}
    kv_heads = {"num_key_value_heads": 1} if family == "qwen2" else {}
    return {"model_type": family, **heads, **kv_heads, **changes}


def model(family: str, seed: int = 0) -> Tensors:
    """Every bias of a small model, and one weight a layer that no score may read."""
    rng = np.random.default_rng(seed)
    path, modules = FAMILIES[family]
    tensors: Tensors = {f"{path}.embeddings.weight": rng.normal(size=(7, WIDTH))}
    for layer in range(LAYERS):
        for module, width in modules.items():
            tensors[f"{path}.{layer}.{module}.bias"] = rng.normal(size=width)
        first = next(iter(modules))
        tensors[f"{path}.{layer}.{first}.weight"] = rng.normal(size=(WIDTH, modules[first]))
    return tensors


def stored(values: npt.NDArray[np.float64], dtype: str) -> bytes:
    """Values as little-endian bytes; BF16 is the upper half of a float32, cut off."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(f"<f{BYTES[dtype]}").tobytes()


def layout(tensors: Mapping[str, npt.NDArray[Any]], dtype: str = "F32") -> dict[str, Any]:
    """The header of a file that holds these tensors one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in tensors.items():
        begin, end = end, end + values.size * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [begin, end]}
    return header


def write_raw(path: Path, header: Mapping[str, Any] | bytes, data: bytes = b"") -> Path:
    """Write length, header and data as given, right or wrong."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def write_file(path: Path, tensors: Tensors, dtype: str = "F32") -> Path:
    """Write a valid file."""
    data = b"".join(stored(values, dtype) for values in tensors.values())
    return write_raw(path, layout(tensors, dtype), data)


def write_model(
    folder: Path, family: str = "bert", seed: int = 0, dtype: str = "F32", shards: int = 1
) -> Path:
    """Write a model folder: weights (sharded with an index if asked) and ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(family)))
    tensors = model(family, seed)
    if shards == 1:
        write_file(folder / "model.safetensors", tensors, dtype)
    else:
        write_shards(folder, tensors, shards, dtype)
    return folder


def write_shards(folder: Path, tensors: Tensors, count: int, dtype: str = "F32") -> Path:
    """Deal tensors out to shards and write the index, whose path is returned."""
    weight_map: dict[str, str] = {}
    for number in range(count):
        shard = shard_name(number + 1, count)
        part = dict(list(tensors.items())[number::count])
        write_file(folder / shard, part, dtype)
        weight_map |= dict.fromkeys(part, shard)
    return write_index(folder, weight_map)


def shard_name(number: int, count: int) -> str:
    """A shard's file name as transformers writes it; numbers count from 1."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def write_index(folder: Path, weight_map: Any) -> Path:
    """Write an index that says this."""
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path
