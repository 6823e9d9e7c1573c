"""`beftkit export`: a plain folder, equal to PEFT's merge to the bit, for who has neither."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import beftkit
from beftkit.errors import BeftError, Refusal
from tests.answering import SHORT, write_lively
from tests.command import Beftkit, tree

TEXTS = ["good film", "bad", "", "the plot was very awful and not nice"]
ALONE = """
import json, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        gone = name.split(".")[0] in ("beftkit", "peft")
        return None if gone else self.finder.find_spec(name, *rest)
sys.meta_path[:] = map(Without, sys.meta_path)
import transformers
found = transformers.pipeline("text-classification", sys.argv[1], device="cpu", top_k=None)
print(json.dumps(found(json.loads(sys.argv[2]))))
assert not {"beftkit", "peft"} & {*sys.modules}
"""


@pytest.fixture(scope="module")
def whole(answering: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("export") / "whole"
    found = beftkit.export(answering / "run", output)
    assert found.labels == ("neg", "pos") and found.dtype == "float32"
    assert {*found.files} == {path.name for path in output.iterdir()}
    return output


def test_loaded_by_who_has_neither(whole: Path, answering: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(whole), json.dumps(TEXTS)], capture_output=True,
        text=True, cwd=tmp_path, env={**environment, "HF_HUB_OFFLINE": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = beftkit.load(answering / "run", device="cpu")(TEXTS)
    for theirs, one in zip(json.loads(done.stdout.splitlines()[-1]), ours, strict=True):
        assert theirs[0]["label"] == one.label
        for row in theirs:
            assert row["score"] == pytest.approx(one.probabilities[row["label"]], abs=1e-6)


def test_what_is_in_it(whole: Path, answering: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "README.md", "config.json", "manifest.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads((whole / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    assert config["label2id"] == {"neg": 0, "pos": 1}
    assert config["architectures"] == ["BertForSequenceClassification"]
    card = (whole / "README.md").read_text()
    assert "- Labels: 0 neg, 1 pos" in card and '"max_length": 32}' in card
    for path in (whole / "README.md", whole / "config.json", whole / "manifest.json"):
        assert str(answering.parent) not in path.read_text(), "no path of this machine"
    code = card.partition("```python\n")[2].partition("```")[0].replace("FOLDER", str(whole))
    told: dict[str, Any] = {}
    exec(code.replace('answer("a text")', 'found = answer("good film")'), told)
    assert told["found"][0]["label"] in ("neg", "pos")
    # `evaluate` and `predict` take it as any model.
    dev = answering / "dev.jsonl"
    given: dict[str, Any] = {"validation_file": dev, "device": "cpu"}
    alone = beftkit.evaluate(whole, **given).evaluation.metrics
    assert alone == beftkit.evaluate(adapter=answering / "run", **given).evaluation.metrics


@pytest.mark.parametrize(
    ("form", "stored", "wanted"),
    [
        ("beft", "float32", None),
        ("lora", "bfloat16", None),
        ("beft", "bfloat16", None),
        ("beft", "float32", "bfloat16"),
    ],
)
def test_equal_to_peft_s_merge(
    form: str, stored: str, wanted: str | None, answering: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    base = write_lively(tmp_path / "base")
    if stored != "float32":
        transformers.AutoModel.from_pretrained(base, dtype=stored).save_pretrained(base)
    beftkit.train(
        base, train_file=answering / "train.jsonl", bias="all", adapter_format=form,
        output=tmp_path / "run", max_steps=3, **SHORT,
    )  # fmt: skip
    options = {} if wanted is None else {"dtype": wanted}
    found = beftkit.export(tmp_path / "run", tmp_path / "whole", **options)
    assert found.dtype == (wanted or stored)
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained(
        tmp_path / "run" / "adapter", dtype=wanted or "auto"
    )
    merged = model.merge_and_unload().state_dict()
    ours = load_file(tmp_path / "whole" / "model.safetensors")
    assert ours.keys() == merged.keys()
    for name, one in ours.items():
        assert one.dtype == merged[name].dtype and torch.equal(one, merged[name]), name


def test_values_in_our_own_format(answering: Path, tmp_path: Path) -> None:
    beftkit.export(answering / "values", tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["problem_type"] == "regression" and len(config["id2label"]) == 1
    pairs = [("good film", "bad plot"), ("the", "a")]
    ours = [one.value for one in beftkit.load(answering / "values", device="cpu")(pairs)]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    maker = transformers.AutoTokenizer.from_pretrained(tmp_path / "whole")
    with torch.no_grad():
        first, second = map(list, zip(*pairs, strict=True))
        logits = model(**maker(first, second, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(logits.squeeze(-1).numpy(), ours, rtol=0, atol=1e-6)
    again = beftkit.load(tmp_path / "whole", device="cpu")(pairs)
    assert [one.value for one in again] == pytest.approx(ours, abs=1e-6)


def test_whose_folder_it_is(whole: Path, answering: Path, tmp_path: Path) -> None:
    run, out = answering / "run", tmp_path / "out"
    shutil.copytree(whole, out)
    before = tree(out)
    with pytest.raises(BeftError, match="holds a model that was exported; overwrite=True replaces"):
        beftkit.export(run, out)
    (out / "mine.txt").write_text("precious")
    with pytest.raises(Refusal, match=r"mine\.txt: would go with the former model"):
        beftkit.export(run, out, overwrite=True)
    (out / "mine.txt").unlink()
    (out / "old").mkdir()
    (out / "old" / "thesis").write_text("precious")
    with pytest.raises(Refusal, match="old/thesis: would go with"):
        beftkit.export(run, out, overwrite=True)
    shutil.rmtree(out / "old")
    assert tree(out) == before
    beftkit.export(run, out, overwrite=True, dtype="bfloat16")
    assert load_file(out / "model.safetensors")["classifier.bias"].dtype == torch.bfloat16
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "file").write_text("x")
    other = shutil.copytree(answering / "base", tmp_path / "other")
    copied = shutil.copytree(run, tmp_path / "run")
    for place, message in {
        tmp_path / "link": "is a symbolic link", tmp_path / "file": "is a file",
        other: "that lists a model of ours", copied: "that lists a model of ours",
        tmp_path / "absent" / "x": "the folder above does not exist",
    }.items():  # fmt: skip
        held = tree(tmp_path)
        with pytest.raises(BeftError, match=message):
            beftkit.export(run, place, overwrite=True)
        assert tree(tmp_path) == held
    (tmp_path / "empty").mkdir()
    assert beftkit.export(run, tmp_path / "empty").parameters > 0


def test_whole_or_not_at_all(
    whole: Path, answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    before = tree(tmp_path)

    def full(*_: object, **__: object) -> Any:
        raise OSError(28, os.strerror(28))

    plain = Path.rename

    def not_new(self: Path, target: Path) -> Path:
        """The former export is out of the way already, and has to come back."""
        new = self != out and not self.name.endswith("-former")
        return full() if new else plain(self, target)

    for place, name, instead in (
        (transformers.PreTrainedTokenizerFast, "save_pretrained", full),
        (Path, "rename", full),
        (Path, "rename", not_new),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, instead)
            for where in (out, tmp_path / "new"):
                with pytest.raises(BeftError, match="cannot be written"):
                    beftkit.export(answering / "run", where, overwrite=True)
        assert tree(tmp_path) == before, name


def test_rights_are_the_umask_s(answering: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        beftkit.export(answering / "run", tmp_path / "out")
    finally:
        os.umask(before)
    for path in (tmp_path / "out", *(tmp_path / "out").iterdir()):
        assert oct(path.stat().st_mode & 0o777) == ("0o750" if path.is_dir() else "0o640"), path


def test_the_command(answering: Path, tmp_path: Path, beftkit: Beftkit) -> None:
    run, out = answering / "run", tmp_path / "out"
    ran = beftkit("export", run, "-o", out)
    assert ran.code == 0 and f"{out}: " in ran.out and "float32; neg, pos" in ran.out, ran
    ran = beftkit("export", run, "-o", out, "--overwrite", "--format", "json", "-q",
                  "--base", answering / "base")  # fmt: skip
    assert json.loads(ran.out)["labels"] == ["neg", "pos"] and ran.err == ""
    ran = beftkit("export", run)
    assert ran.code == 2 and "no --output was given" in ran.err
    ran = beftkit("export", answering / "base", "-o", tmp_path / "x")
    assert ran.code == 2 and "is a whole model already" in ran.err
