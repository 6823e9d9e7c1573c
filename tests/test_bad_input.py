"""Bad input through the real command: exit code 1 or 2, one short line, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import (
    layout,
    model,
    shard_name,
    stored,
    write_file,
    write_index,
    write_raw,
    write_shards,
)
from tests.command import Beftkit, refused, tree


def test_the_good_pair_is_scored(folder: Path, beftkit: Beftkit) -> None:
    """What the cases below change one thing of."""
    ran = beftkit("score", "pre", "post", "-o", "out.json", "--plot", "out.png", "--format", "json")
    assert (ran.code, ran.out) == (0, "")
    assert json.loads((folder / "out.json").read_text())["posts"][0]["coverage"]["matched"] == 16
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    assert beftkit("inspect", "pre").code == 0


def cut(size: int) -> Callable[[Path], None]:
    def damage(side: Path) -> None:
        file = side / "model.safetensors"
        file.write_bytes(file.read_bytes()[:size])

    return damage


def content(raw: bytes) -> Callable[[Path], Any]:
    return lambda side: (side / "model.safetensors").write_bytes(raw)


def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the header, keep the data."""

    def damage(side: Path) -> None:
        found = layout(model("bert"))
        changed = change(found)
        data = b"".join(stored(values, "F32") for values in model("bert").values())
        raw = found if changed is None else changed
        write_raw(side / "model.safetensors", raw, data)

    return damage


def field(name: str, value: Any) -> Callable[[Path], None]:
    """Change one field of the first tensor of the attention."""
    tensor = "bert.encoder.layer.0.attention.self.query.bias"
    return header(lambda found: found[tensor].update({name: value}))


def sharded(change: Callable[[Path, dict[str, str]], Any]) -> Callable[[Path], None]:
    """Deal the model out to two shards, then change something about the index."""

    def damage(side: Path) -> None:
        (side / "model.safetensors").unlink()
        index = write_shards(side, model("bert"), 2)
        weight_map = json.loads(index.read_text())["weight_map"]
        change(side, weight_map)
        if index.stat().st_size and index.read_text().startswith("{"):
            write_index(side, weight_map)

    return damage


def weights_only(side: Path) -> None:
    weights = {name: values for name, values in model("bert").items() if "bias" not in name}
    write_file(side / "model.safetensors", weights)


def pickled(name: str) -> Callable[[Path], None]:
    """Begins like what torch.save writes."""

    def damage(side: Path) -> None:
        (side / "model.safetensors").unlink()
        (side / name).write_bytes(b"PK\x03\x04\0\0\x08\x08" + bytes(200))

    return damage


def pipe(name: str) -> Callable[[Path], None]:
    def damage(side: Path) -> None:
        (side / name).unlink()
        os.mkfifo(side / name)

    return damage


def not_finite(side: Path) -> None:
    tensors = model("bert")
    tensors["bert.encoder.layer.1.attention.self.value.bias"][2] = np.nan
    write_file(side / "model.safetensors", tensors)


def configuration(text: str) -> Callable[[Path], Any]:
    return lambda side: (side / "config.json").write_text(text)


