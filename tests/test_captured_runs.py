"""``graphs`` through the public door: prompts, answers and texts, resuming, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit.adapters import WEIGHTS_NAME
from beftkit.graphs import NotCaptured
from beftkit.training import forwards
from beftkit.watching import Unwatched
from tests.causal_models import questions, texts, write_model, write_squad, write_sst2
from tests.tiny_run import QUICK


class Looks(Unwatched):
    """Keeps notes and losses; stops a run after so many updates."""

    def __init__(self, after: int = 0) -> None:
        self.left, self.notes, self.losses = after, list[str](), list[float]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def logged(self, record: Any) -> None:
        if "lr" in record:
            self.losses.append(record["loss"])

    def advanced(self, steps: int) -> None:
        self.left -= steps
        if self.left == 0:
            raise KeyboardInterrupt


def train(place: Path, **more: Any) -> Any:
    return api.train(
        place / "base", train_file=str(place / "train.jsonl"), device="cpu",
        validation_file=str(place / "dev.jsonl"), bias="v", **{**QUICK, **more},
    )  # fmt: skip


def test_the_mode_is_in_the_state(place: Path, tmp_path: Path) -> None:
    """BERT's own dropout; an evaluation each epoch, captured too."""
    one, other = tmp_path / "stopped", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        train(place, graphs="on", output=str(one), save_steps=1, watcher=Looks(5))
    with pytest.raises(api.BeftError, match=r"updates were captured so far.*graphs='on'"):
        train(place, graphs="off", output=str(one), resume=True)
    train(place, graphs="on", output=str(one), resume=True)
    looks = Looks()
    train(place, graphs="on", output=str(other), watcher=looks)
    assert not [note for note in looks.notes if "eager" in note]
    written = [(folder / "adapter" / WEIGHTS_NAME).read_bytes() for folder in (one, other)]
    assert written[0] == written[1]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OPT without dropout, and data of each kind that a causal model learns."""
    folder = tmp_path_factory.mktemp("asked")
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    write_model(folder / "opt", "opt", tokens=questions, **still)
    write_sst2(folder, train=24, validation=4)
    write_squad(folder, train=24, validation=4)
    lines = [json.dumps({"text": text}) + "\n" for text in texts(24, 1)]
    (folder / "texts.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("kind", ["choice", "generation", "language"])
def test_what_causal_models_learn(kind: str, asked: Path) -> None:
    """Two rows an example, losses over tokens, tokens anywhere in a row: as without."""
    data: dict[str, Any] = {
        "choice": {"task": "sst2", "data_dir": str(asked)},
        "generation": {"task": "squad", "data_dir": str(asked)},
        "language": {"train_file": str(asked / "texts.jsonl"), "as_": "language"},
    }[kind]
    if kind == "language":
        data["validation_file"] = data["train_file"]
    found = []
    for way in ("on", "off"):
        looks = Looks()
        done = api.train(
            asked / "opt", bias="v", device="cpu", graphs=way, max_steps=5, log_steps=1,
            batch_size=5, lr=1e-2, validation_size=2, watcher=looks, **data,
        )  # fmt: skip
        assert not [note for note in looks.notes if "eagerly" in note]
        found.append((looks.losses, done.runs[0].scores["v"]))
    assert len(found[0][0]) == 5
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-3)


def test_no_option_of_a_device_stands_in_the_way_unsaid() -> None:
    from beftkit.training.fitness import hindrance
    from tests.test_trainer import job, model

    ours = job(model(), graphs="on")
    ours.model.hf_device_map = {"a": 0, "b": 1}
    assert hindrance(ours) == "the model lies on several devices"
    ours.model.hf_device_map = {"": "cpu"}
    assert hindrance(ours) is None
    object.__setattr__(ours.settings, "precision", "fp16")
    assert "found on the host" in (hindrance(ours) or "")


def test_evaluating_and_predicting(place: Path, tmp_path: Path) -> None:
    """Answers and metrics of a run's adapter, captured and not: the same, to rounding."""
    output = tmp_path / "run"
    train(place, graphs="off", output=str(output), epochs=1)
    rows = str(place / "dev.jsonl")
    how: dict[str, Any] = {"device": "cpu", "batch_size": 8}
    found = []
    for way in ("on", "off"):
        done = api.evaluate(output, validation_file=rows, graphs=way, **how)
        lines = api.load(output, graphs=way, **how)(
            [f"{word} film" for word in "good bad a".split()]
        )
        found.append((done.evaluation, lines, done.notes))
    assert found[0][0].metrics == found[1][0].metrics and found[0][2] == found[1][2]
    assert found[0][0].loss == pytest.approx(found[1][0].loss, rel=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, rel=1e-6)


def test_predicting_eagerly_says_why(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, however often it is called, and in the notes of what is written."""
    output = tmp_path / "run"
    train(place, graphs="off", output=str(output), epochs=1)
    predictor = api.load(output, graphs="on", device="cpu", batch_size=8)
    assert predictor("good") and predictor.eager == []
    predictor.model.register_forward_hook(lambda module, _, out: (bool(out[0].sum() > 0), out)[1])
    assert predictor("good") and predictor(["bad", "good"])
    (said,) = predictor.eager
    assert said.startswith("prediction goes on eagerly, not captured: is_nonzero")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "good"}\n{"text": "bad"}\n')

    def never(*_: Any, **__: Any) -> None:
        raise NotCaptured("for a reason")

    monkeypatch.setattr(forwards, "capture", never)
    how: dict[str, Any] = {"device": "cpu", "graphs": "on", "output": str(tmp_path / "out.jsonl")}
    done = api.predict(output, file=str(rows), **how)
    assert [note for note in done.notes if "not captured: for a reason" in note]
