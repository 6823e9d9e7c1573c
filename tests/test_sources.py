"""Pickles, live models, several POSTs and folders of runs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import beftkit
from beftkit.diff.sides import expand_runs
from beftkit.errors import BeftError
from tests import builders, tiny_models
from tests.command import Beftkit


def pickled(folder: Path, path: Path, wrap: Any = None) -> Path:
    """A model folder's tensors as torch would pickle them."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    torch.save(wrap(state) if wrap else state, path)
    return path


# --- pickles ---


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "F64"])
def test_a_pickle_scores_like_the_same_safetensors(tmp_path: Path, dtype: str) -> None:
    pre = builders.write_model(tmp_path / "pre", dtype=dtype)
    post = builders.write_model(tmp_path / "post", seed=1, dtype=dtype)
    want = beftkit.score(pre, post)
    (tmp_path / "bin").mkdir()
    (post / "config.json").rename(tmp_path / "bin" / "config.json")
    path = pickled(post, tmp_path / "bin" / "pytorch_model.bin")
    torch.save({"lr": 1}, path.parent / "training_args.bin")
    for reference in (path, path.parent):
        found = beftkit.score(pre, reference)
        assert found.roles == want.roles
        assert found.post.bias_sha256 == want.post.bias_sha256


def test_a_trainers_checkpoint_is_unwrapped(tmp_path: Path) -> None:
    pre = builders.write_model(tmp_path / "pre")
    post = builders.write_model(tmp_path / "post", seed=1)
    wrapped = pickled(post, tmp_path / "last.ckpt", lambda state: {"epoch": 3, "state_dict": state})
    assert beftkit.score(pre, wrapped).roles == beftkit.score(pre, post).roles


