"""The command line on good input: what is printed where, in which form, with which exit code."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from beftkit import __version__
from tests import builders
from tests.command import Beftkit


class Run:
    """The command, with the last run's exit code, stdout and stderr at hand."""

    def __init__(self, beftkit: Beftkit) -> None:
        self._beftkit = beftkit

    def __call__(self, *arguments: str | Path) -> str:
        self.code, self.out, self.err = self._beftkit(*arguments)
        return self.out


@pytest.fixture
def run(beftkit: Beftkit) -> Run:
    return Run(beftkit)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(3)
    pre = builders.write_model(tmp_path / "pre")
    post = builders.write_model(tmp_path / "post")
    moved = {
        name: values + (0.3 if "value" in name else 0.05) * rng.normal(size=values.shape)
        for name, values in builders.model("bert").items()
    }
    builders.write_file(post / "model.safetensors", moved)
    return pre, post


def test_table(run: Run, pair: tuple[Path, Path]) -> None:
    text = run("score", *pair)
    assert run.code == 0
    assert "target: v (value)" in text
    [line] = [line for line in text.splitlines() if line.rstrip().endswith("<- target")]
    assert line.split()[1] == "v"
    assert "16 biases matched, 0 only in PRE, 0 only in POST" in text
    [key] = [line for line in text.splitlines() if line.split()[1:2] == ["k"]]
    assert key.endswith("inert")
    assert max(map(len, text.splitlines())) < 125


def test_json_is_all_of_stdout(run: Run, pair: tuple[Path, Path]) -> None:
    document = json.loads(run("score", *pair, "--format", "json"))
    assert document["schema_version"] == 2
    assert document["beftkit_version"] == __version__
    assert document["pre"].keys() == {"path", "bias_sha256"}
    [post] = document["posts"]
    assert post["target"] == "v"
    assert post["coverage"]["matched"] == 16
    assert len(post["roles"]["v"]["sites"]) == 2


def test_csv_has_one_row_a_site(run: Run, pair: tuple[Path, Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(run("score", *pair, "--format", "csv"))))
    assert len(rows) == 16
    document = json.loads(run("score", *pair, "--format", "json"))
    site = document["posts"][0]["roles"]["v"]["sites"][0]
    [row] = [row for row in rows if row["name"] == site["name"]]
    assert float(row["projection"]) == site["projection"]


def test_markdown(run: Run, pair: tuple[Path, Path]) -> None:
    text = run("score", *pair, "--format", "markdown")
    assert "| rank | role |" in text and "<- target" in text


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_output_file_holds_what_stdout_would(run: Run, pair: tuple[Path, Path], form: str) -> None:
    printed = run("score", *pair, "--format", form)
    target = pair[0].parent / "result"
    assert run("score", *pair, "--format", form, "-o", target) == ""
    assert "wrote" in run.err
    assert target.read_text() == printed
    assert sorted(path.name for path in target.parent.iterdir()) == ["post", "pre", "result"]


def test_target_modules_is_a_list_that_peft_takes(run: Run, pair: tuple[Path, Path]) -> None:
    names = json.loads(run("score", *pair, "--target-modules"))
    assert names == [f"encoder.layer.{layer}.attention.self.value" for layer in (0, 1)]


def test_target_modules_of_a_fused_projection_is_refused(run: Run, tmp_path: Path) -> None:
    pre = builders.write_model(tmp_path / "pre", "gpt2")
    post = builders.write_model(tmp_path / "post", "gpt2", seed=1)
    assert run("score", pre, post, "--target-modules") == ""
    assert run.code == 1
    assert "part ([" in run.err and "of the fused transformer.h.0.attn.c_attn.bias" in run.err


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plot(run: Run, pair: tuple[Path, Path], suffix: str) -> None:
    picture = pair[0].parent / f"map.{suffix}"
    text = run("score", *pair, "--plot", picture)
    assert "target: v" in text and str(picture) in run.err
    data = picture.read_bytes()
    assert data.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        assert b">layer</text>" in data, "text stays text"


def test_methods_candidates_and_towers(run: Run, pair: tuple[Path, Path]) -> None:
    text = run("score", *pair, "--method", "magnitude", "--candidates", "m1, m2", "--tower", "text")
    assert "score: l1 norm of the change" in text and "target: m2" in text


def test_inspect(run: Run, pair: tuple[Path, Path]) -> None:
    text = run("inspect", pair[0])
    assert run.code == 0 and "text: 2 layers" in text
    assert [line.split()[0] for line in text.splitlines() if line.rstrip().endswith(" no")] == [
        "q", "v", "m1", "m2", "m3", "ln1", "ln2",
    ]  # fmt: skip
    document = json.loads(run("inspect", pair[0], "--format", "json"))
    assert document["roles"]["k"][0]["inert"] == "yes"
    assert "| k | 2 |" in run("inspect", pair[0], "--format", "markdown")
    assert run("inspect", pair[0], "--format", "csv").startswith("role,tower")


def test_inspect_says_bias_free(run: Run, tmp_path: Path) -> None:
    free = builders.write_file(tmp_path / "free.safetensors", {"net.0.weight": np.ones(3)})
    assert "bias-free" in run("inspect", free)
    assert run.code == 0


def test_help_and_version(run: Run) -> None:
    assert "score" in run("--help") and run.code == 0
    assert run("--version") == f"beftkit {__version__}\n"
    assert run() == "" and run.code == 2
    assert "Commands:" in run.err
    run("score")
    assert run.code == 2 and "PRE" in run.err
    for command in ("score", "inspect", "demo"):
        assert run(command, "--help") and run.code == 0


def test_one_argument_that_is_no_adapter_is_a_usage_error(
    run: Run, pair: tuple[Path, Path]
) -> None:
    assert run("score", pair[0]) == ""
    assert run.code == 2 and "PRE is needed as well" in run.err


def test_a_users_family(run: Run, tmp_path: Path) -> None:
    """The documented way to add a family, through the command."""
    names = ["net.0.mixer.alpha.bias", "net.0.mixer.omega.bias"]
    own = tmp_path / "own.toml"
    own.write_text('[[layout]]\nname = "homemade"\nq = "mixer.alpha"\nv = "mixer.omega"\n')
    rng = np.random.default_rng(0)
    for side in ("pre", "post"):
        tensors = {name: rng.normal(size=5) for name in names}
        builders.write_file(tmp_path / f"{side}.safetensors", tensors)
    files = (tmp_path / "pre.safetensors", tmp_path / "post.safetensors")
    assert "target: " in run("score", *files, "--families", own)
    run("score", *files)
    assert run.code == 1 and "nearest names" in run.err
