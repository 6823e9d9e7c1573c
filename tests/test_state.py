"""A run's state as a file: whole or skipped, whatever happened to it."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from beftkit import files as output
from beftkit.accelerator import make_accelerator
from beftkit.errors import BeftError
from beftkit.training import state

FACTS = {"progress": {"step": 3, "best": None}, "lr": 0.1 + 0.2, "text": 'é "quoted" {}'}


def tensors() -> dict[str, torch.Tensor]:
    return {
        "value.v": torch.tensor([0.1, -0.0, 1e-40]),
        "adam.0.step": torch.tensor(3.0),
        "meter": torch.tensor([1.5, float("inf")], dtype=torch.float64),
        "half": torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16).t(),
        "empty": torch.empty(0),
        "random.0.cpu": torch.arange(5, dtype=torch.uint8),
    }


def write(run: Path, step: int = 3) -> Path:
    return state.save_state(run, step, tensors(), {**FACTS, "at": step})


def read(run: Path) -> tuple[tuple[dict[str, torch.Tensor], dict[str, Any]] | None, list[str]]:
    said: list[str] = []
    return state.load_state(run, said.append), said


def is_whole(found: Any, step: int = 3) -> bool:
    held, facts = found
    wanted = tensors()
    return (
        facts == {**FACTS, "at": step}
        and held.keys() == wanted.keys()
        and all(held[k].dtype == v.dtype and torch.equal(held[k], v) for k, v in wanted.items())
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, [])
    write(tmp_path)
    found, said = read(tmp_path)
    assert is_whole(found) and said == []


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 99, 100):
        write(tmp_path, step)
    names = [path.name for path in sorted((tmp_path / "state").iterdir())]
    assert names == ["step-00000099.safetensors", "step-00000100.safetensors"]
    assert is_whole(read(tmp_path)[0], step=100)


def test_damaged_later_states_do_not_drive_out_new_ones(tmp_path: Path) -> None:
    for step in (28, 30):
        write(tmp_path, step).write_bytes(b"")
    assert read(tmp_path)[0] is None
    for step in (1, 2):
        write(tmp_path, step)
        found, said = read(tmp_path)
        assert is_whole(found, step=step) and said == [], "nor are they spoken of again"


def test_what_was_skipped_is_said(tmp_path: Path) -> None:
    first, second = write(tmp_path, 1), write(tmp_path, 2)
    second.write_bytes(second.read_bytes()[:-1])
    found, said = read(tmp_path)
    assert is_whole(found, step=1)
    [line] = said
    assert line.startswith(f"{second}: damaged (")
    assert line.endswith("; the state before it is taken")
    first.unlink()
    first.mkdir()
    found, said = read(tmp_path)
    assert found is None and len(said) == 2
    assert said[1].endswith("; no other is left: begun anew")


def test_a_flipped_bit_anywhere_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(0)
    bits = [8 * byte + rng.randrange(8) for byte in range(begin)]
    bits += rng.sample(range(begin * 8, len(whole) * 8), 100)
    harmless = 0
    for bit in bits:
        spoilt = bytearray(whole)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        found, said = read(tmp_path)
        if found is not None:  # a blank that became another one, say
            assert is_whole(found), bit
            harmless += 1
        else:
            assert len(said) == 1 and "\n" not in said[0]
    assert harmless < len(bits) / 50


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        found, said = read(tmp_path)
        assert found is None and len(said) == 1, length


@pytest.mark.parametrize("place", ["written", "renamed"])
def test_a_full_disk_leaves_the_states_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    before = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if place == "written":
        monkeypatch.setattr(output.os, "fdopen", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BeftError, match=r"cannot be written.*No space left"):
        write(tmp_path, 3)
    assert {path: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before


def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or cut off from power at any moment, what has the name is whole."""
    path = write(tmp_path, 1)
    before, order = path.read_bytes(), []
    plain_sync, plain_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        assert path.read_bytes() == before, "what was there is untouched"
        order.append(os.fstat(descriptor).st_size)
        plain_sync(descriptor)

    def replace(source: Path, target: Path) -> Path:
        assert path.read_bytes() == before
        order.append(target)
        return plain_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    data = before * 3
    output.write_whole(path, data)
    assert order == [len(data), path] and path.read_bytes() == data


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(BeftError, match="state: cannot be made"):
        write(tmp_path)


def test_random_generators_come_back() -> None:
    accelerator = make_accelerator("cpu")
    torch.manual_seed(1)
    random.seed(1)
    held = state.random_states(accelerator)
    assert all(value.dtype == torch.uint8 for value in held.values())
    expected = torch.rand(3).tolist(), random.random()
    torch.manual_seed(2)
    random.seed(2)
    state.restore_random(accelerator, held)
    assert (torch.rand(3).tolist(), random.random()) == expected


class Accelerated:
    """An optimiser as Accelerate wraps it."""

    def __init__(self, optimizer: Any, scaler: Any) -> None:
        self.optimizer, self.scaler = optimizer, scaler


def training(seed: int) -> tuple[torch.Tensor, Accelerated, Any]:
    value = torch.nn.Parameter(torch.full((5,), float(seed)))
    adam = torch.optim.AdamW([value], lr=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 0.9**step)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    return value, Accelerated(adam, scaler), schedule


def step(value: torch.Tensor, optimizer: Accelerated, schedule: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = (value * torch.rand(5, generator=generator)).sum()
    optimizer.scaler.scale(loss).backward()
    optimizer.scaler.step(optimizer.optimizer)
    optimizer.scaler.update()
    optimizer.optimizer.zero_grad()
    schedule.step()


def test_moments_schedule_and_scale_come_back() -> None:
    value, optimizer, schedule = training(0)
    for seed in range(3):
        step(value, optimizer, schedule, seed)
    held, course = state.optimizer_state(optimizer, schedule, [value])
    held = {name: tensor.clone() for name, tensor in held.items()}
    assert {name.split(".")[2] for name in held} == {"step", "exp_avg", "exp_avg_sq"}
    assert course["scaler"]["scale"] == 2.0**11
    other, again, course_again = training(7)
    with torch.no_grad():
        other.copy_(value)
    state.restore_optimizer(again, course_again, [other], held, course)
    for seed in range(3, 6):
        step(value, optimizer, schedule, seed)
        step(other, again, course_again, seed)
    assert torch.equal(value, other)
    assert again.scaler.get_scale() == optimizer.scaler.get_scale() == 2.0**13
    assert course_again.get_last_lr() == schedule.get_last_lr()


@pytest.mark.gpu
def test_the_generator_of_a_gpu_comes_back() -> None:
    accelerator = make_accelerator("cuda")
    held = state.random_states(accelerator)
    assert "random.0.cuda" in held
    expected = torch.rand(3, device=accelerator.device)
    assert not torch.equal(torch.rand(3, device=accelerator.device), expected)
    state.restore_random(accelerator, held)
    assert torch.equal(torch.rand(3, device=accelerator.device), expected)
