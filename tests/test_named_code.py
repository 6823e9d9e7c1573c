"""Code is run where the user names it, and never because a file that came along names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from tests.command import Beftkit
from tests.copied import next_commands

pytestmark = pytest.mark.slow

RUN = ("base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu",
       "--epochs", "1")  # fmt: skip
METRIC = """
import datasets
import evaluate

class Other(evaluate.Metric):
    def _info(self):
        v = datasets.Value("int64")
        return evaluate.MetricInfo(description="", citation="", inputs_description="",
            features=datasets.Features({"predictions": v, "references": v}))

    def _compute(self, predictions, references):
        return {"hits": sum(p == r for p, r in zip(predictions, references))}

open("RAN", "w").close()
"""


@pytest.fixture
def script(workplace: Path) -> Path:
    """A metric that says that it ran."""
    path = workplace / "mine.py"
    path.write_text(METRIC)
    return path


def named_in(folder: Path, metric: str) -> None:
    """An adapter whose header names this metric."""
    path = folder / "adapter_model.safetensors"
    with safe_open(path, "pt") as file:
        said, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    save_file(tensors, path, metadata={**said, "beftkit.metrics": json.dumps([metric, "f1"])})


@pytest.mark.parametrize("metric", ["mine.py", "out/adapter", "hits", "someone/metric"])
def test_an_adapter_names_no_code(metric: str, script: Path, beftkit: Beftkit) -> None:
    assert beftkit("train", *RUN, "-o", "out").code == 0
    adapter = Path("out/adapter")
    (adapter / "adapter.py").write_text(script.read_text())
    named_in(adapter, metric)
    given = ["--adapter", adapter, "--validation-file", "dev.jsonl", "--trust-remote-code"]
    ran = beftkit("evaluate", *given, "--format", "json")
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert [*found["metrics"]] == ["f1"]
    assert f"the adapter names the metric {metric!r}, which is code" in " ".join(found["notes"])
    assert not Path("RAN").exists()


def test_the_user_names_code(script: Path, beftkit: Beftkit) -> None:
    ran = beftkit("train", *RUN, "-o", "out", "--metric", "mine.py")
    assert ran.code == 0 and Path("RAN").exists(), ran
    # What is recommended names it again: it is the user's own command.
    assert next_commands(ran.out)[0] == [
        "evaluate", "--adapter", "out/adapter", "--metric", "mine.py"
    ]  # fmt: skip
    Path("RAN").unlink()
    again = beftkit("train", "-o", "out", "--resume")
    assert again.code == 2 and "--metric mine.py" in again.err, again
    assert not Path("RAN").exists()
    assert beftkit("train", "-o", "out", "--resume", "--metric", "mine.py").code == 0


@pytest.mark.parametrize("command", ["train", "select"])
@pytest.mark.parametrize("named", [{"metric": ["mine.py"]}, {"trust_remote_code": True}])
def test_settings_that_came_along_name_no_code(
    command: str, named: dict[str, object], script: Path, beftkit: Beftkit
) -> None:
    files = {"train_file": "train.jsonl", "validation_file": "dev.jsonl", "device": "cpu"}
    Path("got").mkdir()
    saved = Path("got", {"train": "run.yaml", "select": "select.yaml"}[command])
    saved.write_text(yaml.safe_dump({"model": "base", **files, **named}))
    ran = beftkit(command, "-o", "got", "--resume")
    assert ran.code == 2 and f"{saved}: " in ran.err, ran
    assert not Path("RAN").exists()
