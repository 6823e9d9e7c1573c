"""What a run was begun with has changed when it is taken up: that is refused, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import saved_states, tiny_run
from tests.command import Beftkit, refused

pytestmark = pytest.mark.slow

DATA = ("base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu",
        "--batch-size", "8", "--lr", "1e-2", "-q")  # fmt: skip
RUN = ("train", *DATA, "--epochs", "1", "--bias", "v", "-o", "out")


@pytest.fixture
def here(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data and a base that may be changed."""
    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stop(folder: Path) -> None:
    """Leave a run that came to its end as it was just before."""
    for name in ("all_results.json", "trainer_state.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "adapter")


def other_rows(here: Path) -> None:
    tiny_run.write_examples(here / "train.jsonl", 30, 9)


def other_labels(here: Path) -> None:
    text = (here / "train.jsonl").read_text()
    swapped = text.replace('"neg"', "?").replace('"pos"', '"neg"').replace("?", '"pos"')
    (here / "train.jsonl").write_text(swapped)


def other_names(here: Path) -> None:
    for name in ("train.jsonl", "dev.jsonl"):
        text = (here / name).read_text()
        (here / name).write_text(text.replace('"neg"', '"a"').replace('"pos"', '"b"'))


def another_order(here: Path) -> None:
    lines = (here / "train.jsonl").read_text().splitlines()
    (here / "train.jsonl").write_text("\n".join(reversed(lines)))


def other_validation(here: Path) -> None:
    tiny_run.write_examples(here / "dev.jsonl", 31, 9)


def changed(name: str) -> Callable[[Path], None]:
    def change(here: Path) -> None:
        path = here / "base" / "model.safetensors"
        tensors = load_file(path)
        with torch.no_grad():
            tensors[name].view(-1)[3] += 1e-3
        save_file(tensors, path, metadata={"format": "pt"})

    return change


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "rows": (other_rows, "out: the training examples differ"),
    "labels": (other_labels, "out: the training examples differ"),
    "names": (other_names, "the training examples and the validation examples differ"),
    "order": (another_order, "out: the training examples differ"),
    "validation": (other_validation, "out: the validation examples differ"),
    "trained bias": (
        changed("encoder.layer.0.attention.self.value.bias"),
        "out: the base's biases differ",
    ),
    "frozen bias": (
        changed("encoder.layer.1.attention.self.key.bias"),
        "out: the base's biases differ",
    ),
    "frozen weight": (
        changed("encoder.layer.1.output.dense.weight"),
        "out: the base's weights differ",
    ),
}


@pytest.mark.parametrize(
    ("case", "ended"),
    [*((case, False) for case in CHANGES), ("rows", True), ("frozen weight", True)],
)
def test_what_has_changed_is_named(case: str, ended: bool, here: Path, beftkit: Beftkit) -> None:
    change, message = CHANGES[case]
    assert beftkit(*RUN).code == 0
    if not ended:
        stop(here / "out")
    before = saved_states.log(here / "out")
    kept = {name: (here / name).read_bytes() for name in ("train.jsonl", "dev.jsonl")}
    weights = (here / "base" / "model.safetensors").read_bytes()
    change(here)
    refused(beftkit("train", "-o", "out", "--resume", "-q"), message)
    assert saved_states.log(here / "out") == before
    for name, data in kept.items():
        (here / name).write_bytes(data)
    (here / "base" / "model.safetensors").write_bytes(weights)
    assert beftkit("train", "-o", "out", "--resume", "-q").code == 0


def test_a_finished_seed_is_no_neighbour_for_other_data(here: Path, beftkit: Beftkit) -> None:
    assert beftkit(*RUN, "--seeds", "0,1", "--train-size", "20").code == 0
    (here / "out" / "all_results.json").unlink()
    shutil.rmtree(here / "out" / "seed-1")
    before = (here / "train.jsonl").read_bytes()
    other_rows(here)
    ran = beftkit("train", "-o", "out", "--resume", "-q")
    refused(ran, "out/seed-0: the training examples differ from those the run was begun with")
    assert not (here / "out" / "seed-1").exists()
    (here / "train.jsonl").write_bytes(before)
    assert beftkit("train", "-o", "out", "--resume", "-q").code == 0
    changed("encoder.layer.1.output.dense.weight")(here)
    refused(beftkit("train", "-o", "out", "--resume", "-q"), "seed-0: the base's weights differ")


def test_a_state_of_an_older_version_is_taken_up_with_a_note(here: Path, beftkit: Beftkit) -> None:
    from beftkit.training import state

    assert beftkit(*RUN).code == 0
    found = state.load_state(here / "out", print)
    assert found is not None
    tensors, facts = found
    assert set(facts["inputs"]) == {
        "the training examples",
        "the validation examples",
        "the base's biases",
        "the base's weights",
    }
    del facts["inputs"]
    step = facts["progress"]["step"]
    state.save_state(here / "out", step, tensors, facts)
    stop(here / "out")
    ran = beftkit("train", "-o", "out", "--resume")
    assert ran.code == 0 and "saved by an older version: whether data and base" in ran.err, ran


def test_a_grid_is_not_gone_on_with_on_another_base(here: Path, beftkit: Beftkit) -> None:
    grid = ("select", *DATA, "--epochs", "1", "--seeds", "0,1", "-o", "out")
    assert beftkit(*grid).code == 0
    cells = {path: path.read_bytes() for path in (here / "out").rglob("cell.json")}
    changed("encoder.layer.1.output.dense.weight")(here)
    for more in ((), ("--verify",)):
        ran = beftkit("select", "-o", "out", "--resume", "-q", *more)
        refused(ran, "probe: the base's weights differ from those")
    next(iter(cells)).unlink()  # of a cell that was not done with
    refused(beftkit("select", "-o", "out", "--resume", "-q"), "the base's weights differ")
    assert not next(iter(cells)).exists()


@pytest.mark.parametrize("change", [other_rows, other_validation])
def test_a_grid_is_not_gone_on_with_on_other_data(
    change: Callable[[Path], None], here: Path, beftkit: Beftkit
) -> None:
    assert beftkit("select", *DATA, "--epochs", "1", "-o", "out").code == 0
    before = json.loads((here / "out" / "select.json").read_text())
    change(here)
    refused(beftkit("select", "-o", "out", "--resume", "-q"), "examples differ from those")
    assert json.loads((here / "out" / "select.json").read_text()) == before


def test_auto_does_not_train_what_was_chosen_on_other_data(here: Path, beftkit: Beftkit) -> None:
    run = ("train", *DATA, "--epochs", "1", "--bias", "auto", "-o", "out")
    assert beftkit(*run).code == 0
    other_rows(here)
    refused(beftkit(*run, "--resume"), "the training examples differ from those")