def test_a_sharded_pickle(tmp_path: Path) -> None:
    pre = builders.write_model(tmp_path / "pre")
    post = builders.write_model(tmp_path / "post", seed=1)
    from safetensors.torch import load_file

    state = load_file(post / "model.safetensors")
    folder = tmp_path / "bin"
    folder.mkdir()
    weight_map = {}
    for number in (1, 2):
        shard = f"pytorch_model-0000{number}-of-00002.bin"
        part = dict(list(state.items())[number - 1 :: 2])
        torch.save(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert beftkit.score(pre, folder).roles == beftkit.score(pre, post).roles


class Evil:
    """What a poisoned checkpoint does: runs a command as it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch pwned",)


def test_a_pickle_that_needs_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pre = builders.write_model(tmp_path / "pre")
    torch.save({"a": Evil()}, tmp_path / "evil.bin")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"a": Evil()}))
    (tmp_path / "cut.bin").write_bytes((tmp_path / "evil.bin").read_bytes()[:100])
    torch.save([1, 2], tmp_path / "list.bin")
    for name, message in (
        ("evil.bin", r"needs posix\.system, which could run code"),
        ("bare.pt", "not loaded|old format|damaged"),
        ("cut.bin", "damaged"),
        ("list.bin", "holds no tensors by name"),
    ):
        with pytest.raises(BeftError, match=message) as refused:
            beftkit.score(pre, tmp_path / name)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    assert not (tmp_path / "pwned").exists()


# --- live models ---


@pytest.mark.parametrize("case", ["bert", "gpt2", "gpt-neox", "qwen2", "albert", "bart"])
def test_live_models_score_like_their_files(tmp_path: Path, case: str) -> None:
    row = tiny_models.BY_ID[case]
    pre, post = tiny_models.build(row), tiny_models.build(row)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in post.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    pre.save_pretrained(tmp_path / "pre")
    post.save_pretrained(tmp_path / "post")
    files = beftkit.score(tmp_path / "pre", tmp_path / "post")
    live = beftkit.score(pre, post)
    figures = {role: score.figures for role, score in live.roles.items()}
    assert figures == {role: score.figures for role, score in files.roles.items()}
    assert live.target == files.target
    assert live.family == files.family
    state = beftkit.score(tmp_path / "pre", post.state_dict())
    assert state.target == files.target


def test_something_that_is_no_model_is_refused() -> None:
    with pytest.raises(BeftError, match="a list was given; expected a path, a module"):
        beftkit.score([1, 2], [3])
    with pytest.raises(BeftError, match="a dict was given"):
        beftkit.score({"a": 1}, {"a": 2})


# --- several POSTs ---


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run: ``pre`` and, in ``out``, checkpoint-9, checkpoint-20 and checkpoint-100."""
    builders.write_model(tmp_path / "pre")
    rng = np.random.default_rng(0)
    before = builders.model("bert")
    step = {name: rng.normal(size=values.shape) for name, values in before.items()}
    for number in (100, 9, 20):
        folder = builders.write_model(tmp_path / "out" / f"checkpoint-{number}")
        moved = {
            name: values + number / 100 * (0.5 if "value" in name else 0.2) * step[name]
            for name, values in before.items()
        }
        builders.write_file(folder / "model.safetensors", moved)
    (tmp_path / "out" / "trainer_state.json").write_text("{}")
    return tmp_path


def test_a_runs_folder_stands_for_its_checkpoints_in_natural_order(run: Path) -> None:
    results = beftkit.score_all(run / "pre", [run / "out"])
    assert [Path(one.post.path).name for one in results] == [
        "checkpoint-9", "checkpoint-20", "checkpoint-100",
    ]  # fmt: skip
    alone = [beftkit.score(run / "pre", one.post.path) for one in results]
    assert [one.roles for one in results] == [one.roles for one in alone]
    values = [one.roles["v"].figures["projection"] for one in results]
    assert values == sorted(values) and values[0] > 0


def test_snapshots_and_single_models_are_told_apart(run: Path) -> None:
    snapshots = run / "snapshots"
    snapshots.mkdir()
    for number in (2, 10, 1):
        builders.write_file(
            snapshots / f"epoch-{number}.safetensors", builders.model("bert", number)
        )
    assert [path.name for path in expand_runs([snapshots])] == [
        "epoch-1.safetensors", "epoch-2.safetensors", "epoch-10.safetensors",
    ]  # fmt: skip
    model = run / "out" / "checkpoint-9"
    assert expand_runs([model, "owner/name"]) == [model, "owner/name"]


@pytest.mark.parametrize("root", ["model.safetensors", "pytorch_model.bin"])
def test_checkpoints_beside_a_model_are_said_not_to_be_scored(run: Path, root: str) -> None:
    """A trainer's output folder as it is left: the final model, and its checkpoints."""
    post = builders.write_model(run / "final", seed=4)
    if root.endswith(".bin"):
        pickled(post, run / "out" / root)
    else:
        (run / "out" / root).write_bytes((post / root).read_bytes())
    [found] = beftkit.score_all(run / "pre", [run / "out"], model_config=run / "pre")
    assert found.roles == beftkit.score(run / "pre", post).roles
    note = (
        f"{run / 'out'}: the model in this folder was scored; the 3 checkpoints beside it "
        f"(checkpoint-9, checkpoint-20, checkpoint-100) were not: give them by name "
        f"({run / 'out' / 'checkpoint-*'})"
    )
    assert note in found.notes
    assert note in beftkit.score(run / "pre", run / "out", model_config=run / "pre").notes
    assert not any("beside it" in n for n in beftkit.score(run / "pre", post).notes)


def test_many_posts_in_every_format(run: Path, beftkit: Beftkit, tmp_path: Path) -> None:
    arguments = ("score", run / "pre", run / "out")
    table = beftkit(*arguments)
    assert table.code == 0 and "POST  3 checkpoints" in table.out
    assert table.out.count("<- target") == 3
    document = json.loads(beftkit(*arguments, "--format", "json").out)
    assert [post["target"] for post in document["posts"]] == ["v", "v", "v"]
    rows = beftkit(*arguments, "--format", "csv").out.splitlines()
    assert rows[0].startswith("post,role,") and len(rows) == 1 + 3 * 16
    assert "| post | rank |" in beftkit(*arguments, "--format", "markdown").out
    picture = tmp_path / "track.svg"
    assert beftkit(*arguments, "--plot", picture).code == 0
    text = picture.read_text()
    assert ">checkpoint</text>" in text and ">100</text>" in text and ">k, inert</text>" in text


def test_one_bad_post_of_many_is_named(run: Path, beftkit: Beftkit) -> None:
    (run / "out" / "checkpoint-20" / "model.safetensors").write_bytes(b"")
    ran = beftkit("score", run / "pre", run / "out")
    assert ran.code == 1 and "checkpoint-20" in ran.err and ran.out == ""


# --- flags for a user's CI ---


def test_fail_on_change(run: Path, beftkit: Beftkit) -> None:
    same = beftkit("score", run / "pre", run / "pre", "--fail-on-change")
    assert same.code == 0
    ran = beftkit("score", run / "pre", run / "out", "--fail-on-change")
    assert ran.code == 3 and "target" in ran.out, "the result is printed all the same"
    assert ran.err.splitlines()[-1].startswith("changed: checkpoint-9, checkpoint-20")


def test_fail_if_target_not(run: Path, beftkit: Beftkit) -> None:
    post = run / "out" / "checkpoint-9"
    assert beftkit("score", run / "pre", post, "--fail-if-target-not", "v").code == 0
    ran = beftkit("score", run / "pre", post, "--fail-if-target-not", "q")
    assert ran.code == 3 and "the target is v, not q" in ran.err


def test_quiet(run: Path, beftkit: Beftkit, tmp_path: Path) -> None:
    post = run / "out" / "checkpoint-9"
    (run / "pre" / "config.json").unlink()
    (post / "config.json").unlink()
    arguments = ("score", run / "pre", post, "--format", "json", "-o", tmp_path / "x.json")
    assert "unknown whether inert" in beftkit(*arguments).err
    assert beftkit(*arguments, "--quiet").err == ""
    assert "error" in beftkit("score", run / "absent", post, "--quiet").err
