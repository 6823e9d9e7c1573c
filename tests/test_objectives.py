"""Losses against the models' own, and metrics against scikit-learn, scipy and figures by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as judge

from beftkit import tasks
from beftkit.errors import BeftError
from beftkit.objectives import Objective, make_objective
from beftkit.tasks import Batch
from tests.tiny_models import build


def objective_for(labels: tuple[str, ...]) -> Objective:
    return make_objective("classes" if labels else "values", labels)


ROOT = Path(__file__).parents[1]


def batch(targets: torch.Tensor) -> Batch:
    ids = torch.randint(0, 30, (len(targets), 7), generator=torch.Generator().manual_seed(1))
    return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, targets)


@pytest.mark.parametrize(
    ("labels", "targets"),
    [
        (("a", "b", "c"), torch.tensor([0, 2, 1, 1])),
        (("no", "yes"), torch.tensor([1])),
        ((), torch.tensor([0.5, -1.0, 2.0])),
        ((), torch.tensor([4.5])),
    ],
)
def test_losses_are_the_models_own(labels: tuple[str, ...], targets: torch.Tensor) -> None:
    network, given = build("bert", num_labels=max(len(labels), 1)), batch(targets)
    objective = objective_for(labels)
    losses, outputs = objective.losses(network, given)
    own = network(**given.inputs, labels=targets)
    assert losses.shape == targets.shape
    torch.testing.assert_close(losses.mean(), own.loss, rtol=1e-6, atol=1e-7)
    predictions = objective.predictions(outputs)
    wanted = own.logits.argmax(-1) if labels else own.logits[:, 0]
    assert torch.equal(predictions, wanted)
    if labels:
        nll = torch.stack(
            [-row.log_softmax(-1)[y] for row, y in zip(own.logits, targets, strict=True)]
        )
    else:  # -log of a normal density of variance 1, up to its constant
        normal = torch.distributions.Normal(own.logits[:, 0], 1.0)
        nll = -normal.log_prob(targets) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(objective.nll_factor * losses, nll)


@pytest.mark.parametrize("labels", [("a", "b"), ()])
def test_half_precision_is_left_before_the_loss(labels: tuple[str, ...]) -> None:
    network = build("bert", num_labels=max(len(labels), 1))
    targets = torch.tensor([1, 0]) if labels else torch.tensor([1.0, 0.0])
    with torch.autocast("cpu", torch.bfloat16):
        losses, outputs = objective_for(labels).losses(network, batch(targets))
        assert network(**batch(targets).inputs).logits.dtype == torch.bfloat16
    assert (losses.dtype, outputs.dtype) == (torch.float32, torch.float32)
    losses.sum().backward()
    assert network.get_parameter("classifier.bias").grad is not None
    double, _ = objective_for(labels).losses(network.double(), batch(targets))
    assert double.dtype == torch.float64


def test_a_head_that_does_not_fit() -> None:
    network = build("bert", num_labels=3)
    with pytest.raises(BeftError, match=r"\[2, 3\], expected \[2, 2\]: a classification head"):
        objective_for(("a", "b")).losses(network, batch(torch.tensor([0, 1])))


RNG = np.random.default_rng(0)
BINARY = RNG.integers(0, 2, 200), RNG.integers(0, 2, 200)
CLASSES = RNG.integers(0, 3, 200), RNG.integers(0, 3, 200)
VALUES = RNG.normal(size=200).astype(np.float32), RNG.normal(size=200).astype(np.float32)
JUDGES: dict[str, tuple[Any, Any]] = {
    "accuracy": (CLASSES, judge.accuracy_score(*CLASSES[::-1])),
    "f1": (BINARY, judge.f1_score(*BINARY[::-1])),
    "macro_f1": (CLASSES, judge.f1_score(*CLASSES[::-1], average="macro")),
    "matthews": (BINARY, judge.matthews_corrcoef(*BINARY[::-1])),
    "pearson": (VALUES, np.corrcoef(*np.array(VALUES, np.float64))[0, 1]),
    "spearman": (VALUES, stats.spearmanr(*VALUES).statistic),
    "mse": (VALUES, judge.mean_squared_error(*VALUES)),
    "mae": (VALUES, judge.mean_absolute_error(*VALUES)),
}  # fmt: skip


@pytest.mark.parametrize("name", tasks.METRIC_NAMES)
def test_metrics_against_their_judges(name: str) -> None:
    (predictions, references), wanted = JUDGES[name]
    found = tasks.compute_metrics([name], predictions, references)
    assert found == {name: pytest.approx(wanted, rel=1e-6)}
    assert type(found[name]) is float
    tensors = [torch.from_numpy(x) for x in (predictions, references)]
    assert tasks.compute_metrics([name], *tensors) == found
    metric = tasks.load_metric(name)  # evaluate's own protocol, in two batches
    for part in (slice(0, 77), slice(77, None)):
        metric.add_batch(predictions=predictions[part], references=references[part])
    assert metric.compute() == found


#: true: 1 1 1 0 0, predicted: 1 1 0 1 0, so tp 2, fp 1, fn 1, tn 1
HAND = {
    "accuracy": 3 / 5, "f1": 2 / 3, "macro_f1": (2 / 3 + 1 / 2) / 2, "mae": 2 / 5, "mse": 2 / 5,
    "matthews": (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2),
}  # fmt: skip


def test_metrics_by_hand() -> None:
    found = tasks.compute_metrics(list(HAND), [1, 1, 0, 1, 0], [1, 1, 1, 0, 0])
    assert list(found) == list(HAND), "in the order asked for"
    assert found == pytest.approx(HAND)
    loaded = [tasks.load_metric(name) for name in HAND]
    assert [metric.name for metric in loaded] == list(HAND)
    assert tasks.compute_metrics(loaded, [1, 1, 0, 1, 0], [1, 1, 1, 0, 0]) == found
    found = tasks.compute_metrics(["spearman", "pearson"], [1, 2, 3, 5], [1, 2, 4, 3])
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found["pearson"] == pytest.approx(4.5 / math.sqrt(8.75 * 5))
    # Only the first of three labels is found, and macro F1 counts the others as nought.
    found = tasks.compute_metrics(["macro_f1"], [0, 0, 0], [0, 1, 2])
    assert found["macro_f1"] == pytest.approx((2 * 1 / 4) / 3)


@pytest.mark.filterwarnings("error")
def test_what_is_not_defined() -> None:
    found = tasks.compute_metrics(["spearman", "pearson"], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    assert all(math.isnan(value) for value in found.values())
    assert math.isnan(tasks.compute_metrics(["pearson"], [1.0], [2.0])["pearson"])
    found = tasks.compute_metrics(["matthews", "f1", "macro_f1"], [0, 0, 0], [0, 1, 0])
    assert found == pytest.approx({"matthews": 0, "f1": 0, "macro_f1": 0.4})


def test_what_cannot_be_computed() -> None:
    with pytest.raises(BeftError, match="0 predictions for 0 examples"):
        tasks.compute_metrics(["accuracy"], [], [])
    with pytest.raises(BeftError, match="1 predictions for 2 examples"):
        tasks.compute_metrics(["accuracy"], [1], [1, 2])
    with pytest.raises(BeftError, match="'f1': is for two labels, the second one being the pos"):
        tasks.compute_metrics(["f1"], [1, 2], [1, 1])
    with pytest.raises(BeftError, match=r"metric='recall': not one of accuracy.*trust_remote_code"):
        tasks.load_metric("recall")


def test_directions() -> None:
    assert [name for name in tasks.METRIC_NAMES if not tasks.higher_is_better(name)] == [
        "mse", "mae",
    ]  # fmt: skip
    assert tasks.higher_is_better("some/metric")


def test_scripts_that_do_not_work(tmp_path: Path) -> None:
    for name in ("absent.py", str(tmp_path / "a/b"), str(tmp_path)):
        with pytest.raises(BeftError, match=r"no script there; expected FILE\.py"):
            tasks.load_metric(name)
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package\n")
    with pytest.raises(
        BeftError, match=r"broken\.py': cannot be loaded .*no_such_package"
    ) as caught:
        tasks.load_metric(str(broken))
    assert "\n" not in str(caught.value)


SCRIPT = """
import datasets
import evaluate
import numpy as np