QUERY = "bert.encoder.layer.0.attention.self.query"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, "no such file or folder"),
    "empty": (content(b""), "the file is empty"),
    "header cut": (cut(100), "cut short"),
    "data cut": (cut(-1), "cut short"),
    "length beyond the file": (content(b"\x63" + bytes(7) + b"{}"), "cut short"),
    "length absurd": (content(b"\xff" * 64), "not a safetensors file"),
    "not JSON": (header(lambda found: b"{nonsense"), "not valid JSON"),
    "JSON of the wrong kind": (header(lambda found: b"[]"), "not a safetensors file"),
    "absurdly nested": (header(lambda found: b'{"a":' * 9999 + b"1" + b"}" * 9999), "nested"),
    "a name twice": (header(lambda found: b'{"a": 1, "a": 1}'), "twice"),
    "dtype unknown": (field("dtype", "F33"), "unknown dtype 'F33'"),
    "offsets overlapping": (field("data_offsets", [0, 24]), "overlap"),
    "offsets negative": (field("data_offsets", [-24, 0]), "non-negative"),
    "offsets out of range": (field("data_offsets", [1 << 40, (1 << 40) + 24]), "cut short"),
    "shape and size disagree": (field("shape", [7]), "needs 28 bytes, has 24"),
    "shape absurd": (field("shape", [1 << 62, 1 << 62]), "larger than any file"),
    "a hole": (header(lambda found: found.pop(f"{QUERY}.bias") and None), "leaves a hole"),
    "shard missing": (
        sharded(lambda side, found: (side / shard_name(2, 2)).unlink()),
        f"its shard '{shard_name(2, 2)}' is missing",
    ),
    "tensor not in its shard": (
        sharded(lambda side, found: found.update(lost=shard_name(1, 2))),
        "puts tensor 'lost' into",
    ),
    "shard outside": (
        sharded(lambda side, found: found.update(lost="../pre/model.safetensors")),
        "inside the index's own folder",
    ),
    "shard absolute": (
        sharded(lambda side, found: found.update(lost="/dev/zero")),
        "inside the index's own folder",
    ),
    "index not JSON": (
        sharded(lambda side, found: write_index(side, {}).write_text("nonsense")),
        "index is not valid JSON",
    ),
    "index of the wrong kind": (
        sharded(lambda side, found: write_index(side, {}).write_text("[]")),
        "index is a JSON list",
    ),
    "no biases": (weights_only, "bias-free"),
    "only a damaged pickle": (pickled("pytorch_model.bin"), "pytorch_model.bin: "),
    "a pickle in disguise": (pickled("model.safetensors"), "not a safetensors file but a pickle"),
    "no weights": (lambda side: (side / "model.safetensors").unlink(), "no model.safetensors"),
    "a pipe": (pipe("model.safetensors"), "not a regular file"),
    "not finite": (not_finite, "layer.1.attention.self.value.bias holds NaN or infinity"),
    "configuration not JSON": (configuration("{"), "configuration is not valid JSON"),
    "configuration a list": (configuration("[]"), "configuration is a JSON list"),
    "configuration nested": (configuration('{"a":' * 900 + "1" + "}" * 900), "nested"),
}


@pytest.mark.parametrize("side", ["pre", "post"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint(case: str, side: str, folder: Path, beftkit: Beftkit) -> None:
    damage, message = DAMAGE[case]
    damage(folder / side)
    before = tree(folder)
    ran = beftkit("score", "pre", "post", "-o", "out.json", "--plot", "out.png")
    refused(ran, message)
    assert side in ran.err
    refused(beftkit("score", "pre", "post"), message)
    if case not in ("no biases", "not finite"):  # fine where nothing is compared
        refused(beftkit("inspect", side, "-o", "out.json"), message)
    assert tree(folder) == before


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_named_and_refused(
    zipped: bool, folder: Path, beftkit: Beftkit
) -> None:
    code = pickle.dumps({"a.bias": Evil()}, protocol=2)
    if zipped:
        with zipfile.ZipFile("model.bin", "w") as archive:
            archive.writestr("model/data.pkl", code)
            archive.writestr("model/version", "3\n")
    else:
        (folder / "model.bin").write_bytes(code)
    before = tree(folder)
    refused(beftkit("score", "pre", "model.bin", "-o", "out.json"), "model.bin: ")
    assert tree(folder) == before
    pickle.loads(code)
    assert (folder / "evil").is_dir()  # it would have


def test_nothing_matches(folder: Path, beftkit: Beftkit) -> None:
    decoder = model("opt")
    encoder = {name.replace("decoder", "encoder"): values for name, values in decoder.items()}
    write_file(folder / "two.safetensors", decoder | encoder)
    ran = beftkit("score", "pre", "two.safetensors")
    refused(ran, "no bias of pre matches one of two.safetensors", limit=500)  # six names
    assert "bert.encoder.layer." in ran.err
    assert ".self_attn." in ran.err


def test_shapes_that_differ(folder: Path, beftkit: Beftkit) -> None:
    tensors = model("bert")
    tensors[f"{QUERY}.bias"] = np.ones(4)
    write_file(folder / "narrow.safetensors", tensors)
    refused(
        beftkit("score", "pre", "narrow.safetensors"), f"{QUERY}.bias: 6 elements in pre, but 4"
    )
    refused(beftkit("score", "narrow.safetensors", "pre"), f"{QUERY}.bias: 4 elements in narrow")
