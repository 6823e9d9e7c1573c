"""What goes wrong in a run: one line, and nothing lost that was saved."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from beftkit import files as output
from tests import saved_states
from tests.command import Beftkit, Ran, refused
from tests.forked import Command

pytestmark = pytest.mark.slow

DATA = ("train", "base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl",
        "--device", "cpu", "--batch-size", "8", "--accumulation", "2")  # fmt: skip
RUN = (*DATA, "--epochs", "3", "--lr", "1e-2", "--schedule", "linear", "--save-steps", "1",
       "--track-steps", "1", "--keep", "best")  # fmt: skip
UPDATES = 12
Train = Callable[..., Ran]


@pytest.fixture(scope="module", autouse=True)
def whole(place: Path) -> None:
    """A run in ``whole``, and in ``stopped`` one that was before its end."""
    command = Command(place, [*RUN, "-o", "whole"])
    assert command.wait() == 0, command.said
    shutil.copytree(place / "whole", place / "stopped")
    for name in ("all_results.json", "trainer_state.json"):
        (place / "stopped" / name).unlink()
    shutil.rmtree(place / "stopped" / "adapter")


@pytest.fixture
def train(place: Path, monkeypatch: pytest.MonkeyPatch, beftkit: Beftkit) -> Train:
    """The command in this process, beside the data."""
    monkeypatch.chdir(place)
    return beftkit


@pytest.fixture
def out(place: Path) -> Iterator[Path]:
    """A copy of the stopped run; its newest states are of updates 11 and 12."""
    folder = place / "out"
    shutil.copytree(place / "stopped", folder)
    yield folder
    shutil.rmtree(folder)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def earlier(path: Path) -> None:
    """Another number in the header, which is JSON as before."""
    path.write_bytes(path.read_bytes().replace(b'\\"step\\": 12', b'\\"step\\": 11'))


@pytest.mark.parametrize("spoil", [empty, half, flipped, earlier])
def test_a_damaged_state_is_skipped_for_the_one_before(
    train: Train, place: Path, out: Path, spoil: Callable[[Path], None]
) -> None:
    newest = saved_states.states(out)[UPDATES]
    before = newest.read_bytes()
    spoil(newest)
    assert newest.read_bytes() != before
    ran = train(*RUN, "--resume", "-o", "out")
    assert ran.code == 0, ran
    assert f"out/state/{newest.name}: damaged (" in ran.err
    assert "the state before it is taken\ntaken up at update 11\n" in ran.err
    assert saved_states.same_runs(place / "whole", out)


def test_without_a_whole_state_a_run_begins_anew(train: Train, place: Path, out: Path) -> None:
    for path in saved_states.states(out).values():
        half(path)
    ran = train(*RUN, "--resume", "-o", "out")
    assert ran.code == 0, ran
    assert ran.err.count("damaged") == 2 and "no state is saved: begun anew\n" in ran.err
    assert saved_states.same_runs(place / "whole", out)


def test_a_log_that_is_gone_is_no_end(train: Train, out: Path) -> None:
    saved_states.states(out)[UPDATES].unlink()
    (out / "log.jsonl").write_text('{"step": 1}\n')
    assert train(*RUN, "--resume", "-o", "out").code == 0
    assert [line["step"] for line in saved_states.log(out)] == [1, 12, 12, 12]


def test_a_full_disk_loses_no_saved_state(
    train: Train, place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_states.states(out)[UPDATES].unlink()
    before = saved_states.states(out)[UPDATES - 1].read_bytes()
    plain = os.fdopen

    class Full:
        def __init__(self, descriptor: int, mode: str) -> None:
            self.file = plain(descriptor, mode)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> None:
            if len(data) < 4096:  # a note still fits
                self.file.write(data)
                return
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(output.os, "fdopen", Full)
        ran = train(*RUN, "--resume", "--quiet", "-o", "out")
    refused(ran, "out/state/step-00000012.safetensors: cannot be written (No space left on device)")
    assert {p.name: p.read_bytes() for p in (out / "state").iterdir()} == {
        "step-00000011.safetensors": before
    }
    assert train(*RUN, "--resume", "-o", "out").code == 0
    assert saved_states.same_runs(place / "whole", out)


def test_a_disk_that_is_really_full(place: Path) -> None:
    disk = place / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        (disk / "much").write_bytes(bytes(140_000))
        command = Command(place, [*RUN, "--quiet", "-o", "disk/out"])
        assert command.wait() == 1
        assert command.said.startswith("beftkit: error: disk/out/")
        assert command.said.endswith("(No space left on device)\n")
        assert command.said.count("\n") == 1
        reached = saved_states.newest(disk / "out")
        (disk / "much").unlink()
        command = Command(place, [*RUN, "--resume", "-o", "disk/out"])
        assert command.wait() == 0, command.said
        assert f"taken up at update {reached}\n" in command.said if reached else True
        assert saved_states.same_runs(place / "whole", disk / "out")
    finally:
        subprocess.run(["umount", disk], check=True)


def no_large_files() -> None:
    """As on a full disk, for whoever may not mount: files end at 8 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def test_a_file_that_may_not_grow(place: Path) -> None:
    command = Command(place, [*RUN, "--quiet", "-o", "limited"], before=no_large_files)
    assert command.wait() == 1
    assert command.said == (
        "beftkit: error: limited/state/step-00000001.safetensors: cannot be written (File too "
        "large)\n"
    )
    assert [*(place / "limited" / "state").iterdir()] == []


