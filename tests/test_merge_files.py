"""A merge's files: copied with their holes, linked, patched in copies; whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import beftkit
from beftkit.checkpoints import copying, open_checkpoint
from beftkit.errors import BeftError, Refusal
from beftkit.runs import manifest
from beftkit.scores.statistics import decode, rounded
from tests.command import Beftkit, tree
from tests.hub_fixtures import outside
from tests.hub_server import Hub
from tests.merging import SIZES, loaded, modules, tensors_of, write_base, write_beft
from tests.sizes import llama_8b, qwen2_7b, write_sparse_model, write_values_adapter


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``llama`` in some shards, ``qwen2`` in one file, an adapter of each; to be read."""
    folder = tmp_path_factory.mktemp("merge")
    llama = write_base(folder / "llama", transformers.LlamaConfig(**SIZES), max_shard_size="15KB")
    write_beft(folder / "added", llama, modules(llama, "v_proj"))
    qwen2 = write_base(folder / "qwen2", transformers.Qwen2Config(**SIZES))
    write_beft(folder / "changed", qwen2, modules(qwen2, "v_proj"))
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path) -> Path:
    """A copy of it, to be written."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_linked_files_are_the_base_s_and_stay_as_they_are(here: Path) -> None:
    before = tree(here / "llama")
    inodes = {path.stat().st_ino for path in (here / "llama").glob("*.safetensors")}
    (here / "llama" / "model.safetensors.index.json").chmod(0o600)
    modes = {path.name: path.stat().st_mode for path in (here / "llama").iterdir()}
    found = beftkit.merge(here / "llama", here / "added", here / "out", link=True)
    shards = len(inodes)
    assert len(found.linked) == shards and not found.copied and found.bytes_written < 12_000
    linked = {path.stat().st_ino for path in (here / "out").glob("*.safetensors")}
    assert inodes < linked
    assert {path.name: path.stat().st_mode for path in (here / "llama").iterdir()} == modes
    assert tree(here / "llama") == before
    # A changed bias is patched in a copy, whatever was asked for.
    before = tree(here / "qwen2")
    found = beftkit.merge(here / "qwen2", here / "changed", here / "other", link=True)
    assert found.copied == ("model.safetensors",) and not found.linked
    assert "none is linked" in str(found.notes) and tree(here / "qwen2") == before
    shutil.rmtree(here / "out")
    assert tree(here / "llama").keys() and loaded(here / "llama")


def test_where_no_link_can_be_made(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(os, "link", other_disk)
    found = beftkit.merge(here / "llama", here / "added", here / "out", link=True)
    assert not found.linked and len(found.copied) > 2
    assert any("no hard link can be made" in note for note in found.notes)
    assert loaded(here / "out")


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


def test_a_base_in_the_hub_s_cache_is_read_through_its_links(here: Path) -> None:
    blobs = here / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted((here / "llama").iterdir())):
        blob = path.rename(blobs / f"{number:040d}")
        path.symlink_to(os.path.relpath(blob, path.parent))
    before = tree(blobs)
    for link in (False, True):
        out = here / f"out{link}"
        beftkit.merge(here / "llama", here / "added", out, link=link)
        assert not any(path.is_symlink() for path in out.iterdir()) and loaded(out)
    assert tree(blobs) == before
    with pytest.raises(Refusal, match="holds the file that is read"):
        beftkit.merge(here / "llama", here / "added", blobs, overwrite=True)


def test_what_comes_along(here: Path) -> None:
    base = here / "qwen2"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE",
                 "README.md", "pytorch_model.bin", "training_args.bin", "notes.txt",
                 "modeling_own.py", "vocab.json"):  # fmt: skip
        (base / name).write_text(f"{name} of the base")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool.jinja").write_text("x")
    found = beftkit.merge(base, here / "changed", here / "out")
    assert {*found.files} == {
        "config.json", "model.safetensors", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "LICENSE", "README.md", "vocab.json",
        "additional_chat_templates/tool.jinja", "manifest.json",
    }  # fmt: skip
    said = " ".join(found.notes)
    for name in ("modeling_own.py", "pytorch_model.bin", "notes.txt"):
        assert name in said
    assert (here / "out" / "README.md").read_text() != "README.md of the base"
    assert str(here) not in (here / "out" / "README.md").read_text()
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (here / "out" / name).read_bytes() == (base / name).read_bytes()
    # The adapter's own tokenizer, where it is another.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (here / "changed" / name).write_text("the adapter's")
    found = beftkit.merge(base, here / "changed", here / "own", trust_remote_code=True)
    assert (here / "own" / "tokenizer.json").read_text() == "the adapter's"
    assert "vocab.json" not in found.files and "modeling_own.py" in found.files
    assert "the one beside the adapter: its tokenizer.json is not the base's" in str(found.notes)
    (base / "tokenizer.json").write_text("the adapter's")
    beftkit.merge(base, here / "changed", here / "same")
    assert "of the base" in (here / "same" / "tokenizer_config.json").read_text()
    (base / "tokenizer.json").write_text('{"model": 1, "truncation": {"max_length": 3}}')
    (here / "changed" / "tokenizer.json").write_text('{"truncation": null, "model": 1}')
    found = beftkit.merge(base, here / "changed", here / "cut")
    assert "tokenizer is" not in str(found.notes)
    given = here / "given"
    given.mkdir()
    (given / "tokenizer.json").write_text("given")
    found = beftkit.merge(base, here / "changed", here / "third", tokenizer=given)
    assert "the one that was given" in str(found.notes)
    assert (here / "third" / "tokenizer.json").read_text() == "given"


def test_where_it_may_not_be_written(here: Path) -> None:
    base, adapter = here / "qwen2", here / "changed"
    (here / "link").symlink_to(here)
    (here / "in").symlink_to(base)
    cases = {
        base: "is the base itself", adapter: "is the adapter itself",
        base / "x": "lies in the base", adapter / "x": "lies in the adapter",
        here / "link" / "qwen2": "is the base itself", here / "in" / "x": "lies in the base",
        here: "holds the", here / "link": "holds the",
    }  # fmt: skip
    before = tree(here)
    for place, message in cases.items():
        with pytest.raises(Refusal, match=message):
            beftkit.merge(base, adapter, place, overwrite=True)
    with pytest.raises(BeftError, match="the folder above does not exist"):
        beftkit.merge(base, adapter, here / "no" / "x")
    assert tree(here) == before
    out = here / "out"
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
    assert not [*here.glob("out.tmp-*")]


def test_what_is_no_base(here: Path, beftkit: Beftkit) -> None:
    def refused(*words: str | Path, code: int = 1) -> str:
        ran = beftkit("merge", *words)
        assert ran.code == code and ran.err.count("\n") == 1, ran
        return ran.err

    qwen2, changed = here / "qwen2", here / "changed"
    assert "no ADAPTER was given" in refused(qwen2, code=2)
    assert "no --output was given" in refused(qwen2, changed, code=2)
    assert "not an adapter" in refused(qwen2, qwen2, "-o", here / "x")
    assert "is an adapter, and its base" in refused(changed, changed, "-o", here / "x")
    assert "is a file" in refused(qwen2 / "config.json", changed, "-o", here / "x")
    assert "no such file or folder" in refused(here / "nowhere", changed, "-o", here / "x")
    (qwen2 / "config.json").rename(qwen2 / "config.jso")
    assert "has no config.json" in refused(qwen2, changed, "-o", here / "x")
    (qwen2 / "config.jso").rename(qwen2 / "config.json")
    weights = tensors_of(qwen2)
    (qwen2 / "model.safetensors").unlink()
    torch.save(weights, qwen2 / "pytorch_model.bin")
    assert "weights are a pickle" in refused(qwen2, changed, "-o", here / "x")
    assert not (here / "x").exists()


def test_the_command(here: Path, beftkit: Beftkit) -> None:
    words = ("merge", here / "llama", here / "added", "-o", here / "out", "--link")
    ran = beftkit(*words)
    assert ran.code == 0 and "2 biases added by attention_bias, 6 more are zeros" in ran.out
    assert "files of weights linked" in ran.out
    ran = beftkit(*words, "--overwrite", "--format", "json", "-q")
    held = json.loads(ran.out)
    assert held["switches"] == ["attention_bias"] and held["schema_version"] == 2
    assert held["added"] == 2 and held["roundings"] == [] and ran.err == ""
    assert beftkit(*words, "--overwrite", "--format", "csv").out.startswith("output,base,adapter,")


def test_a_full_disk_is_seen_before(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(here)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BeftError, match=r"needs .* GB and its disk has 1e-06 GB free"):
        beftkit.merge(here / "qwen2", here / "changed", here / "out")
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    before = tree(here)
    with pytest.raises(BeftError, match="cannot be written"):
        beftkit.merge(here / "qwen2", here / "changed", here / "out")
    assert tree(here) == before


def test_killed_at_any_moment_it_is_absent_or_whole(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is forked at twenty steps of the work and killed there: SIGKILL runs nothing."""
    beftkit.merge(here / "llama", here / "added", here / "out")
    wanted = tree(here / "out")
    inputs = {name: tree(here / name) for name in ("llama", "added")}
    shutil.rmtree(here / "out")
    steps = {"open": 0}
    left = 0

    def run(stop: int, overwrite: bool) -> int:
        child = os.fork()
        if child == 0:
            count = 0

            def step(event: str, _: object) -> None:
                nonlocal count
                if event in ("open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir"):
                    count += 1
                    if count == stop:
                        os.kill(os.getpid(), signal.SIGKILL)

            try:
                sys.addaudithook(step)
                beftkit.merge(here / "llama", here / "added", here / "out", overwrite=overwrite)
                os._exit(count % 200 if count < 200 else 199)
            except BaseException:
                os._exit(255)
        _, status = os.waitpid(child, 0)
        return status

    status = run(10**9, False)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) != 255
    steps["open"] = os.WEXITSTATUS(status)
    assert steps["open"] > 25
    shutil.rmtree(here / "out")
    for moment in np.linspace(2, steps["open"] + 4, 20).astype(int):
        overwrite = (here / "out").exists()
        status = run(int(moment), overwrite)
        killed = os.WIFSIGNALED(status)
        assert killed or os.WEXITSTATUS(status) != 255, moment
        if (here / "out").exists():
            assert tree(here / "out") == wanted, moment
        left += bool([*here.glob("out.tmp-*")])
    assert left >= 8, "most of them left something"
    # The last one ended, or the next does; what the others left is named and cleared.
    found = beftkit.merge(here / "llama", here / "added", here / "out", overwrite=True)
    assert tree(here / "out") == wanted and not [*here.glob("out.tmp-*")]
    assert {name: tree(here / name) for name in inputs} == inputs
    del found


