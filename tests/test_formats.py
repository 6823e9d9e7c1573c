"""Adapters in stock PEFT, in beftkit, and in docs/formats.md: every family, format and way."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import beftkit
from beftkit.adapters import FORMATS, check_format, default_format, write_adapter
from beftkit.errors import BeftError

pytest.importorskip("peft")
PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
ENCODERS = "BERT RoBERTa DistilBERT ELECTRA ALBERT MPNet DeBERTa DeBERTa-v2"
FAMILIES = f"{ENCODERS} OPT GPT-2 GPT-NeoX BLOOM Qwen2 Llama".split()
UNMERGED = ("PeftModel", "AutoPeft", "load_adapter", "Class")
MERGED = ("merge_adapter", "merge_and_unload")


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """docs/formats.py, which measures."""
    from transformers.utils.logging import disable_progress_bar

    spec = spec_from_file_location("formats", PAGE.with_suffix(".py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["formats"] = module  # its dataclass asks for it
    spec.loader.exec_module(module)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    disable_progress_bar()
    yield module
    logging.disable(level)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tests of this file put bases and adapters."""
    return tmp_path_factory.mktemp("formats")


def page() -> dict[tuple[str, str], dict[str, str]]:
    """(family, format) -> way -> cell."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").partition("<!-- table -->")[2].splitlines()
        if line.startswith("|")
    ]
    ways = lines[0][2:]
    return {(line[0], line[1]): dict(zip(ways, line[2:], strict=True)) for line in lines[2:]}


def test_the_page_has_every_family_and_format(script: Any) -> None:
    assert [*script.FAMILIES] == FAMILIES
    assert [*page()] == [(family, format) for family in FAMILIES for format in FORMATS]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_our_logits(script: Any, models: Path, family: str, format: str) -> None:
    """To the last bit after a merge, to 1e-5 with the same label before; as the page says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = script.row(family, format, models)
    stated = page()[family, format]
    assert {w: c.split()[0].strip(":") for w, c in found.items()} == {
        w: c.split()[0].strip(":") for w, c in stated.items()
    }, "run .venv/bin/python docs/formats.py"
    fits = default_format(script.train(family, "all", models / family).tuned, "SEQ_CLS")[0]
    assert found["beftkit"] == ("yes 0" if FORMATS.index(format) >= FORMATS.index(fits) else "no")
    if format == "biases" or found["beftkit"] == "no":
        assert all(found[way] == "no" for way in (*UNMERGED, *MERGED))
        return
    for way in UNMERGED:
        assert found[way].startswith("yes") and float(found[way].split()[1]) <= 1e-5
    assert found["merge_adapter"] == "yes 0"
    whole_head = family in ("RoBERTa", "ELECTRA", "MPNet")
    expected = "no: AttributeError" if whole_head and format == "beft" else "yes 0"
    assert found["merge_and_unload"] == expected
    if format == "lora" and not whole_head:
        assert float(found["mixed batch"].split()[1]) <= 1e-5


@pytest.mark.parametrize("what", ["v", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_scores_like_the_whole_model(
    script: Any, models: Path, family: str, what: str
) -> None:
    trained = script.train(family, what, models / family)
    whole = models / f"{family}-{what}-whole"
    trained.model.save_pretrained(whole)
    want = beftkit.score(trained.folder, whole)
    assert want.changed
    for format in FORMATS:
        adapter = models / f"{family}-{what}-{format}-scored"
        try:
            check_format(trained.tuned, format, "SEQ_CLS")
        except BeftError:
            continue
        write_adapter(
            adapter, trained.tuned, format=format, base=str(trained.folder), task_type="SEQ_CLS",
            metadata={},
        )  # fmt: skip
        found = beftkit.score(None, adapter)
        assert found.target == want.target
        for ours, theirs in zip(found.sites, want.sites, strict=True):
            assert (ours.name, ours.slice, ours.role) == (theirs.name, theirs.slice, theirs.role)
            assert ours.figures == pytest.approx(theirs.figures, rel=1e-12, abs=1e-15)


def test_peft_does_not_take_our_own_format_for_its_own(script: Any, models: Path) -> None:
    from peft import PeftModel

    trained = script.train("BERT", "v", models / "BERT")
    adapter = models / "own"
    notes = write_adapter(
        adapter, trained.tuned, format="biases", base="b", task_type="SEQ_CLS", metadata={}
    )
    assert [path.name for path in adapter.iterdir()] == ["biases.safetensors"]
    assert re.search("PEFT does not read", notes[0])
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        PeftModel.from_pretrained(trained.base, adapter)


def test_the_script_writes_a_page(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text that stands there, and a table; here of one family."""
    monkeypatch.setattr(script, "FAMILIES", {"OPT": script.FAMILIES["OPT"]})
    output = tmp_path / "formats.md"
    with warnings.catch_warnings():
        script.main(output)
    text, theirs = output.read_text(encoding="utf-8"), PAGE.read_text(encoding="utf-8")
    assert text.partition("<!-- table -->")[0] == theirs.partition("<!-- table -->")[0]
    assert "PEFT" in theirs.partition("<!-- table -->")[0]
    rows = re.findall(r"^\| OPT \| \w+ \|", text, re.M)
    assert [row.split()[3] for row in rows] == [*FORMATS]
