"""Where a run comes from, as its folder, its results and its card say."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import beftkit as package
from beftkit.runs.provenance import NAME, Provenance, command_line, kept
from beftkit.runs.results import TrainResult
from tests.command import Beftkit

DATA = ("base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu",
        "--max-steps", "2", "--quiet")  # fmt: skip


def results(folder: str) -> TrainResult:
    return TrainResult.from_dict(json.loads(Path(folder, "all_results.json").read_text()))


def whence(folder: str) -> Provenance:
    found = results(folder).provenance
    assert found is not None
    return found


def test_a_run_says_where_it_comes_from(workplace: Path, beftkit: Beftkit) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    words = ("train", *DATA, "--precision", "bf16", "--seeds", "0,1", "-o", "a run")
    assert beftkit(*words).code == 0
    found = whence("a run")
    assert found.versions == {
        "beftkit": package.__version__, "Python": found.python,
        **{name: version(name) for name in found.packages},
    }  # fmt: skip
    assert {"torch", "transformers", "peft"} <= {*found.packages}
    assert (found.device, found.precision, found.processes) == ("cpu", "bf16", 1)
    assert found.threads == torch.get_num_threads()
    times = [datetime.fromisoformat(str(one)) for one in (found.started, found.ended)]
    assert before <= times[0] <= times[1] <= datetime.now(UTC)
    assert shlex.split(found.command) == ["beftkit", *words]
    assert found.directory == str(workplace) and found.chosen is None and found.resumed == 0
    assert found.peak_memory_mib is not None and 50 < found.peak_memory_mib < 100_000
    # A seed's own results say the same; the time of their end apart.
    one = whence("a run/seed-0")
    assert (one.started, one.command) == (found.started, found.command)
    # What the card says of it names nothing of this machine.
    card = Path("a run/seed-0/adapter/README.md").read_text()
    made = card.partition("\n## Made with\n")[2].partition("\n## ")[0]
    assert f"torch {version('torch')}" in made and f"Python {found.python}" in made
    assert f"- cpu, bf16; {found.started[:10]}" in made
    assert str(workplace) not in card and str(Path.home()) not in card and "a run" not in made


def test_a_run_that_is_taken_up_keeps_its_start(
    workplace: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert beftkit("train", *DATA, "-o", "out").code == 0
    first = whence("out")
    held = json.loads(Path("out", NAME).read_text())
    Path("out/all_results.json").unlink()
    held["packages"]["torch"] = "1.0"
    Path("out", NAME).write_text(json.dumps(held))
    monkeypatch.setattr("beftkit.runs.provenance._now", lambda: "2099-01-01T00:00:00+00:00")
    ran = beftkit("train", "-o", "out", "--resume")
    assert ran.code == 0, ran
    told = f"begun with torch 1.0, now {version('torch')}: the result need not be the"
    assert told in ran.err
    again = whence("out")
    assert (again.started, again.command) == (first.started, first.command)
    assert again.resumed == 1 and again.ended == "2099-01-01T00:00:00+00:00"
    assert again.packages["torch"] == version("torch")
    # An older version wrote none, and its results are read.
    plain = json.loads(Path("out/all_results.json").read_text())
    del plain["provenance"]
    assert TrainResult.from_dict(plain).provenance is None
    Path("out", NAME).write_text("{")
    assert kept(Path("out")) is None


def test_a_bias_that_was_chosen_says_why(workplace: Path, beftkit: Beftkit) -> None:
    ran = beftkit("train", *DATA, "--bias", "auto", "-o", "out")
    assert ran.code == 0, ran
    selection = json.loads(Path("out/select/select.json").read_text())
    target = selection["targets"]["projection"]
    roles: Any = selection["groups"][0]["methods"]["projection"]["roles"]
    chosen = whence("out").chosen
    assert chosen is not None
    assert (chosen.bias, chosen.method, chosen.folder) == (target, "projection", "select")
    assert chosen.score == roles[target]["score"]
    card = Path("out/adapter/README.md").read_text()
    assert f"its projection score, {chosen.score:.4g} was the candidates' highest" in card
    # Killed in its training, it is taken up without --bias auto.
    Path("out/all_results.json").unlink()
    assert beftkit("train", "-o", "out", "--resume", "--quiet").code == 0
    assert whence("out").chosen == chosen
    # A run that replaces it was not chosen for, though the selection is still there.
    assert beftkit("train", *DATA, "--bias", target, "--overwrite", "-o", "out").code == 0
    assert whence("out").chosen is None and Path("out/select/select.json").exists()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ["/usr/bin/beftkit", "train", "a b", "-o", "it's"],
            """beftkit train 'a b' -o 'it'"'"'s'""",
        ),
        (["/x/beftkit/__main__.py", "train"], "beftkit train"),
        (["me.py", "--hub-token", "abc", "--lr", "1"], "me.py --hub-token '***' --lr 1"),
        (["me.py", "--hub_token=abc", "--API-KEY=k"], "me.py '--hub_token=***' '--API-KEY=***'"),
        (["me.py", "--password", "-x"], "me.py --password '***'"),
        (["me.py", "--tokenizer", "words"], "me.py --tokenizer words"),
        (["me.py", "hf_abcDEF123"], "me.py '***'"),
        (["me.py", "--url=https://me:pw@host/x"], "me.py '--url=https://***@host/x'"),
        (["me.py", "https://host/x?a=1&token=abc&b=2"], "me.py 'https://host/x?a=1&token=***&b=2'"),
        ([], ""),
    ],
)
def test_no_secret_is_in_a_command(words: list[str], shown: str) -> None:
    assert command_line(words) == (shown or "''")
