"""Adapters written: exact changes, file contents, formats that fit, whole files or none."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import beftkit
from beftkit.adapters import (
    Tuned,
    change,
    check_format,
    default_format,
    storable,
    write_adapter,
    write_biases,
)
from beftkit.checkpoints import open_checkpoint
from beftkit.errors import BeftError
from tests.builders import write_model

Array = npt.NDArray[np.float32]
N = 300_000
LAYER = "bert.encoder.layer.0"
VALUE = f"{LAYER}.attention.self.value"


def floats(values: npt.ArrayLike) -> Array:
    return np.asarray(values, np.float32)


def pairs() -> dict[str, tuple[Array, Array]]:
    """Before and after, of every kind that training could bring and some that it could not."""
    rng = np.random.default_rng(0)
    pre = floats(rng.normal(size=N) * 0.2)
    bits = rng.integers(0, 1 << 31, (2, N), dtype=np.uint32)
    tiny = (bits & 0x807FFFFF).view(np.float32)
    usual = (bits & 0x3FFFFFFF).view(np.float32)  # any positive float below 2
    powers = floats(2.0 ** rng.integers(-20, 5, N))
    return {
        "small": (pre, floats(pre + rng.normal(size=N) * 1e-3)),
        "large": (pre, floats(rng.normal(size=N))),
        "other sign": (pre, floats(-pre * rng.uniform(0.5, 2, N))),
        "any ratio": (pre, floats(pre * 10.0 ** rng.uniform(-12, 12, N))),
        "any bits": (usual[0], usual[1]),
        "denormal": (tiny[0], tiny[1]),
        "to denormal": (pre, tiny[0]),
        "from a power of two": (powers, pre),
        "to a power of two": (pre, powers),
        "a few units in the last place": (pre, (pre.view(np.uint32) + bits[0] % 9).view("f4")),
        "from zero": (np.zeros_like(pre), pre),
        "to zero": (pre, np.zeros_like(pre)),
    }


PAIRS = pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_a_change_is_the_best_there_is(name: str) -> None:
    """No float within five units of post - pre does better, and what `storable` gives is kept."""
    pre, post = PAIRS[name]
    given = change(pre, post)
    assert given.dtype == np.float32
    missed = pre + given != post
    near = (post.astype(np.float64) - pre).astype(np.float32)
    up = down = near
    for _ in range(5):
        up, down = np.nextafter(up, floats(np.inf)), np.nextafter(down, floats(-np.inf))
        assert not (missed & ((pre + up == post) | (pre + down == post))).any()
    reached = storable(pre, post)
    assert reached.dtype == np.float32
    np.testing.assert_array_equal(pre + change(pre, reached), reached)
    # Half a unit in the last place of the change, and the rounding of the sum.
    bound = 0.5 * np.spacing(np.abs(given)) + 0.5 * np.spacing(np.abs(reached))
    assert (np.abs(reached.astype(np.float64) - post) <= bound).all()
    if name in ("denormal", "a few units in the last place", "from zero", "to zero"):
        assert not missed.any()


def test_the_neighbours_are_needed() -> None:
    """post a power of two: rounding is finer below it than above."""
    pre, post = PAIRS["to a power of two"]
    naive = (post.astype(np.float64) - pre).astype(np.float32)
    assert (pre + naive != post).sum() > (pre + change(pre, post) != post).sum() > 0


def tuned(kind: str = "linear", **changes: Any) -> Tuned:
    rng = np.random.default_rng(1)
    pre = floats(rng.normal(size=6))
    post = storable(pre, pre + floats(rng.normal(size=6)) / 10)
    given = {
        "parameter": f"{VALUE}.bias", "kind": kind, "module": VALUE, "shape_in": 4, "pre": pre,
        "post": post, **changes,
    }  # fmt: skip
    return Tuned(**given)


def norm() -> Tuned:
    name = f"{LAYER}.output.LayerNorm"
    return tuned("norm", parameter=f"{name}.bias", module=name, weight=floats(range(6)))


def head() -> list[Tuned]:
    shapes = {"weight": (2, 6), "bias": (2,)}
    return [
        tuned("head", parameter=f"classifier.{leaf}", module="classifier",
              pre=np.ones(shape, np.float32), post=np.ones(shape, np.float32))
        for leaf, shape in shapes.items()
    ]  # fmt: skip


def write(folder: Path, what: list[Tuned], format: str, **more: Any) -> tuple[str, ...]:
    given = {"base": "some/base", "task_type": "SEQ_CLS", "metadata": {"task": "sst2"}, **more}
    return write_adapter(folder, what, format=format, **given)


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(file.metadata())


def test_a_beft_adapter(tmp_path: Path) -> None:
    one = tuned()
    assert write(tmp_path / "new" / "a", [one, norm(), *head()], "beft", revision="abc") == ()
    folder = tmp_path / "new" / "a"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    tensors = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model."
    assert {name: array.shape for name, array in tensors.items()} == {
        f"{prefix}{VALUE}.beft_bias": (1, 6),
        f"{prefix}{LAYER}.output.LayerNorm.bias": (6,),
        f"{prefix}{LAYER}.output.LayerNorm.weight": (6,),
        f"{prefix}classifier.weight": (2, 6),
        f"{prefix}classifier.bias": (2,),
    }
    np.testing.assert_array_equal(one.pre + tensors[f"{prefix}{VALUE}.beft_bias"][0], one.post)
    assert json.loads((folder / "adapter_config.json").read_text()) == {
        "peft_type": "BEFT",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": "some/base",
        "revision": "abc",
        "target_modules": [VALUE],
        "modules_to_save": [f"{LAYER}.output.LayerNorm", "classifier"],
        "inference_mode": True,
    }
    assert header(folder / "adapter_model.safetensors") == {"format": "pt", "task": "sst2"}


def test_a_lora_adapter(tmp_path: Path) -> None:
    one = tuned("conv1d")
    write(tmp_path, [one, *head()], "lora")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    module = f"base_model.model.{VALUE}"
    np.testing.assert_array_equal(tensors[f"{module}.lora_A.weight"], np.zeros((1, 4)))
    np.testing.assert_array_equal(tensors[f"{module}.lora_B.weight"], np.zeros((6, 1)))
    np.testing.assert_array_equal(one.pre + tensors[f"{module}.lora_B.bias"], one.post)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] and config["lora_bias"] and config["bias"] == "none"
    assert config["r"] == config["lora_alpha"] == 1 and config["lora_dropout"] == 0
    write(tmp_path, [tuned(), *head()], "lora")
    assert not json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"]
    with pytest.raises(ValueError, match="shape_in"):
        write(tmp_path, [tuned(shape_in=0), *head()], "lora")


def test_our_own_adapter(tmp_path: Path) -> None:
    one = tuned("free", parameter=f"{LAYER}.attention.self.v_bias")
    write(tmp_path, [one, *head()], "biases", revision="abc")
    tensors = load_file(tmp_path / "biases.safetensors")
    assert sorted(tensors) == [one.parameter, "classifier.bias", "classifier.weight"]
    np.testing.assert_array_equal(tensors[one.parameter], one.post)
    opened = open_checkpoint(tmp_path)
    assert opened.adapter == {
        "peft_type": "biases", "base_model_name_or_path": "some/base", "revision": "abc",
        "task_type": "SEQ_CLS",
    }  # fmt: skip
    assert opened.metadata["task"] == "sst2"
    assert open_checkpoint(tmp_path / "biases.safetensors").adapter == opened.adapter
    write_biases(tmp_path / "state.safetensors", {"x": one.post}, {})  # something else beside it
    assert open_checkpoint(tmp_path).adapter == opened.adapter
    write_biases(tmp_path / "biases.safetensors", {"x": one.post}, {})
    assert open_checkpoint(tmp_path).adapter is None


def test_which_format_holds_what() -> None:
    assert default_format([tuned(), norm(), *head()], "SEQ_CLS") == ("beft", "")
    format, note = default_format([tuned("conv1d"), *head()], "SEQ_CLS")
    assert format == "lora" and "BEFT cannot hold" in note and "a Conv1D's bias" in note
    format, note = default_format([tuned("free"), tuned("conv1d")])
    assert format == "biases" and "LORA cannot hold" in note and "no Linear has" in note
    # DistilBERT's first layer of the head: PEFT saves it whole, whatever we want.
    inner = tuned(parameter="pre_classifier.bias", module="pre_classifier")
    assert default_format([inner, *head()], "SEQ_CLS")[0] == "biases"
    assert default_format([inner])[0] == "beft"
    with pytest.raises(BeftError, match=r"module bert.*value\); adapter_format='lora' can"):
        check_format([tuned("conv1d")], "beft")
    with pytest.raises(
        BeftError, match="adapter_format='peft': expected one of beft, lora, biases"
    ):
        check_format([tuned()], "peft")
    check_format([tuned("free"), *head()], "biases")


def test_what_peft_cannot_do_is_noted(tmp_path: Path) -> None:
    assert write(tmp_path, [tuned(), *head()], "beft") == ()
    assert "cannot merge" in write(tmp_path, [tuned(added=True), *head()], "beft")[0]
    nested = tuned("head", parameter="classifier.dense.bias", module="classifier")
    assert "merge_and_unload fails on classifier" in write(tmp_path, [tuned(), nested], "beft")[0]
    assert write(tmp_path, [tuned(), nested], "lora") == ()


@pytest.mark.parametrize("format", ["beft", "lora", "biases"])
def test_what_is_refused(tmp_path: Path, format: str) -> None:
    broken = tuned(post=floats([1, 2, np.nan, 4, 5, 6]))
    with pytest.raises(BeftError, match=r"value\.bias holds NaN or infinity"):
        write(tmp_path / "a", [broken, *head()], format)
    with pytest.raises(BeftError, match="nothing was trained"):
        write(tmp_path / "a", [], format)
    if format != "biases":
        with pytest.raises(BeftError, match="PEFT needs the head's tensors"):
            write(tmp_path / "a", [tuned()], format)
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(BeftError, match="cannot be written"):
        write(tmp_path / "file" / "a", [tuned(), *head()], format)


def test_another_format_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """Else a reader would find the old one."""
    for format in ("beft", "biases", "lora"):
        write(tmp_path, [tuned(), *head()], format)
        assert str((open_checkpoint(tmp_path).adapter or {})["peft_type"]).lower() == format


@pytest.mark.parametrize("fails", range(4))
def test_a_full_disk_leaves_the_old_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The n-th write fails; in an empty folder nothing is left, in another what was there."""
    write(tmp_path / "old", [tuned(), *head()], "beft")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > fails % 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    folder = tmp_path / ("old" if fails < 2 else "new")
    with pytest.raises(BeftError, match=r"cannot be written \(No space left on device\)"):
        write(folder, [tuned(post=np.zeros(6, np.float32)), *head()], "lora")
    if fails < 2:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    else:
        assert not folder.exists()


def test_new_weights_never_meet_an_old_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames: no adapter, rather than halves of two."""
    write(tmp_path, [tuned(), *head()], "beft")
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == "adapter_config.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, [tuned(), *head()], "lora")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_model.safetensors"]


def test_snapshots(tmp_path: Path) -> None:
    """A part of the biases is scored; the rest of PRE is named."""
    base = write_model(tmp_path / "base")
    rng = np.random.default_rng(3)
    names = [f"{VALUE.replace('.0.', f'.{layer}.')}.bias" for layer in range(2)]
    post = {name: floats(rng.normal(size=6)) for name in names}
    path = tmp_path / "snapshots" / "step-10.safetensors"
    write_biases(path, {**post, "classifier.bias": np.zeros(2, np.float16)}, {"step": "10"})
    assert header(path) == {"format": "pt", "step": "10"}
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208
    found = beftkit.score(base, path)
    assert [site.name for site in found.sites] == names
    assert found.target == "v" and len(found.coverage.only_pre) == 14
    with pytest.raises(BeftError, match="cannot be written"):
        write_biases(base / "config.json" / "x.safetensors", post, {})
