"""A merge's files: copied with their holes, linked, patched in copies; whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.checkpoints import copying, open_checkpoint
from beftkit.errors import BeftError, Refusal
from beftkit.scores.statistics import decode, rounded
from tests.command import Beftkit, tree
from tests.merging import loaded, tensors_of
from tests.sizes import llama_8b, qwen2_7b, write_sparse_model, write_values_adapter


def test_linked_files_are_the_base_s_and_stay_as_they_are(mine: Path) -> None:
    before = tree(mine / "llama")
    inodes = {path.stat().st_ino for path in (mine / "llama").glob("*.safetensors")}
    (mine / "llama" / "model.safetensors.index.json").chmod(0o600)
    modes = {path.name: path.stat().st_mode for path in (mine / "llama").iterdir()}
    found = beftkit.merge(mine / "llama", mine / "added", mine / "out", link=True)
    shards = len(inodes)
    assert len(found.linked) == shards and not found.copied and found.bytes_written < 12_000
    linked = {path.stat().st_ino for path in (mine / "out").glob("*.safetensors")}
    assert inodes < linked
    assert {path.name: path.stat().st_mode for path in (mine / "llama").iterdir()} == modes
    assert tree(mine / "llama") == before
    # A changed bias is patched in a copy, whatever was asked for.
    before = tree(mine / "qwen2")
    found = beftkit.merge(mine / "qwen2", mine / "changed", mine / "other", link=True)
    assert found.copied == ("model.safetensors",) and not found.linked
    assert "none is linked" in str(found.notes) and tree(mine / "qwen2") == before
    shutil.rmtree(mine / "out")
    assert tree(mine / "llama").keys() and loaded(mine / "llama")


def test_where_no_link_can_be_made(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(os, "link", other_disk)
    found = beftkit.merge(mine / "llama", mine / "added", mine / "out", link=True)
    assert not found.linked and len(found.copied) > 2
    assert any("no hard link can be made" in note for note in found.notes)
    assert loaded(mine / "out")


@pytest.mark.parametrize("lacking", ["copy_file_range", "SEEK_DATA", "both", "refused", "none"])
def test_a_copy_keeps_bytes_and_holes(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking in ("copy_file_range", "both"):
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    if lacking in ("SEEK_DATA", "both"):
        monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    if lacking == "refused":

        def refused(*_: object) -> int:
            raise OSError(95, os.strerror(95))

        monkeypatch.setattr(os, "copy_file_range", refused, raising=False)
    monkeypatch.setattr(copying, "BLOCK", 50_000)
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(os.urandom(70_001))
        file.seek(8 << 20)
        file.write(os.urandom(33))
        file.truncate(20 << 20)
    (tmp_path / "link").symlink_to(source)
    written = copying.copy_file(tmp_path / "link", target)
    assert target.read_bytes() == source.read_bytes() and not target.is_symlink()
    if lacking not in ("SEEK_DATA", "both"):
        assert written < 1 << 20 and target.stat().st_blocks * 512 < 1 << 20
        assert copying.data_bytes(source) == written
    with pytest.raises(OSError):
        copying.copy_file(source, target)


def test_a_base_in_the_hub_s_cache_is_read_through_its_links(mine: Path) -> None:
    blobs = mine / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted((mine / "llama").iterdir())):
        blob = path.rename(blobs / f"{number:040d}")
        path.symlink_to(os.path.relpath(blob, path.parent))
    before = tree(blobs)
    for link in (False, True):
        out = mine / f"out{link}"
        beftkit.merge(mine / "llama", mine / "added", out, link=link)
        assert not any(path.is_symlink() for path in out.iterdir()) and loaded(out)
    assert tree(blobs) == before
    with pytest.raises(Refusal, match="holds the file that is read"):
        beftkit.merge(mine / "llama", mine / "added", blobs, overwrite=True)


def test_what_lies_beside_the_weights_of_a_base_leads_nobody_astray(mine: Path) -> None:
    """An index beside one file, which is loaded alone; shards without an index."""
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model.safetensors"}}
    (mine / "qwen2" / "model.safetensors.index.json").write_text(json.dumps(index))
    found = beftkit.merge(mine / "qwen2", mine / "changed", mine / "one")
    assert "model.safetensors.index.json" not in found.files and loaded(mine / "one")
    beftkit.merge(mine / "llama", mine / "added", mine / "indexed")
    (mine / "llama" / "model.safetensors.index.json").unlink()
    beftkit.merge(mine / "llama", mine / "added", mine / "without")
    for name in ("indexed", "without"):
        path = mine / name / "model.safetensors.index.json"
        held = json.loads(path.read_text())
        assert {*held["weight_map"]} == {*tensors_of(mine / name)} and loaded(mine / name)


def test_what_comes_along(mine: Path) -> None:
    base = mine / "qwen2"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE",
                 "README.md", "pytorch_model.bin", "training_args.bin", "notes.txt",
                 "modeling_own.py", "vocab.json"):  # fmt: skip
        (base / name).write_text(f"{name} of the base")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool.jinja").write_text("x")
    found = beftkit.merge(base, mine / "changed", mine / "out")
    assert {*found.files} == {
        "config.json", "model.safetensors", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "LICENSE", "README.md", "vocab.json",
        "additional_chat_templates/tool.jinja", "manifest.json",
    }  # fmt: skip
    said = " ".join(found.notes)
    for name in ("modeling_own.py", "pytorch_model.bin", "notes.txt"):
        assert name in said
    assert (mine / "out" / "README.md").read_text() != "README.md of the base"
    assert str(mine) not in (mine / "out" / "README.md").read_text()
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (mine / "out" / name).read_bytes() == (base / name).read_bytes()
    # The adapter's own tokenizer, where it is another.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (mine / "changed" / name).write_text("the adapter's")
    found = beftkit.merge(base, mine / "changed", mine / "own", trust_remote_code=True)
    assert (mine / "own" / "tokenizer.json").read_text() == "the adapter's"
    assert "vocab.json" not in found.files and "modeling_own.py" in found.files
    assert "the one beside the adapter: its tokenizer.json is not the base's" in str(found.notes)
    (base / "tokenizer.json").write_text("the adapter's")
    beftkit.merge(base, mine / "changed", mine / "same")
    assert "of the base" in (mine / "same" / "tokenizer_config.json").read_text()
    (base / "tokenizer.json").write_text('{"model": 1, "truncation": {"max_length": 3}}')
    (mine / "changed" / "tokenizer.json").write_text('{"truncation": null, "model": 1}')
    found = beftkit.merge(base, mine / "changed", mine / "cut")
    assert "tokenizer is" not in str(found.notes)
    given = mine / "given"
    given.mkdir()
    (given / "tokenizer.json").write_text("given")
    found = beftkit.merge(base, mine / "changed", mine / "third", tokenizer=given)
    assert "the one that was given" in str(found.notes)
    assert (mine / "third" / "tokenizer.json").read_text() == "given"


def test_where_it_may_not_be_written(mine: Path) -> None:
    base, adapter = mine / "qwen2", mine / "changed"
    (mine / "link").symlink_to(mine)
    (mine / "in").symlink_to(base)
    cases = {
        base: "is the base itself", adapter: "is the adapter itself",
        base / "x": "lies in the base", adapter / "x": "lies in the adapter",
        mine / "link" / "qwen2": "is the base itself", mine / "in" / "x": "lies in the base",
        mine: "holds the", mine / "link": "holds the",
    }  # fmt: skip
    before = tree(mine)
    for place, message in cases.items():
        with pytest.raises(Refusal, match=message):
            beftkit.merge(base, adapter, place, overwrite=True)
    with pytest.raises(BeftError, match="the folder above does not exist"):
        beftkit.merge(base, adapter, mine / "no" / "x")
    assert tree(mine) == before
    out = mine / "out"
    beftkit.merge(base, adapter, out)
    with pytest.raises(BeftError, match="holds a model that was merged; overwrite=True replaces"):
        beftkit.merge(base, adapter, out)
    (out / "mine").write_text("precious")
    with pytest.raises(Refusal, match="mine: would go with"):
        beftkit.merge(base, adapter, out, overwrite=True)
    (out / "mine").unlink()
    beftkit.merge(base, adapter, out, overwrite=True, dtype="bfloat16")
    # A merged folder is a base like any: of it nothing is replaced by itself.
    with pytest.raises(Refusal, match="is the base itself"):
        beftkit.merge(out, adapter, out, overwrite=True)
    assert not [*mine.glob("out.tmp-*")]


def test_what_is_no_base(mine: Path, beftkit: Beftkit) -> None:
    def refused(*words: str | Path, code: int = 1) -> str:
        ran = beftkit("merge", *words)
        assert ran.code == code and ran.err.count("\n") == 1, ran
        return ran.err

    qwen2, changed = mine / "qwen2", mine / "changed"
    assert "no ADAPTER was given" in refused(qwen2, code=2)
    assert "no --output was given" in refused(qwen2, changed, code=2)
    assert "not an adapter" in refused(qwen2, qwen2, "-o", mine / "x")
    assert "is an adapter, and its base" in refused(changed, changed, "-o", mine / "x")
    assert "is a file" in refused(qwen2 / "config.json", changed, "-o", mine / "x")
    assert "no such file or folder" in refused(mine / "nowhere", changed, "-o", mine / "x")
    llama = mine / "llama"
    first, *_, last = sorted(llama.glob("*.safetensors"))
    shutil.copy(first, mine / "first")
    save_file({**load_file(first), next(iter(load_file(last))): torch.zeros(1)}, first)
    assert "lies in two files of weights" in refused(llama, mine / "added", "-o", mine / "x")
    shutil.copy(mine / "first", first)
    (qwen2 / "config.json").rename(qwen2 / "config.jso")
    assert "has no config.json" in refused(qwen2, changed, "-o", mine / "x")
    (qwen2 / "config.jso").rename(qwen2 / "config.json")
    weights = tensors_of(qwen2)
    (qwen2 / "model.safetensors").unlink()
    torch.save(weights, qwen2 / "pytorch_model.bin")
    assert "weights are a pickle" in refused(qwen2, changed, "-o", mine / "x")
    assert not (mine / "x").exists()


def test_the_command(mine: Path, beftkit: Beftkit) -> None:
    words = ("merge", mine / "llama", mine / "added", "-o", mine / "out", "--link")
    ran = beftkit(*words)
    assert ran.code == 0 and "2 biases added by attention_bias, 6 more are zeros" in ran.out
    assert "files of weights linked" in ran.out
    ran = beftkit(*words, "--overwrite", "--format", "json", "-q")
    held = json.loads(ran.out)
    assert held["switches"] == ["attention_bias"] and held["schema_version"] == 2
    assert held["added"] == 2 and held["roundings"] == [] and ran.err == ""
    assert beftkit(*words, "--overwrite", "--format", "csv").out.startswith("output,base,adapter,")


def test_a_full_disk_is_seen_before(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(mine)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BeftError, match=r"needs .* GB and its disk has 1e-06 GB free"):
        beftkit.merge(mine / "qwen2", mine / "changed", mine / "out")
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    before = tree(mine)
    with pytest.raises(BeftError, match="cannot be written"):
        beftkit.merge(mine / "qwen2", mine / "changed", mine / "out")
    assert tree(mine) == before


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_fifteen_gigabytes_of_holes(family: str, tmp_path: Path) -> None:
    """What it takes does not grow with the weights: a process of its own, whose peak is asked."""
    model, width = (llama_8b(), 1024) if family == "llama" else (qwen2_7b(), 512)
    layers = model.config["num_hidden_layers"]
    write_sparse_model(base := tmp_path / "base", model, 1)
    assert sum(path.stat().st_size for path in base.iterdir()) > 15e9
    adapter = write_values_adapter(tmp_path / "adapter", layers, width)
    words = ["merge", base, adapter, "-o", tmp_path / "out", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words, *(["--link"] if family == "llama" else [])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    cpu, peak = map(float, done.stderr.rsplit("peak ", 1)[1].split())
    assert peak < 120_000 and cpu < 2
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "out").iterdir())
    if family == "llama":
        assert found["bytes_written"] < 5e6 and len(found["linked"]) == 4
        assert (found["added"], found["zeros"]) == (layers, 3 * layers)
    else:
        assert (found["changed"], len(found["copied"])) == (layers, 4)
        assert used < 20e6, "holes stay holes"
    theirs, ours = open_checkpoint(base), open_checkpoint(tmp_path / "out")
    name = "model.layers.3.self_attn.v_proj.bias"
    (raw,) = ours.read([name]).values()
    before = decode(*theirs.read([name]).values(), "BF16") if name in theirs.tensors else 0.0
    change = open_checkpoint(adapter).read([f"base_model.model.{name[:-5]}.beft_bias"])
    exact = (before + decode(*change.values(), "F32")).astype(np.float32)
    assert np.array_equal(decode(raw, "BF16"), rounded(exact, "BF16"))


PEAK = """
import sys, time
sys.argv[0] = "beftkit"
from beftkit.app import main
try:
    main()
finally:
    assert not {"torch", "transformers"} & {*sys.modules}
    lines = open("/proc/self/status").read().splitlines()  # getrusage knows the parent's as well
    peak = next(line.split()[1] for line in lines if "VmHWM" in line)
    print("peak", time.process_time(), peak, file=sys.stderr)
"""
