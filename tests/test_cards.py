"""The code in a model card, executed: it gives the run's own numbers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_run
from tests.card_blocks import block, predictor
from tests.command import Beftkit
from tests.copied import words_of
from tests.tiny_run import WORDS

RUN = (
    "--bias",
    "all",
    "--batch-size",
    "8",
    "--lr",
    "3e-2",
    "--epochs",
    "8",
    "--device",
    "cpu",
    "--quiet",
)


def rows_of(count: int, seed: int, values: bool) -> list[dict[str, Any]]:
    """Pairs of texts; a label is one of three, a value a whole number."""
    rng = random.Random(seed)
    ends = {"bad": ("worst `x`", 0), "good": ("best\"'\n", 1), "film": ("none", 2)}
    rows = []
    for _ in range(count):
        end = rng.choice([*ends])
        more = " ".join(rng.choices(WORDS, k=rng.choice([1, 9])))  # the longer ones are cut
        rows.append({"a": f"{end} {end}", "b": more, "is": ends[end][values]})
    return rows


@pytest.mark.parametrize(
    ("form", "values"),
    [("beft", False), ("beft", True), ("lora", False), ("lora", True), ("biases", False)],
)
def test_a_card_s_code_gives_the_run_s_numbers(
    form: str, values: bool, workplace: Path, tmp_path: Path, beftkit: Beftkit
) -> None:
    """With another tokenizer, another length, half precision: whatever is not a default."""
    for name, count in (("pairs", 40), ("unseen", 16)):
        lines = [json.dumps(row) + "\n" for row in rows_of(count, count, values)]
        Path(f"{name}.jsonl").write_text("".join(lines))
    tiny_run.write_base(tmp_path / "wide", initializer_range=0.3)  # what is read makes a difference
    tiny_run.write_base(tmp_path / "words")
    other = json.loads((tmp_path / "words/tokenizer.json").read_text())
    known = other["model"]["vocab"]
    known["good"], known["film"] = known["film"], known["good"]
    (tmp_path / "words/tokenizer.json").write_text(json.dumps(other))
    more = ("--regression", "--metric", "mse") if values else ("--precision", "bf16")
    ran = beftkit(
        "train", "wide", "--train-file", "pairs.jsonl", "--validation-file", "unseen.jsonl",
        "--text-columns", "a,b", "--label-column", "is", "--max-length", "9", "--tokenizer",
        tmp_path / "words", "--adapter-format", form, "--keep", "best", "--validation-size", "14",
        *more, *RUN, "--format", "json", "-o", "out",
    )  # fmt: skip
    assert ran.code == 0, ran
    expected = json.loads(ran.out)["runs"][0]["best"]["metrics"]
    card = Path("out/adapter/README.md").read_text()
    assert str(tmp_path) not in card and ("library_name: peft" in card) == (form != "biases")
    # As on another machine: the adapter alone, everything else named anew.
    Path("out/adapter").rename("handed over")
    blanks = {"BASE": "wide", "ADAPTER": "handed over"}
    assert "TOKENIZER" not in card, "the run's lies beside the adapter"
    evaluate, score = block(card, "Use", "sh").splitlines()
    words = [blanks.get(word, word) for word in words_of(evaluate)]
    ran = beftkit(*words, "--device", "cpu", "--format", "json")
    assert ran.code == 0, ran
    # What was added is rounded once more; see docs/formats.md.
    assert json.loads(ran.out)["metrics"] == pytest.approx(expected, rel=1e-6)
    assert not [note for note in json.loads(ran.out)["notes"] if "the run's" in note]
    assert beftkit(*(blanks.get(word, word) for word in words_of(score))).code == 0

    predict = predictor(card, blanks)
    from beftkit.runs.prepare import VALIDATION_SEED
    from beftkit.tasks import load_files, subsample

    drawn = subsample(
        load_files(None, "unseen.jsonl", text_columns=("a", "b"), label_column="is",
                   labels=() if values else None).validation["validation"],
        14, VALIDATION_SEED,
    )  # fmt: skip
    answers = [predict(*texts) for texts in zip(*drawn.texts, strict=True)]
    if values:
        errors = [(one - target) ** 2 for one, target in zip(answers, drawn.targets, strict=True)]
        assert sum(errors) / 14 == pytest.approx(expected["mse"], rel=1e-5)
    else:
        names = sorted({row["is"] for row in rows_of(40, 40, values)})
        right = [one == names[at] for one, at in zip(answers, drawn.targets, strict=True)]
        assert sum(right) / 14 == pytest.approx(expected["accuracy"])
        assert len({*answers}) > 1