class Other(evaluate.Metric):
    def _info(self):
        v = datasets.Value("int64")
        return evaluate.MetricInfo(description="", citation="", inputs_description="",
            features=datasets.Features({"predictions": v, "references": v}))

    def _compute(self, predictions, references):
        hits = sum(p == r for p, r in zip(predictions, references))
        return RESULT
"""
RUN = """
import json, sys
from beftkit import tasks
assert "evaluate" not in sys.modules
assert tasks.METRIC_NAMES and tasks.higher_is_better("f1") and "evaluate" not in sys.modules
given = [[1, 0, 1], [1, 1, 1]]
metrics = [*tasks.METRIC_NAMES[:4], *map(tasks.load_metric, ["hits", "hits/hits.py", "many.py"])]
print(json.dumps(tasks.compute_metrics(metrics, *given)))
for name in ("recall", "empty.py"):
    try:
        tasks.compute_metrics([tasks.load_metric(name, trust_remote_code=True)], *given)
    except tasks.metrics.BeftError as error:
        print(error)
"""


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Scripts of others; no network is there, and predictions are not written to the cache."""
    (tmp_path / "hits").mkdir()
    results = {
        "hits/hits.py": "{'hits': hits}",
        "many.py": "{'a': 1, 'b': np.float32(0.5), 'text': '1', 'list': [1]}",
        "empty.py": "{'text': '1'}",
    }
    for name, result in results.items():
        (tmp_path / name).write_text(SCRIPT.replace("RESULT", result))
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given |= {
        "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=given, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, absent, empty = done.stdout.splitlines()
    assert json.loads(found) == pytest.approx(
        {"accuracy": 2 / 3, "f1": 0.8, "macro_f1": 0.4, "matthews": 0.0, "hits": 2.0,
         "many_a": 1.0, "many_b": 0.5}
    )  # fmt: skip
    assert absent.startswith("metric='recall': cannot be loaded (")
    assert empty == "metric='empty': gives no number"
    predictions = tmp_path / "home" / "metrics"  # where evaluate would put them, and locks
    assert [path for path in predictions.rglob("*") if path.is_file()] == []