def test_what_a_kill_left_is_named_and_cleared(here: Path) -> None:
    words = here / "llama", here / "added", here / "out"
    (theirs := here / "out.tmp-photos").mkdir()
    (alike := here / "out.tmp-4194305-x").mkdir()
    (alike / "precious").write_text("x")
    work = here / "out.tmp-4194304-abc"
    work.mkdir()
    (work / ".beftkit.lock").write_text("4194304\nhere\n")
    os.link(here / "llama" / "config.json", work / "linked")
    found = beftkit.merge(*words)
    assert not work.exists() and theirs.is_dir() and (alike / "precious").exists()
    assert any(f"{work}: left by a run that was killed; cleared" in one for one in found.notes)
    assert any("out.tmp-4194305-x: is called as ours are" in one for one in found.notes)
    assert (here / "llama" / "config.json").is_file()
    # Killed while the former was out of its place.
    former = here / "out.tmp-4194304-abc-former"
    (here / "out").rename(former)
    with pytest.raises(BeftError, match="holds a model that was merged"):
        beftkit.merge(*words)
    assert (here / "out").is_dir() and not former.exists()
    # A process that lives.
    from beftkit.runs.locks import occupied

    work.mkdir()
    with occupied(work), pytest.raises(Refusal, match=r"process .* writes there"):
        beftkit.merge(*words, overwrite=True)
    (live := here / f"out.tmp-{os.getpid()}-abc").mkdir()
    manifest.begin(live)
    with pytest.raises(Refusal, match="may still be making"):
        beftkit.merge(*words, overwrite=True)


