"""The obvious ways to score biases, each as short as a script one would write: for comparison.

Usage: score_baselines.py automodel|torch|numpy PRE POST. Prints role -> mean projection as JSON.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROLES = {
    "attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
    "attention.output.dense": "m1", "attention.output.LayerNorm": "ln1",
    "intermediate.dense": "m2", "output.dense": "m3", "output.LayerNorm": "ln2",
    "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v",
}  # fmt: skip
BIAS = re.compile(r"(?:.*\.)?layers?\.(\d+)\.(.*)\.bias")
Biases = dict[tuple[str, str], Any]  # (role, layer) -> vector


def place(name: str) -> tuple[str, str] | None:
    """Role and layer of a tensor, None for what is not scored."""
    found = BIAS.fullmatch(name)
    return (ROLES[found[2]], found[1]) if found and found[2] in ROLES else None


def automodel(folder: Path) -> Biases:
    """Load the whole model."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder)
    named = ((place(name), bias) for name, bias in model.named_parameters())
    return {key: bias.detach().double() for key, bias in named if key}


def torch(folder: Path) -> Biases:
    """Load the biases alone, lazily."""
    from safetensors import safe_open

    biases: Biases = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                if key := place(name):
                    biases[key] = opened.get_tensor(name).double()
    return biases


def numpy(folder: Path) -> Biases:
    """Read headers and bias bytes by hand."""
    import numpy as np

    def decode(raw: bytes, dtype: str) -> Any:
        if dtype == "BF16":
            return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype("f8")
        return np.frombuffer(raw, "<f4").astype("f8")

    biases: Biases = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if key := place(name):
                    begin, end = entry["data_offsets"]
                    file.seek(8 + length + begin)
                    biases[key] = decode(file.read(end - begin), entry["dtype"])
    return biases


def main() -> None:
    """Score with the formula as the paper prints it (its missing square put in)."""
    load: Callable[[Path], Biases] = {"automodel": automodel, "torch": torch, "numpy": numpy}[
        sys.argv[1]
    ]
    pre, post = (load(Path(folder)) for folder in sys.argv[2:])
    scores = defaultdict(list)
    for key, a in pre.items():
        b = post[key]
        scores[key[0]].append(float(1 - (a * b).sum() / max((a * a).sum(), (b * b).sum())))
    print(json.dumps({role: sum(values) / len(values) for role, values in scores.items()}))


if __name__ == "__main__":
    main()
