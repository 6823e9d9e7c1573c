"""docs/families.md is what its script writes, and nearly all architectures are recognised."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "families.md"
DATA = os.environ.get("BEFTKIT_DATA")
#: what the table promises by name
NAMED = """
    bert roberta xlm-roberta camembert electra albert distilbert mpnet deberta deberta-v2 esm
    longformer opt gpt2 openai-gpt gpt_neox bloom falcon gpt_bigcode phi qwen2 qwen2_moe qwen2_vl
    qwen2_5_vl starcoder2 llama gpt_oss glm4 bart mbart marian pegasus whisper wav2vec2 vit deit
    clip siglip
"""


def statuses() -> dict[str, tuple[str, str]]:
    """Model type -> status and switches."""
    rows = re.findall(r"^\| ([\w.-]+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    cells = {name: rest.split(" | ") for name, rest in rows}
    return {name: (rest[0], rest[-1]) for name, rest in cells.items()}


@pytest.mark.slow
def test_page_is_what_the_script_writes(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    made_with = re.search(r"with transformers (\S+)\.$", page, re.M)
    assert made_with
    if made_with[1] != version("transformers"):
        pytest.skip(f"the page was made with transformers {made_with[1]}")
    output = tmp_path / "families.md"
    ran = subprocess.run(
        [sys.executable, "docs/families.py", str(output)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 1
    assert output.read_text(encoding="utf-8").splitlines() == page.splitlines(), (
        "run .venv/bin/python docs/families.py"
    )


@pytest.mark.skipif(DATA is None, reason="list of architectures: set BEFTKIT_DATA")
def test_nine_of_ten_architectures_with_biases_are_recognised() -> None:
    path = Path(str(DATA)) / "reference" / "families.json"
    families = json.loads(path.read_text(encoding="utf-8"))["families"]
    wanted = [name for name, family in families.items() if family["qkv_bias"] == "all"]
    found = statuses()
    missing = [name for name in wanted if found.get(name, ("",))[0] != "recognised"]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} recognised; not:", *missing)
    assert len(missing) <= 0.1 * len(wanted)


def test_what_it_comes_to_stands_before_the_long_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    assert parts[1::2] == ["Named families", "Not recognised", "All model types"]
    rows = [re.findall(r"^\| ([\w.-]+) \| (\S+)", part, re.M) for part in parts[::2]]
    assert [name for name, _ in rows[1]] == NAMED.split()
    every = dict(rows[3])
    assert dict(rows[1]).items() <= every.items()
    stated = {name: int(count) for name, count in
              re.findall(r"^\| ([\w -]+) \| (\d+) \|", parts[0], re.M)}  # fmt: skip
    assert stated.pop("all") == sum(stated.values()) == len(every)
    for status, count in stated.items():
        assert sum(one == status.split()[0].rstrip(":") for one in every.values()) == count
    assert len(parts[0].splitlines()) < 35


def test_named_families_are_known() -> None:
    found = statuses()
    for name in NAMED.split():
        status, switches = found[name]
        assert status == "recognised" or (
            status == "bias-free" and switches.endswith(": recognised")
        ), f"{name}: {status} {switches}"
