"""Torch's own files as people have them: packed again, old, wrapped; and files that are others'."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import beftkit
from beftkit.checkpoints.foreign import foreign
from beftkit.errors import BeftError
from tests import builders

State = dict[str, torch.Tensor]


@pytest.fixture
def state(tmp_path: Path) -> State:
    """The tensors of the model ``post``; beside it lies ``pre``."""
    from safetensors.torch import load_file

    builders.write_model(tmp_path / "pre")
    return load_file(builders.write_model(tmp_path / "post", seed=1) / "model.safetensors")


def repack(path: Path, kind: int, keep: Callable[[str], bool] = lambda name: True) -> Path:
    """Write a zip's members anew, compressed where they are to be kept so."""
    to = path.with_name(f"packed-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), kind if keep(name) else zipfile.ZIP_STORED)
    return to


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_packed_again_is_refused(tmp_path: Path, state: State, kind: int) -> None:
    """Its compressed bytes were taken for values: figures of noise, and no word."""
    torch.save(state, tmp_path / "model.bin")
    for keep in ((lambda name: True), (lambda name: name.endswith("/data/3"))):
        packed = repack(tmp_path / "model.bin", kind, keep)
        with pytest.raises(BeftError, match="is compressed or encrypted; torch writes stored"):
            beftkit.score(tmp_path / "post", packed)
    (tmp_path / "folder").mkdir()
    packed.rename(tmp_path / "folder" / "pytorch_model.bin")
    for call in (lambda one: beftkit.score(one, tmp_path / "post"), beftkit.inspect):
        with pytest.raises(BeftError, match="compressed"):
            call(tmp_path / "folder")


def test_an_archive_packed_again_without_compression_is_read(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "model.bin")
    packed = repack(tmp_path / "model.bin", zipfile.ZIP_STORED)
    assert not beftkit.score(tmp_path / "post", packed).changed


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_damaged_archives_are_refused(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "twice.bin")
    with zipfile.ZipFile(tmp_path / "twice.bin", "a") as archive:
        archive.writestr("twice/data/0", b"1234" * 6)
    (tmp_path / "cut.bin").write_bytes((tmp_path / "twice.bin").read_bytes()[:-9])
    for name, match in (("twice.bin", "two members"), ("cut.bin", "damaged, or not a torch")):
        with pytest.raises(BeftError, match=match):
            beftkit.score(tmp_path / "pre", tmp_path / name)


def test_files_of_old_torch_are_read(tmp_path: Path, state: State) -> None:
    """Before torch 1.6: a row of pickles, no archive."""
    folder = tmp_path / "old"
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    for reference in (folder, folder / "pytorch_model.bin"):
        found = beftkit.score(tmp_path / "pre", reference, model_config=tmp_path / "pre")
        assert found.roles == beftkit.score(tmp_path / "pre", tmp_path / "post").roles
    raw = (folder / "pytorch_model.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BeftError, match=r"cut\.bin: damaged, or not a torch checkpoint; fetch it"):
        beftkit.score(tmp_path / "pre", tmp_path / "cut.bin")


def test_an_adapter_in_old_torch_s_form(tmp_path: Path) -> None:
    from tests.adapted import trained

    base, _ = trained("bert", tmp_path / "new", base=str(tmp_path / "base"))
    base.save_pretrained(tmp_path / "base")
    old = tmp_path / "old"
    old.mkdir()
    from safetensors.torch import load_file

    state = load_file(tmp_path / "new" / "adapter_model.safetensors")
    torch.save(state, old / "adapter_model.bin", _use_new_zipfile_serialization=False)
    said = (tmp_path / "new" / "adapter_config.json").read_text()
    (old / "adapter_config.json").write_text(said)
    assert beftkit.score(None, old).roles == beftkit.score(None, tmp_path / "new").roles


WRAPPED: dict[str, Callable[[State], Any]] = {
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 1, "loss": torch.tensor(0.3)},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 2},
    "module": lambda s: {"module": s, "buffer_names": [], "optimizer": None},
    "lightning": lambda s: {
        "state_dict": {f"model.{name}": one for name, one in s.items()},
        "epoch": 3,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "hparams_name": "kwargs",
    },
    "parallel": lambda s: {"model": {f"module.{name}": one for name, one in s.items()}},
    "two levels": lambda s: {"checkpoint": {"model": s}, "step": torch.tensor(7)},
    "a name of one's own": lambda s: {"my_bert": s, "rng": {"cpu": torch.ones(9)}, "epoch": 3},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_state_dict_with_other_things_around_it_is_found(
    tmp_path: Path, state: State, kind: str
) -> None:
    torch.save(WRAPPED[kind](state), tmp_path / "c.pt")
    want = beftkit.score(tmp_path / "pre", tmp_path / "post")
    found = beftkit.score(tmp_path / "pre", tmp_path / "c.pt", model_config=tmp_path / "pre")
    assert {r: one.figures for r, one in found.roles.items()} == {
        r: one.figures for r, one in want.roles.items()
    }
    assert not found.coverage.only_pre and found.target == want.target


def test_of_several_state_dicts_none_is_guessed(tmp_path: Path, state: State) -> None:
    other = {name: one + 1 for name, one in state.items()}
    torch.save({"generator": state, "discriminator": other}, tmp_path / "gan.pt")
    with pytest.raises(BeftError, match=r"several state dicts .generator, discriminator."):
        beftkit.inspect(tmp_path / "gan.pt")
    torch.save({"model": state, "ema": other}, tmp_path / "ema.pt")
    found = beftkit.score(tmp_path / "post", tmp_path / "ema.pt")
    assert not found.changed
    assert any("read what is under 'model'; also there: ema" in note for note in found.notes)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "config.json", "tokenizer.json"])
