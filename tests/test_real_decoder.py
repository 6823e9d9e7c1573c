"""A real pretrained decoder answers real sentences as transformers alone has it."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.command import Beftkit

DATA = Path(os.environ.get("BEFTKIT_DATA", "."))
GGUF = DATA / "weights" / "SmolLM2-135M-Instruct-gguf"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GGUF.exists(), reason="SmolLM2 and SST-2: set BEFTKIT_DATA"),
]
ROWS = 5


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("gguf")
    folder = tmp_path / "smollm2"
    script = GGUF / "convert.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(folder), "--dtype", "float32"])
    runpy.run_path(str(script), run_name="__main__")
    return folder


def test_sentences_of_sst2(decoder: Path, tmp_path: Path, beftkit: Beftkit) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = (DATA / "data/glue/SST-2/dev.tsv").read_text("utf-8").splitlines()[: ROWS + 1]
    (tmp_path / "dev.tsv").write_text("\n".join(lines), "utf-8")
    model = AutoModelForCausalLM.from_pretrained(decoder)
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    right, losses = 0, []
    for sentence, label in (line.split("\t") for line in lines[1:]):
        scores = []
        for answer in (" terrible", " great"):  # one token each
            ids = tokenizer(f"{sentence.strip()} It was{answer}", return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logs = model(input_ids=ids).logits[0, -2].log_softmax(-1)
            assert tokenizer.decode(ids[0, -1]) == answer
            scores.append(logs[ids[0, -1]])
        each = torch.stack(scores)
        right += int(each.argmax()) == int(label)
        losses.append(-float(each.log_softmax(0)[int(label)]))
    given = ("--task", "sst2", "--data-dir", str(tmp_path), "--device", "cpu", "--format", "json")
    ran = beftkit("evaluate", str(decoder), *given)
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert found["metrics"]["accuracy"] == pytest.approx(right / ROWS)
    assert found["loss"] == pytest.approx(sum(losses) / ROWS, rel=1e-5)
