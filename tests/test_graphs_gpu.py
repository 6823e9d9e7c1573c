"""Captured updates on a GPU: ``pytest -m gpu -s tests/test_graphs_gpu.py`` prints every figure.

The test of kills runs on the CPU too, with the stand-in, where slow tests run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from beftkit.training.captured import CapturedStepper
from beftkit.training.trainer import Trainer
from tests.graphs_run import bert, by_role, run, run_of, uncaptured

ROOT = Path(__file__).parents[1]
gpu = pytest.mark.gpu


def captured(trainer: Trainer) -> CapturedStepper:
    """Its stepper, which has replayed."""
    stepper, notes = trainer.stepper, trainer.job.watcher.notes  # type: ignore[attr-defined]
    assert isinstance(stepper, CapturedStepper), notes
    assert len(stepper.graphs) > 1 and not stepper.eager, (stepper.eager, notes)
    return stepper


def apart(one: Trainer, other: Trainer, start: Trainer, what: str) -> dict[str, float]:
    """How far apart two runs end, by role: as a share of the values, and of how far they went."""
    ours, theirs, before = by_role(one), by_role(other), by_role(start)
    found = {}
    for role, judge in theirs.items():
        gap, way = float((ours[role] - judge).norm()), float((judge - before[role]).norm())
        found[role] = gap / float(judge.norm())
        print(f"{what} {role}: {found[role]:.1e} of the values, {gap / max(way, 1e-30):.1e} of it")
    return found


def losses(trainer: Trainer) -> torch.Tensor:
    """Of each update."""
    records = trainer.job.watcher.records  # type: ignore[attr-defined]
    return torch.tensor([one["loss"] for one in records if "lr" in one], dtype=torch.float64)


@gpu
@pytest.mark.parametrize(
    ("bias", "more"),
    [
        ("q,v", {}),
        ("v", {"accumulation": 3, "schedule": "linear", "warmup": 5, "max_grad_norm": 0.3}),
        ("full", {"lr": 1e-4, "weight_decay": 0.1}),
        ("rand:500", {}),
        ("v", {"track_steps": 1}),
    ],
)
def test_captured_is_eager(bias: str, more: dict[str, Any]) -> None:
    """50 updates without dropout: to the same batches without a graph, and to the eager run."""
    way: dict[str, Any] = {"bias": bias, "epochs": 12, **more}
    updates = 50
    start = run_of(bert(), "cuda", "on", **way)
    one = run(run_of(bert(), "cuda", "on", **way), updates)
    stepper = one.stepper
    assert isinstance(stepper, CapturedStepper)
    if bias == "full":  # the tokens' table has gradients that a GPU may count on the host
        print(f"\nfull: {[*stepper.graphs]}, eager {stepper.eager}: {one.job.watcher.notes}")  # type: ignore[attr-defined]
    else:
        captured(one)
    print(f"\n{bias}: widths {stepper.widths.chosen}, {stepper.widths.added:.3f} more tokens")
    same = run(uncaptured(run_of(bert(), "cuda", "on", **way)), updates)
    plain = run(run_of(bert(), "cuda", "off", **way), updates)
    for other, what, limit in ((same, "same batches", 1e-6), (plain, "eager", 1e-5)):
        gap = float((losses(one) - losses(other)).norm() / losses(other).norm())
        print(f"{what} losses: {gap:.1e}")
        assert gap < limit
        assert all(value < limit for value in apart(one, other, start, what).values())


@gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    """bf16 by autocast, and of a bfloat16 model whose float32 values are written back."""
    way: dict[str, Any] = {"precision": "bf16", "epochs": 12}

    def net() -> Any:
        return bert().to(getattr(torch, dtype))

    backends = torch.backends.cuda
    before = backends.cudnn_sdp_enabled()
    backends.enable_cudnn_sdp(False)
    try:
        start = run_of(net(), "cuda", "on", **way)
        one = run(run_of(net(), "cuda", "on", **way), 50)
        captured(one)
        same = run(uncaptured(run_of(net(), "cuda", "on", **way)), 50)
        plain = run(run_of(net(), "cuda", "off", **way), 50)
    finally:
        backends.enable_cudnn_sdp(before)
    print()
    apart(one, plain, start, "eager")
    assert max(apart(one, same, start, "same batches").values()) < 1e-6
    assert float((losses(one) - losses(plain)).norm() / losses(plain).norm()) < 2e-2


@gpu
def test_same_seed_same_bits() -> None:
    ends = []
    for seed in (3, 3, 4):
        trainer = run(run_of(bert(0.1), "cuda", "on"), seed=seed)
        captured(trainer)
        ends.append(by_role(trainer))
    assert all(torch.equal(ends[0][role], ends[1][role]) for role in ends[0])
    assert not torch.equal(ends[0]["v"], ends[2]["v"])
    same = by_role(run(uncaptured(run_of(bert(0.1), "cuda", "on"))))
    gap = float((same["v"] - ends[0]["v"]).norm() / same["v"].norm())
    print(f"\ndropout .1, replayed against the same batches without a graph: v {gap:.1e}")


@gpu
def test_recording_behind_eager_updates() -> None:
    """Some widths are eager, on the stream that nothing is recorded on; the others captured."""
    trainer = run_of(bert(0.1), "cuda", "on")
    stepper = trainer.stepper
    assert isinstance(stepper, CapturedStepper)
    few = {*stepper.widths.chosen[::2]}
    stepper.eager = {*few}
    run(trainer)
    assert stepper.eager == few and stepper.graphs, trainer.job.watcher.notes  # type: ignore[attr-defined]
    same = by_role(run(uncaptured(run_of(bert(0.1), "cuda", "on"))))
    gap = float((same["v"] - by_role(trainer)["v"]).norm() / same["v"].norm())
    print(f"\nsome widths eager, against all eager, dropout .1: v {gap:.1e}")


@gpu
def test_evaluations() -> None:
    """Replayed against eager: losses and predictions of the same model."""
    from beftkit.objectives import make_objective
    from beftkit.training.evaluation import evaluate_model
    from beftkit.training.forwards import Replays
    from tests.graphs_run import examples

    trainer = run_of(bert(), "cuda", "on")
    job, notes = trainer.job, list[str]()
    what = job.model, {"validation": examples(150)}, make_objective("classes", ("no", "yes"))
    replays = Replays("on", 3, notes.append)
    for _ in range(2):
        one = evaluate_model(*what, ["accuracy"], job.accelerator, 32, replays=replays)
    other = evaluate_model(*what, ["accuracy"], job.accelerator, 32)
    assert replays.held["validation"].graphs and not notes, notes
    print(f"\nevaluation: losses {one.loss} {other.loss}")
    assert one.metrics == other.metrics and abs(one.loss - other.loss) < 1e-5


@gpu
def test_recording_leaves_no_trace() -> None:
    from beftkit.tasks import plan

    trainer = run_of(bert(0.1), "cuda", "on")
    stepper = trainer.stepper
    assert isinstance(stepper, CapturedStepper)
    trainer.job.model.train()
    batches = plan(trainer.job.train.lengths, 16, seed=0, epoch=0)
    stepper.planned(batches, len(batches) - 1)
    before = [tensor.clone() for tensor in stepper._moving()]
    random = torch.cuda.get_rng_state()
    stepper._record("update", stepper.widths.chosen[-1], stepper._update)
    assert stepper.graphs, trainer.job.watcher.notes  # type: ignore[attr-defined]
    assert torch.equal(random, torch.cuda.get_rng_state())
    for one, other in zip(stepper._moving(), before, strict=True):
        assert torch.equal(one, other)


def usable() -> None:
    """Dropout draws, and another model is captured."""
    assert 0 < float(torch.nn.functional.dropout(torch.ones(999, device="cuda")).mean()) < 2
    captured(run(run_of(bert(0.1), "cuda", "on", epochs=1)))


@gpu
def test_a_forward_that_waits_goes_on_eagerly() -> None:
    net = bert()
    net.register_forward_pre_hook(
        lambda module, _: bool(module.classifier.weight.sum() > 9) or None
    )
    one = run(run_of(net, "cuda", "on", epochs=2))
    stepper = one.stepper
    assert isinstance(stepper, CapturedStepper) and {*stepper.graphs} <= {("scores", 0)}
    (note,) = one.job.watcher.notes  # type: ignore[attr-defined]
    print(f"\n{note}")
    same = run(uncaptured(run_of(bert(), "cuda", "on", epochs=2)))
    assert torch.equal(by_role(one)["v"], by_role(same)["v"])
    usable()


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=gpu)]
)
def test_killed_and_taken_up(device: str, tmp_path: Path) -> None:
    """SIGKILL: the end is that of a run that was left alone, bit by bit."""

    def begun(name: str) -> subprocess.Popen[bytes]:
        (tmp_path / name).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.graphs_run", str(tmp_path / name), device]
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path})

    whole, process = begun("whole"), begun("killed")
    until = time.monotonic() + 90
    while not [*(tmp_path / "killed" / "state").glob("step-*09.safetensors")]:
        assert process.poll() is None and time.monotonic() < until, process.poll()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert begun("killed").wait() == 0 and whole.wait() == 0
    ends = [torch.load(tmp_path / name / "end.pt") for name in ("whole", "killed")]
    for role in ends[0]:
        assert torch.equal(ends[0][role], ends[1][role]), role


@gpu
def test_gradient_checkpointing() -> None:
    """Captured or not, the same result; which of both is printed."""
    way: dict[str, Any] = {"gradient_checkpointing": True, "epochs": 1}
    start = run_of(bert(), "cuda", "on", **way)
    one = run(run_of(bert(), "cuda", "on", **way))
    plain = run(run_of(bert(), "cuda", "off", **way))
    stepper = one.stepper
    assert isinstance(stepper, CapturedStepper)
    print(f"\ngraphs {len(stepper.graphs)}, eager {stepper.eager}: {one.job.watcher.notes}")  # type: ignore[attr-defined]
    assert max(apart(one, plain, start, "checkpointing").values()) < 1e-5


@gpu
def test_a_recording_that_fails_leaves_the_process_usable() -> None:
    """As no trial before can find it: the recording itself is broken off. The last test."""
    good = run_of(bert(0.1), "cuda", "on", epochs=1)
    run(good, 5)
    recorded: Any = torch._C._cuda_isCurrentStreamCapturing  # type: ignore[attr-defined]
    waits = list[bool]()

    def wait_while_recorded(module: Any, *_: Any) -> None:
        if recorded():
            waits.append(True)
            float(module.classifier.weight.sum())

    net = bert(0.1)
    net.register_forward_pre_hook(wait_while_recorded)
    bad = run(run_of(net, "cuda", "on", epochs=1))
    stepper = bad.stepper
    assert isinstance(stepper, CapturedStepper)
    print(f"\n{bad.job.watcher.notes}")  # type: ignore[attr-defined]
    assert waits and stepper.eager == {*stepper.widths.chosen}
    assert {*stepper.graphs} <= {("scores", 0)}
    usable()
    reserved = torch.cuda.memory_reserved()
    for _ in range(3):
        torch.empty(2**20, device="cuda").normal_()
    torch.cuda.empty_cache()
    print(f"memory reserved {reserved >> 20} MiB, then {torch.cuda.memory_reserved() >> 20} MiB")
