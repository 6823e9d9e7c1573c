"""What must start fast loads no heavy library: seen in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
HEAVY = {
    "accelerate", "datasets", "evaluate", "huggingface_hub", "matplotlib", "pandas", "peft",
    "sklearn", "torch", "transformers", "triton",
}  # fmt: skip
ROLES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
COMMAND = "import sys; from beftkit.app import main; sys.exit(main())"


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Two BERT folders, 2 layers, width 4, every bias of the second moved."""
    rng = np.random.default_rng(0)
    names = [f"bert.encoder.layer.{layer}.{role}.bias" for layer in range(2) for role in ROLES]
    config = {"model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 2}
    for side in ("pre", "post"):
        folder = tmp_path / side
        folder.mkdir()
        tensors = {name: rng.normal(size=4).astype(np.float32) for name in names}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
    return [str(tmp_path / "pre"), str(tmp_path / "post")]


def heavy_after(code: str, *arguments: str, tmp_path: Path) -> set[str]:
    """Run Python code in a process of its own; the heavy libraries it had loaded when it ended."""
    seen = tmp_path / "modules.txt"
    report = (
        "import atexit, pathlib, sys\n"
        f"seen = pathlib.Path({str(seen)!r})\n"
        "atexit.register(lambda: seen.write_text('\\n'.join(sys.modules)))\n"
    )
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", report + code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in seen.read_text().split()} & HEAVY


def test_import_is_light(tmp_path: Path) -> None:
    assert heavy_after("import beftkit", tmp_path=tmp_path) == set()


@pytest.mark.parametrize("command", ["", "score", "inspect"])
def test_help_is_light(command: str, tmp_path: Path) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    assert heavy_after(COMMAND, *arguments, tmp_path=tmp_path) == set()


@pytest.mark.parametrize("form", ["table", "json"])
def test_score_is_light(form: str, pair: list[str], tmp_path: Path) -> None:
    assert heavy_after(COMMAND, "score", *pair, "--format", form, tmp_path=tmp_path) == set()


def test_inspect_is_light(pair: list[str], tmp_path: Path) -> None:
    assert heavy_after(COMMAND, "inspect", pair[0], tmp_path=tmp_path) == set()


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    """The check itself can fail: a command that loads torch late, inside a function, is caught."""
    code = "def command():\n    import torch\n\ncommand()"
    assert "torch" in heavy_after(code, tmp_path=tmp_path)


@pytest.mark.parametrize(
    "mistake",
    [
        ["train", "m", "--task", "sst2"],
        ["train", "m", "--task", "sst2", "--lr=-1", "-o", "out"],
        ["train", "m", "--tsk", "sst2", "-o", "out"],
        ["select", "m", "--task", "sst2"],
    ],
    ids=" ".join,
)
def test_mistakes_are_told_at_once(mistake: list[str], tmp_path: Path) -> None:
    code = "from beftkit.app import main\ntry: main()\nexcept SystemExit as end: assert end.code"
    assert "torch" not in heavy_after(code, *mistake, tmp_path=tmp_path)
