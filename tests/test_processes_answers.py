"""Prompts' answers in two processes: what is trained, and what is written, as by one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import saved_states
from tests.causal_models import questions, sentences, write_model, write_squad
from tests.forked import Command, start_pair
from tests.prompt_files import write_records

pytestmark = pytest.mark.slow

#: answers of unlike length, whose tokens count alike
RIGHT, WRONG = "Great it was.", "Terrible it was indeed with its old song."
COPA = ("train", "still", "--task", "copa", "--data-dir", "data", "--bias", "v", "--lr", "1e-2",
        "--epochs", "1", "--validation-size", "8", "--log-steps", "1", "--quiet",
        "--no-group-by-length", "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    write_model(folder / "still", "opt", dropout=0.0)
    write_model(folder / "opt", "opt", steps=40, learn=questions, tokens=questions)
    write_squad(folder / "data", validation=21)
    (folder / "data" / "COPA").mkdir()
    for name, count, seed in (("train", 57, 1), ("val", 8, 2)):
        records = [
            {"premise": f"{sentence}.", "choice1": WRONG, "choice2": RIGHT, "question": "effect",
             "idx": number, "label": label}
            for number, (sentence, label) in enumerate(sentences(count, seed))
        ]  # fmt: skip
        write_records(folder / "data" / "COPA" / f"{name}.jsonl", records)
    return folder


def test_two_with_accumulated_batches_take_the_mean_over_all_tokens(place: Path) -> None:
    """The halves of a batch in each process have other answers, and so other numbers of tokens."""
    one = Command(place, [*COPA, "--batch-size", "16", "-o", "one"])
    assert one.wait() == 0, one.said
    pair = start_pair(place, [*COPA, "--batch-size", "8", "--accumulation", "2", "-o", "two"])
    assert [command.wait() for command in pair] == [0, 0], [command.said for command in pair]
    assert 0 < saved_states.largest_difference(place / "one", place / "two") < 1e-6
    lines = [
        [line for line in saved_states.log(place / name) if "grad_norm" in line]
        for name in ("one", "two")
    ]
    assert len(lines[0]) == len(lines[1]) == 4
    for alone, together in zip(*lines, strict=True):
        for key in ("loss", "grad_norm"):
            assert together[key] == pytest.approx(alone[key], rel=1e-5)


def test_texts_written_by_two_are_those_of_one(place: Path) -> None:
    """21 questions in batches of 4: six for two processes, of which the last is one question."""
    given: list[Any] = ["evaluate", "opt", "--task", "squad", "--data-dir", "data", "--quiet",
                        "--batch-size", "4", "--device", "cpu", "--format", "json"]  # fmt: skip
    one = Command(place, given, before=write_down)
    assert one.wait() == 0, one.said
    texts = noted(place, "")
    pair = start_pair(place, given, (write_down, write_down))
    assert [command.wait() for command in pair] == [0, 0], [command.said for command in pair]
    alone, together = (json.loads(command.out.read_text()) for command in (one, pair[0]))
    for key in ("metrics", "standard_errors", "examples"):
        assert together[key] == alone[key]
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert pair[1].out.read_text() == ""
    first, second = noted(place, "0"), noted(place, "1")
    assert (len(first), len(second)) == (12, 9)  # each wrote its own and no other
    assert {**first, **second} == texts and len({*texts.values()}) > 5


def noted(place: Path, rank: str) -> dict[str, str]:
    """Prompt to text, of what a process wrote."""
    found: dict[str, str] = json.loads((place / f"written{rank}.json").read_text())
    return found


def write_down() -> None:
    """Note what this process writes itself."""
    from beftkit.objectives.generation import Generation

    plain, found = Generation.evaluated, dict[str, str]()
    note = Path(f"written{os.environ.get('RANK', '')}.json")

    def evaluated(self: Any, model: Any, batch: Any) -> Any:
        losses, texts = plain(self, model, batch)
        ids = batch.inputs["prompt_input_ids"]
        prompts = batch.tokenizer.batch_decode(ids, skip_special_tokens=True)
        found.update(zip(prompts, texts, strict=True))
        note.write_text(json.dumps(found))
        return losses, texts

    Generation.evaluated = evaluated  # type: ignore[method-assign]
