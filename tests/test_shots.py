"""Demonstrations before prompts: which are drawn, what is left out, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beftkit.errors import BeftError
from beftkit.objectives import make_objective
from beftkit.objectives.shots import Demonstrated, Shots
from beftkit.objectives.shots import demonstrate as put_before
from beftkit.tasks import Split
from beftkit.tasks.prompts import Prompted
from tests.causal_models import byte_level, texts, wrapped, write_model, write_sst2
from tests.command import Beftkit, refused
from tests.prompt_files import write_records


def asked(count: int, first: int = 0, label: int | None = None) -> Split:
    """Prompts ``p0 It was``, ... and answers, of which one is right."""
    made = tuple(
        Prompted(f"p{n} It was", (" bad", " good"), () if label == -1 else (n % 2,), group=f"g{n}")
        for n in range(first, first + count)
    )
    return Split((), np.zeros(count, np.int64), made)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return wrapped(byte_level(texts(50, 5), "</s>"))


def demonstrate(split: Split, others: Split, how: Shots, tokenizer: Any, most: int) -> Demonstrated:
    lengths = partial(make_objective("choice", ("bad", "good")).lengths, tokenizer=tokenizer)
    return put_before(split, others, how, most, lengths, tokenizer)


def shown(found: Demonstrated) -> list[list[str]]:
    return [one.prompt.split("\n\n") for one in found.split.asked]


def test_solved_examples_stand_before_the_prompt(tokenizer: Any) -> None:
    evaluated, train = asked(3, 100), asked(20)
    found = demonstrate(evaluated, train, Shots(4), tokenizer, 2048)
    assert (found.left_out, found.shortened) == (0, 0)
    solved = {f"p{n} It was {('bad', 'good')[n % 2]}" for n in range(20)}
    for one, parts, before in zip(found.split.asked, shown(found), evaluated.asked, strict=True):
        assert parts[-1] == before.prompt and len({*parts[:-1]} & solved) == 4
        assert (one.answers, one.right, one.group) == (before.answers, before.right, before.group)
    assert len({tuple(parts[:-1]) for parts in shown(found)}) == 3


def test_draws_follow_from_the_seed_and_the_example_alone(tokenizer: Any) -> None:
    train = asked(20)

    def drawn(evaluated: Split, how: Shots) -> list[list[str]]:
        return [parts[:-1] for parts in shown(demonstrate(evaluated, train, how, tokenizer, 9999))]

    four = drawn(asked(6, 100), Shots(4))
    assert four == drawn(asked(6, 100), Shots(4))
    assert four[2:] == drawn(asked(4, 102), Shots(4))  # whatever else is evaluated
    assert [one[:2] for one in four] == drawn(asked(6, 100), Shots(2))
    assert four != drawn(asked(6, 100), Shots(4, seed=1))
    common = drawn(asked(6, 100), Shots(4, common=True))
    assert all(one == common[0] for one in common) and common[0] not in four
    assert common != drawn(asked(6, 100), Shots(4, common=True, seed=1))


@pytest.mark.parametrize("common", [False, True])
def test_no_evaluated_example_demonstrates_anything(tokenizer: Any, common: bool) -> None:
    train = asked(6)
    evaluated = asked(2, 4)  # two of the training examples
    found = demonstrate(evaluated, train, Shots(4, common=common), tokenizer, 2048)
    assert (found.pool, found.evaluated) == (4, 2)
    for parts in shown(found):
        assert {one.partition(" ")[0] for one in parts[:-1]} == {"p0", "p1", "p2", "p3"}
    with pytest.raises(BeftError, match=r"shots=5: there are 4 examples with an answer to draw"):
        demonstrate(evaluated, train, Shots(5, common=common), tokenizer, 2048)
    with pytest.raises(BeftError, match=r"shots=1: there are 0 examples with an answer to draw"):
        demonstrate(evaluated, asked(6, label=-1), Shots(1, common=common), tokenizer, 2048)


def test_whole_demonstrations_are_left_out_to_fit(tokenizer: Any) -> None:
    def length(prompt: str) -> int:
        return max(len(tokenizer(prompt + end)["input_ids"]) for end in (" bad", " good"))

    whole = demonstrate(asked(5, 100), asked(20), Shots(8), tokenizer, 9999)
    longest = max(length(one.prompt) for one in whole.split.asked)
    for most in (longest, longest - 1, longest // 2, 12):
        found = demonstrate(asked(5, 100), asked(20), Shots(8), tokenizer, most)
        fewer = [9 - len(parts) for parts in shown(found)]
        assert (found.left_out, found.shortened) == (sum(fewer), sum(map(bool, fewer)))
        for parts, all_of_them in zip(shown(found), shown(whole), strict=True):
            kept = all_of_them[: len(parts) - 1]
            assert parts == [*kept, all_of_them[-1]]  # from the last on, whole
            assert length("\n\n".join(parts)) <= most or len(parts) == 1
            if len(parts) < 9:  # and no more than needed
                more = [*all_of_them[: len(parts)], all_of_them[-1]]
                assert length("\n\n".join(more)) > most
    assert fewer == [8] * 5


class Counting:
    """A tokenizer that counts the letters it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.letters = tokenizer, 0

    def __call__(self, given: Any, **more: Any) -> Any:
        self.letters += len(given) if isinstance(given, str) else sum(map(len, given))
        return self.tokenizer(given, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def test_many_answers_are_not_measured_anew_for_each_demonstration_less(tokenizer: Any) -> None:
    """Which fit is told by the answer with the most tokens, which has not the most letters."""
    answers = (*(f" {'e' * n}" for n in range(1, 13)), " \u2603\u2603\u2603\u2603\u2603")
    (one,) = asked(1, 100).asked
    many = Split((), np.zeros(1, np.int64), (replace(one, answers=answers, right=(2,)),))
    tokens = {answer: len(tokenizer(one.prompt + answer)["input_ids"]) for answer in answers}
    assert max(tokens, key=lambda answer: tokens[answer]) == answers[-1] != max(answers, key=len)

    def length(prompt: str) -> int:
        return max(len(tokenizer(prompt + answer)["input_ids"]) for answer in answers)

    whole = demonstrate(many, asked(20), Shots(12), tokenizer, 9999).split.asked[0].prompt
    parts = whole.split("\n\n")
    for most in (length(whole) - 1, length(whole) // 2, length(whole) // 3):
        found = demonstrate(many, asked(20), Shots(12), counting := Counting(tokenizer), most)
        [kept] = shown(found)
        assert found.split.asked[0].answers == answers and length("\n\n".join(kept)) <= most
        assert length("\n\n".join([*parts[: len(kept)], parts[-1]])) > most
        fitting = sum(len("\n\n".join(kept) + answer) for answer in answers)
        assert counting.letters < 2.5 * fitting + 4 * len(whole)  # 13 answers, whole, twice: more


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shots")
    write_sst2(folder / "data", train=40, validation=12)
    write_model(folder / "opt", "opt")
    return folder


def test_the_command(place: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    given = ("evaluate", "opt", "--task", "sst2", "--data-dir", "data", "--device", "cpu")

    def found(*more: str) -> Any:
        ran = beftkit(*given, *more, "--format", "json")
        assert ran.code == 0, ran
        return json.loads(ran.out)

    none, four = found(), found("--shots", "4")
    assert none["in_context"] is None
    assert four["in_context"] == {
        "shots": 4, "common": False, "seed": 0, "left_out": {"validation": 0},
        "shortened": {"validation": 0}, "pool": {"validation": 38}, "evaluated": {"validation": 2},
        "trained": True,
    }  # fmt: skip
    assert four["loss"] == found("--shots", "4", "--seed", "0")["loss"] != none["loss"]
    assert four["loss"] != found("--shots", "4", "--seed", "1")["loss"]
    cut = found("--shots", "4", "--common-shots", "--max-length", "40")
    assert cut["in_context"]["left_out"]["validation"] > 0 == cut["truncated"]["validation"]
    notes = " ".join(cut["notes"])
    assert "4 demonstrations before each prompt: one draw for all, seed 0" in notes
    assert "to fit 40 tokens (--max-length)" in notes
    ran = beftkit(*given, "--shots", "1", "--validation-size", "3")
    assert ran.code == 0 and "3 examples, 1 shot" in ran.out
    refused(beftkit(*given, "--common-shots"), "expected --shots beside it", code=2)
    refused(beftkit(*given, "--seed", "3"), "expected --shots beside it", code=2)
    refused(
        beftkit(*given, "--shots", "99"), "--shots 99: there are 38 examples with an answer to draw"
    )
    Path("story.jsonl").write_text('{"text": "a film"}\n')
    story = ("--validation-file", "story.jsonl", "--device", "cpu", "--shots", "1")
    refused(beftkit("evaluate", "opt", *story), "--shots 1: demonstrations stand before", code=2)
    headed = ("--shots", "1", "--as", "classes")
    refused(beftkit(*given, *headed), "demonstrations stand before a prompt", code=2)


def test_without_training_examples_they_are_of_those_that_are_not_evaluated(
    place: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    lines = [line.split("\t") for line in Path("data/SST-2/train.tsv").read_text().splitlines()]
    rows = [{"text": text, "verdict": label} for text, label in lines[1:]]
    write_records(place / "own.jsonl", rows[:20])
    write_records(place / "more.jsonl", [*rows[18:], rows[0]])
    asks = ("--template", "{text} It was", "--choices", "terrible,great", "--label-column",
            "verdict")  # fmt: skip
    given = ("evaluate", "opt", *asks, "--device", "cpu", "--validation-file", "own.jsonl")

    def found(*more: str) -> Any:
        ran = beftkit(*given, *more, "--format", "json")
        assert ran.code == 0, ran
        said = json.loads(ran.out)
        assert said["task"] == "own", "what is evaluated, not where demonstrations are from"
        return said["in_context"], " ".join(said["notes"])

    shown, notes = found("--validation-size", "15", "--shots", "5")
    assert (shown["pool"], shown["trained"]) == ({"validation": 5}, False)
    assert "drawn from the 5 examples that are not evaluated" in notes
    refused(beftkit(*given, "--validation-size", "15", "--shots", "6"), "--shots 6: there are 5 ex")
    refused(beftkit(*given, "--shots", "1"), "--shots 1: there are 0 examples")
    # From training examples, of which three are evaluated too.
    shown, notes = found("--train-file", "more.jsonl", "--shots", "6")
    assert (shown["pool"], shown["evaluated"]) == ({"validation": 20}, {"validation": 3})
    assert shown["trained"] and "3 training examples are evaluated as well, and never demo" in notes
    refused(beftkit(*given, "--train-file", "more.jsonl"), "expected --shots beside it", code=2)
    task = ("evaluate", "opt", "--task", "sst2", "--data-dir", "bare", "--device", "cpu")
    ran = beftkit(*task, "--train-file", "more.jsonl", "--shots", "1")
    refused(ran, "--train-file and --task were both given", code=2)
    # A folder of a task without its training file.
    (place / "bare" / "SST-2").mkdir(parents=True)
    (place / "bare" / "SST-2" / "dev.tsv").write_text(Path("data/SST-2/dev.tsv").read_text())
    ran = beftkit(*task, "--validation-size", "4", "--shots", "2", "--format", "json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["in_context"]["pool"] == {"validation": 8}
