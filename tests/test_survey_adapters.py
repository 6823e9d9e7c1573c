"""A survey of adapters: whose base is another than the survey's is told, as `score` tells it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch

import beftkit
import beftkit.present.survey as show
from beftkit.present.data import csv_text
from beftkit.surveys.results import columns
from tests.tiny_models import build

pytest.importorskip("peft")


def test_an_adapter_of_another_base_is_told(tmp_path: Path) -> None:
    """In its row, in every form the survey is shown in; a model and an adapter of it are not."""
    model = build("bert")
    for base in ("one", "two"):
        for name in (base, f"{base}-tuned"):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += torch.randn_like(parameter) / 10
            model.save_pretrained(tmp_path / name)
        beftkit.extract(tmp_path / base, tmp_path / f"{base}-tuned", output=tmp_path / f"of-{base}")
    models = [str(tmp_path / name) for name in ("of-one", "of-two", "one-tuned")]
    found = beftkit.survey(str(tmp_path / "one"), models, output=tmp_path / "out")
    rows = {Path(row.model).name: row for row in found.rows}
    assert {name: row.outcome for name, row in rows.items()} == dict.fromkeys(rows, "scored")
    assert {name for name, row in rows.items() if row.other_base} == {"of-two"}
    # By one rule with `score`, in its words.
    said = [one for one in rows["of-two"].why if "are not those of the base that" in one]
    assert said and said[0] in beftkit.score(tmp_path / "one", models[1]).notes
    told = [one for one in show.notes(found) if "trained on another base" in one]
    assert len(told) == 1 and ": 1 (" in told[0] and "of-two" in told[0]
    for one in found.to_dict()["models"]:
        assert one.get("other_base", False) == one["model"].endswith("of-two")
    for line in csv.DictReader(io.StringIO(csv_text(show.document(found).rows))):
        assert line["other_base"] == str(line["model"].endswith("of-two"))
    table = columns(found.head, found.rows)
    assert {m for m, o in zip(table["model"], table["other_base"], strict=True) if o} == {models[1]}
