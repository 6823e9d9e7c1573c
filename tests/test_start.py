"""What goes before a run's first update: no more than has to, and no safeguard less."""

import hashlib
import os
import random
import subprocess
import sys
import threading
import warnings
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from beftkit import models
from beftkit.training import digests
from beftkit.training.stepper import share_of_rate

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["constant_with_warmup", "linear"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 7), (3, 7), (7, 7), (9, 7), (1, 1), (0, 0)])
def test_rates_are_those_of_transformers(name: str, warmup: int, steps: int) -> None:
    """To the bit, and what a state holds of them, too: one of before is taken up."""
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import get_scheduler

    def course(make: Any) -> tuple[list[float], dict[str, Any]]:
        adam = torch.optim.SGD([torch.zeros(1)], lr=3e-4)
        scheduler, rates = make(adam), []
        for _ in range(steps + 3):
            rates.append(scheduler.get_last_lr()[0])
            adam.step()
            scheduler.step()
        return rates, scheduler.state_dict()

    end = steps if name == "linear" else None
    ours = partial(share_of_rate, warmup=warmup, end=end)
    theirs = partial(get_scheduler, name, num_warmup_steps=warmup, num_training_steps=steps)
    assert course(lambda adam: LambdaLR(adam, ours)) == course(lambda adam: theirs(optimizer=adam))


def test_seeds_are_those_of_transformers() -> None:
    from transformers import set_seed

    def drawn(seed: Any) -> tuple[float, float, float]:
        seed(7)
        return random.random(), float(np.random.random()), float(torch.rand(()))

    assert drawn(models._seeded) == drawn(set_seed)


class Model(nn.Module):
    """Two matrices, a vector."""

    def __init__(self) -> None:
        super().__init__()
        random_values = torch.Generator().manual_seed(0)
        for name, shape in (("b", (5,)), ("w", (3, 4)), ("a", (2, 2, 2))):
            values = torch.randn(shape, generator=random_values)
            self.register_parameter(name, nn.Parameter(values))


def plain(model: Model) -> dict[str, str]:
    """The digests one value after another, as they have been since they were first written."""
    exact, rest = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for name in ("a", "b", "w"):
        value = model.get_parameter(name)
        about = f"{name} {value.dtype} {[*value.shape]}".encode()
        data = value.detach().numpy().tobytes()
        if value.dim() < 2:
            exact.update(about + data)
        else:
            rest.update(about + zlib.crc32(data).to_bytes(4, "little"))
    return {digests.BIASES: exact.hexdigest(), digests.WEIGHTS: rest.hexdigest()}


def test_digests_are_made_beside_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """In other threads, of what lay there when they began, wherever the model goes meanwhile."""
    model, go, seen = Model(), threading.Event(), set[str]()
    expected = plain(model)
    assert digests.base_digests(model, ()) == expected
    checksum = zlib.crc32

    def waits(data: Any) -> int:
        seen.add(threading.current_thread().name)
        assert go.wait(30)
        return checksum(data)

    monkeypatch.setattr(digests.zlib, "crc32", waits)
    with digests.digesting(model, ()) as found:
        for value in model.parameters():  # as a move to a device puts others in their place
            value.data = torch.zeros_like(value.data)
        go.set()
        assert found() == expected
    assert threading.main_thread().name not in seen
    assert not [one for one in threading.enumerate() if one.name in seen]


def test_nothing_waits_for_digests_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not begun is dropped; texts that cannot be read are told of at once."""
    begun: list[int] = []
    first, go = threading.Event(), threading.Event()

    def slow(data: Any) -> int:
        begun.append(1)
        first.set()
        assert go.wait(30)
        return 0

    monkeypatch.setattr(digests.zlib, "crc32", slow)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(ValueError, match="a text"), digests.digesting(Model(), ()):
        assert first.wait(30)
        threading.Timer(0.2, go.set).start()
        raise ValueError("a text")
    assert len(begun) == 1


@pytest.mark.parametrize("classes", [1, 2, 3, 40])
def test_counted_metrics_are_those_of_sklearn(classes: int) -> None:
    """To the bit, whatever classes one side lacks; scikit-learn takes longer to import."""
    from sklearn import metrics as judge

    from beftkit.tasks.formulas import FUNCTIONS

    for seed in range(40):
        draw = np.random.default_rng(seed)
        count = int(draw.integers(1, 300))
        expected = draw.integers(0, classes, count)
        predicted = np.where(draw.random(count) < seed / 40, expected, draw.integers(0, classes))
        f1 = partial(judge.f1_score, expected, predicted, zero_division=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one label alone
            wanted = {
                "accuracy": judge.accuracy_score(expected, predicted),
                "macro_f1": f1(average="macro"),
                "matthews": judge.matthews_corrcoef(expected, predicted),
            } | ({"f1": f1()} if classes <= 2 else {})
        found = {name: FUNCTIONS[name][0](expected, predicted) for name in wanted}
        assert found == wanted


@pytest.mark.slow
def test_training_imports_no_more_than_it_needs(tiny: Path, tmp_path: Path) -> None:
    """PEFT is for LoRA alone, scikit-learn for errors of values: a second together."""
    code = (
        "import sys, beftkit\n"
        "beftkit.train('base', train_file='train.jsonl', validation_file='dev.jsonl', bias='v',"
        " max_steps=1, device='cpu', new_head=True, output=sys.argv[1])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        cwd=tiny,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not {"peft", "sklearn", "pandas", "matplotlib"} & {*done.stdout.split()}