def test_a_state_folder_that_is_none(train: Train, out: Path) -> None:
    shutil.rmtree(out / "state")
    (out / "state").write_text("mine")
    ran = train(*RUN, "--resume", "--quiet", "-o", "out")
    refused(ran, "out/state: cannot be made (File exists)")
    assert (out / "state").read_text() == "mine"


def test_resuming_with_other_settings_is_refused(train: Train, out: Path) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    ran = train(*RUN, "--resume", "--quiet", "-o", "out", "--lr", "1e-3")
    refused(ran, "was begun with --lr 0.01, not 0.001; resume with the same settings")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def all_finite(run: Path) -> bool:
    held = [load_file(path) for path in saved_states.states(run).values()]
    held += [load_file(path) for path in (run / "snapshots").glob("*.safetensors")]
    return all(
        bool(torch.isfinite(value).all())
        for tensors in held
        for name, value in tensors.items()
        if value.is_floating_point() and name != "meter"
    )


def spoil_the_fifth_update() -> None:
    """A gradient that is no number, once, in the midst of an epoch."""
    from beftkit.training import stepper

    plain, calls = stepper.sum_over_processes, iter(range(1, 10**6))

    def summed(accelerator: Any, tensors: list[Any]) -> None:
        plain(accelerator, tensors)
        if tensors[0].requires_grad is False and tensors[0].dim() and len(tensors) > 1:
            if next(calls) == 5:
                tensors[0][0] = float("nan")

    stepper.sum_over_processes = summed


NOT_FINITE = "the loss or its gradient is not finite at update 5; try a lower --lr"


@pytest.mark.parametrize(
    "when",
    [(), ("--save-steps", "1", "--track-steps", "1"), ("--eval-steps", "2", "--log-steps", "50"),
     ("--log-steps", "7", "--eval-steps", "7", "--save-snapshots", "--keep", "best")],
    ids=["epochs", "states", "evaluations", "snapshots"],
)  # fmt: skip
def test_a_loss_that_is_no_number_stops_a_run(place: Path, when: tuple[str, ...]) -> None:
    shutil.rmtree(place / "nan", ignore_errors=True)
    command = Command(
        place, [*DATA, "--epochs", "3", "--lr", "1e-2", *when, "--quiet", "-o", "nan"],
        before=spoil_the_fifth_update,
    )  # fmt: skip
    assert command.wait() == 1
    assert command.said.count("\n") == 1 and NOT_FINITE in command.said
    assert "--resume takes up the last good state in nan/state" in command.said
    assert saved_states.newest(place / "nan") == 4 and all_finite(place / "nan")
    assert not (place / "nan" / "adapter").exists()
    command = Command(place, ["train", "--resume", "-o", "nan"])  # the fault was ours, and is gone
    assert command.wait() == 0 and "taken up at update 4\n" in command.said


def test_a_learning_rate_beyond_all_measure(train: Train, place: Path) -> None:
    ran = train(*RUN, "--lr", "1e38", "--save-snapshots", "--quiet", "-o", "wild")
    refused(ran, "is not finite at update 1; try a lower --lr, or --precision fp32")
    assert all_finite(place / "wild")


def test_a_spoilt_model_is_never_saved(train: Train, place: Path) -> None:
    shutil.copytree(place / "base", place / "spoilt")
    weights = load_file(place / "spoilt" / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(weights, place / "spoilt" / "model.safetensors", {"format": "pt"})
    ran = train("train", "spoilt", *RUN[2:], "--save-snapshots", "--quiet", "-o", "never")
    refused(ran, "is not finite at update 1")
    assert saved_states.newest(place / "never") == 0
    assert {path.name for path in (place / "never").iterdir()} <= {
        ".beftkit.lock", "log.jsonl", "manifest.json", "provenance.json",
        "run.yaml",
    }  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_on_a_gpu_a_stopped_run_comes_to_the_same_end(
    train: Train, place: Path, precision: str
) -> None:
    """The scale of fp16 and the GPU's generator (dropout) are in the state."""
    import beftkit as package
    from beftkit.training.trainer import Interrupted
    from beftkit.watching import Unwatched

    class Counted(Unwatched):
        steps = 0

        def advanced(self, steps: int) -> None:
            self.steps += steps

    def run(name: str, stop: int = 0, **options: Any) -> Any:
        watcher = Counted()
        return package.train(
            "base", train_file="train.jsonl", validation_file="dev.jsonl", epochs=3, batch_size=8,
            accumulation=2, lr=1e-2, schedule="linear", track_steps=1, save_steps=1, keep="best",
            device="cuda", precision=precision, output=name, watcher=watcher,
            asked_to_stop=lambda: 15 if watcher.steps == stop else 0, **options,
        )  # fmt: skip

    whole, stopped = f"gpu-{precision}", f"gpu-{precision}-stopped"
    run(whole)
    with pytest.raises(Interrupted):
        run(stopped, stop=3)
    with pytest.raises(Interrupted):
        run(stopped, stop=4, resume=True)
    run(stopped, resume=True)
    last = load_file(saved_states.states(place / stopped)[UPDATES])
    assert "random.0.cuda" in last
    assert saved_states.same_runs(place / whole, place / stopped)