def test_a_base_on_the_hub(place: Path, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    for path in (place / "llama").iterdir():
        shutil.copy(path, tmp_path / "llama")
    (tmp_path / "llama" / "tokenizer.json").write_text("{}")
    hub.add("o/llama", tmp_path / "llama", "v1")
    adapter = shutil.copytree(place / "added", tmp_path / "added")
    near = beftkit.merge(tmp_path / "llama", adapter, tmp_path / "near")
    far = beftkit.merge("o/llama", adapter, tmp_path / "far", revision="v1", link=True)
    assert any("no hard link can be made" in note for note in far.notes)
    skip = ("README.md",)
    ours, theirs = (
        {name: one for name, one in tree(tmp_path / name_).items() if name not in skip}
        for name_ in ("far", "near")
    )
    assert ours == theirs and near.added == far.added
    card = (tmp_path / "far" / "README.md").read_text()
    assert "base_model: o/llama" in card
    ran = outside(hub, tmp_path / "home", "merge", "o/llama", adapter, "-o", tmp_path / "third")
    assert ran.code == 0 and loaded(tmp_path / "third")


def test_a_hub_s_sizes_are_looked_at_before(
    place: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/qwen2", place / "qwen2")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BeftError, match="make room"):
        beftkit.merge("o/qwen2", place / "changed", tmp_path / "out")
    assert hub.served("model.safetensors") < 10_000


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
