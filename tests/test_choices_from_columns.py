"""`predict` with choices that are columns: each answer is its row's own text."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import beftkit as package
from tests.causal_models import sentences, write_model
from tests.prompt_files import write_records

TEMPLATE, CHOICES = "{text} It was", "{c1},{c2},{{so}} so"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    """A model, and rows whose two choices stand in turn in either column."""
    folder = tmp_path_factory.mktemp("asked")
    write_model(folder / "opt", "opt", steps=60)
    rows = []
    for number, (text, _) in enumerate(sentences(16, 2)):
        words = ("a terrible", "great") if number % 2 else ("great", "a terrible")
        rows.append({"text": text, "c1": words[0], "c2": words[1]})
    write_records(folder / "rows.jsonl", rows)
    return folder, rows


def likeliest(model: Any, tokenizer: Any, row: dict[str, str]) -> tuple[int, str]:
    """The number and text of an answer with the largest mean log-likelihood, by transformers."""
    prompt, answers = f"{row['text']} It was", (row["c1"], row["c2"], "{so} so")
    first, found = len(tokenizer(prompt).input_ids), []
    for answer in answers:
        ids = torch.tensor([tokenizer(f"{prompt} {answer}").input_ids])
        with torch.no_grad():
            told = model(input_ids=ids).logits[0].log_softmax(-1)
        each = told[:-1].gather(1, ids[0, 1:, None])[first - 1 :]
        found.append(float(each.mean()))
    best = max(range(3), key=found.__getitem__)
    return best, answers[best]


def test_the_answer_is_the_row_s_own_text(asked: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = asked
    given: Any = {"template": TEMPLATE, "choices": CHOICES, "device": "cpu"}
    out = folder / "out.jsonl"
    found = package.predict(folder / "opt", file=folder / "rows.jsonl", output=out, **given)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "opt").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "opt")
    wanted = [likeliest(model, tokenizer, row) for row in rows]
    assert len({number for number, _ in wanted}) > 1
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["label"] for one in written] == [text for _, text in wanted]
    # The choice itself is named by its template: in the counts, and in each row's probabilities.
    names = ("{c1}", "{c2}", "{{so}} so")
    counts = Counter(names[number] for number, _ in wanted)
    assert found.labels == names and found.counts == {name: counts[name] for name in names}
    for one, (number, _) in zip(written, wanted, strict=True):
        assert max(one["probabilities"], key=one["probabilities"].get) == names[number]
    # Withheld answers stay so; names given to the choices are kept.
    strict = package.load(folder / "opt", threshold=1.0, **given)
    texts: Any = [(row["text"], row["c1"], row["c2"]) for row in rows]
    assert {one.label for one in strict(texts)} == {None}
    given["choices"] = "a={c1},b={c2},c={{so}} so"
    named = package.load(folder / "opt", **given)(texts)
    assert [one.label for one in named] == ["abc"[number] for number, _ in wanted]