def test_transformers_gets_no_such_file_to_read(tmp_path: Path, file: str) -> None:
    """It maps archives as torch does: a model of noise, whose loss is nan."""
    from transformers import BertConfig, BertForSequenceClassification

    from beftkit.models import _check_reference

    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=8,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
        )
    )
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "plain.zip")
    repack(tmp_path / "plain.zip", zipfile.ZIP_DEFLATED).rename(tmp_path / "pytorch_model.bin")
    torch.save({"lr": 1}, tmp_path / "training_args.bin")
    told = "compressed"
    if file != "pytorch_model.bin":
        told = "a Git LFS pointer"
        (tmp_path / "pytorch_model.bin").unlink()
        (tmp_path / file).write_bytes(FOREIGN["Git LFS pointer"])
    with pytest.raises(BeftError, match=f"{file}: .*{told}"):
        _check_reference(str(tmp_path))
    model.save_pretrained(tmp_path)  # a .safetensors and a good configuration
    (tmp_path / "tokenizer.json").unlink(missing_ok=True)
    _check_reference(str(tmp_path))


FOREIGN = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a7\nsize 43\n",
    "Xet pointer": b"# xet version 0\nfilesize = 3\nhash = 'aa'\n",
    "git-annex pointer": b"/annex/objects/SHA256E-s31--aa.bin\n",
    "web page": b"\xef\xbb\xbf\n\n<!DOCTYPE html>\n<html><body>Not found</body></html>",
    "GGUF": b"GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0" + bytes(50),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(50),
    "gzip": b"\x1f\x8b\x08\0" + bytes(50),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, kind: str) -> None:
    """Wherever a file is opened: weights of both kinds, configurations, indices, adapters."""
    raw = FOREIGN[kind]
    pre = builders.write_model(tmp_path / "pre")

    def refused(reference: Path, **options: Any) -> None:
        with pytest.raises(BeftError, match=kind) as caught:
            beftkit.score(pre, reference, **options)
        assert "\n" not in str(caught.value)

    for name in ("a.safetensors", "a.bin", "a.pt", "model.safetensors.index.json"):
        (tmp_path / name).write_bytes(raw)
        refused(tmp_path / name)
    refused(pre, model_config=tmp_path / "model.safetensors.index.json")
    for file in ("config.json", "model.safetensors"):
        (builders.write_model(tmp_path / file) / file).write_bytes(raw)
        refused(tmp_path / file)
    for file in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        adapter = tmp_path / f"with {file}"
        adapter.mkdir()
        good = adapter / "adapter_model.safetensors"
        builders.write_file(good, builders.model("bert"))
        (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "BEFT"}))
        if file.endswith(".bin"):
            good.unlink()
        (adapter / file).write_bytes(raw)
        refused(adapter)


def test_the_other_container_under_a_wrong_name_is_named(tmp_path: Path) -> None:
    pre = builders.write_model(tmp_path / "pre")
    (pre / "model.safetensors").rename(tmp_path / "a.bin")
    with pytest.raises(BeftError, match="a safetensors file; rename it"):
        beftkit.inspect(tmp_path / "a.bin")


def test_no_safetensors_header_is_taken_for_something_else() -> None:
    for length in (0x3C, 0x3C3C, 0x76, 0x8B1F, 100_000_000):
        assert foreign(length.to_bytes(8, "little") + b'{"a":{}') is None
    assert foreign(b"") is None and foreign(b"{}") is None
