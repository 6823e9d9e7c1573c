"""Sixty models of one base for the stand-in hub: a real pair, planted families, what goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.builders import BYTES, stored
from tests.survey_hub import SurveyHub
from tests.surveys import families

BASE = "google/tiny"
#: planted: so many families of so many models
FAMILIES, MEMBERS = 5, 9
_TASKS = ("text-classification", "token-classification", "question-answering")


class Folder:
    """A model folder as tensors: all that a header names, and the bytes behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        self.header: dict[str, Any] = json.loads(raw[8 : 8 + length])
        self.data = raw[8 + length :]

    def biases(self) -> dict[str, Any]:
        """Name -> float64 values of the biases."""
        found = {}
        for name, one in self.header.items():
            if name.endswith(".bias"):
                begin, end = one["data_offsets"]
                found[name] = np.frombuffer(self.data[begin:end], "<f4").astype(np.float64)
        return found

    def write(self, folder: Path, biases: Mapping[str, Any], dtype: str = "F32") -> Path:
        """The same model with these biases, all of it in a dtype."""
        folder.mkdir(parents=True)
        shutil.copy(self.folder / "config.json", folder)
        header: dict[str, Any] = {}
        data = b""
        for name, one in self.header.items():
            if name == "__metadata__":
                continue
            begin, end = one["data_offsets"]
            values = np.frombuffer(self.data[begin:end], "<f4").astype(np.float64)
            part = stored(biases.get(name, values), dtype)
            assert len(part) * 4 == (end - begin) * BYTES[dtype]
            place = [len(data), len(data) + len(part)]
            header[name] = {"dtype": dtype, "shape": one["shape"], "data_offsets": place}
            data += part
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
        return folder


def publish_sixty(hub: SurveyHub, pairs: Path, folder: Path, demo: Path | None = None) -> list[str]:
    """Publish a base and its 60 fine-tunes; returns the names of the planted ones, in families.

    Family n's are ``planted/n-0`` to ``planted/n-8``; those of 0 and 1 are at .3 to each other.

    Args:
        hub: that lists them.
        pairs: where the real pairs lie (``bert-tiny-base``, ``minilm-sst2-post.safetensors``, ...).
        folder: an empty one.
        demo: what `beftkit demo` made, if that shall be of them too.
    """
    base, tuned = Folder(pairs / "bert-tiny-base"), Folder(pairs / "bert-tiny-sst2")
    before, after = base.biases(), tuned.biases()
    names = list(before)
    lengths = [len(before[name]) for name in names]
    count = 0

    def add(name: str, put: Callable[[Path], Any], **said: Any) -> str:
        nonlocal count
        put(place := folder / f"m{count}")
        about = {"pipeline_tag": _TASKS[count % 3], "downloads": 1000 - count, "likes": count}
        about |= {"lastModified": "2025-05-01T00:00:00.000Z", "tags": ["license:mit"]}
        hub.tuned(name, place, base=BASE, **{**about, **said})
        count += 1
        return name

    def moved(change: Any) -> dict[str, Any]:
        parts = np.split(change, np.cumsum(lengths)[:-1])
        return {name: before[name] + part for name, part in zip(names, parts, strict=True)}

    hub.add(BASE, base.folder)
    changes, whose = families(FAMILIES, MEMBERS, sum(lengths), seed=20)
    planted = [
        add(f"planted/{family}-{number % MEMBERS}",
            lambda place, change=change: base.write(place, moved(change.astype(np.float64))))
        for number, (family, change) in enumerate(zip(whose, changes, strict=True))
    ]  # fmt: skip
    for part in (25, 50, 75, 100, 150):  # checkpoints of the real run, and one beyond it
        way = {name: before[name] + part / 100 * (after[name] - before[name]) for name in names}
        add(f"real/sst2-{part}", lambda place, way=way: base.write(place, way))
    add("real/sst2-copy", lambda place: tuned.write(place, {}), downloads=10**6)
    add("real/base-copy", lambda place: base.write(place, {}))
    add("real/base-f16", lambda place: base.write(place, {}, "F16"))
    add("real/minilm", lambda place: _lone(place, pairs / "minilm-sst2-post.safetensors"))
    add("odd/no-biases", _no_biases)
    add("odd/bin", lambda place: _files(place, {"pytorch_model.bin": b"\x80\x02."}))
    add("odd/damaged", lambda place: _files(place, {"model.safetensors": b"\xff" * 40}))
    add("odd/hostile", lambda place: base.write(place, moved(changes[0] * 9.0)),
        pipeline_tag="<script>alert(1)</script>", tags=["license:\x1b[31m<b>=1+1"])  # fmt: skip
    add("odd/gated", lambda place: base.write(place, {}), gated="manual")
    if demo is None:
        add("odd/gone", lambda place: base.write(place, {}))
        del hub.repos["odd/gone"]
    else:
        add("demo/post", lambda place: shutil.copytree(demo / "post", place))
    assert count == 60
    return planted


def _lone(place: Path, file: Path) -> None:
    place.mkdir()
    shutil.copy(file, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps({"model_type": "bert"}))


def _files(place: Path, files: Mapping[str, bytes]) -> None:
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name, data in files.items():
        (place / name).write_bytes(data)


def _no_biases(place: Path) -> None:
    header = {"bert.pooler.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    _files(place, {"model.safetensors": len(text).to_bytes(8, "little") + text + b"\0" * 4})
