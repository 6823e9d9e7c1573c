"""A survey from the list to its rows: every outcome, the figures of `score`, taken up again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import beftkit as api
from beftkit.errors import BeftError, Refusal, UsageError
from beftkit.runs.locks import occupied
from beftkit.surveys import ledger, scoring
from beftkit.surveys.rows import KEPT, ROWS, Row, read_changes, read_rows, starts
from beftkit.surveys.survey import Interrupted
from tests.builders import model as tensors_of
from tests.builders import write_file, write_model
from tests.hub_server import Fault
from tests.survey_hub import SurveyHub

FILE = "model.safetensors"


def rows_of(folder: str | Path = "out") -> dict[str, Row]:
    return {row.model: row for row in read_rows(folder)[1]}


def take(listing: SurveyHub, base: str = "o/pre", **options: Any) -> dict[str, Row]:
    """A survey of what is listed, as rows."""
    api.survey(base, output="out", **options)
    return rows_of()


def test_it_is_the_function() -> None:
    """The room beside it, once imported, does not take its place."""
    first = api.survey
    import beftkit.surveys.survey as room

    assert api.survey is first is room.survey and callable(api.survey)
    assert callable(api.survey) and "survey" in dir(api)


def test_the_figures_are_those_of_score(listing: SurveyHub) -> None:
    rows = take(listing)
    head, _ = read_rows("out")
    changes, ends = read_changes("out", head), starts(head.sites)
    before = load_file(f"repos/pre/{FILE}")
    for name in ("one", "two", "three"):
        row, one = rows[f"o/{name}"], api.score("repos/pre", f"repos/{name}")
        assert row.outcome == "scored" and row.reason == "" and row.target == one.target
        assert row.compared == row.of == len(head.sites) == len(one.sites)
        assert row.bias_sha256 == one.post.bias_sha256
        figures = {(site.name, site.slice): site.figures for site in one.sites}
        for number, site in enumerate(head.sites):
            for figure in KEPT:
                found = getattr(row, figure)[number]
                assert found == figures[site.name, site.part][figure]
        after = load_file(f"repos/{name}/{FILE}")
        assert row.change is not None
        for number, site in enumerate(head.sites):
            moved = changes[row.change, ends[number] : ends[number + 1]]
            exact = after[site.name].astype(np.float64) - before[site.name]
            np.testing.assert_allclose(moved, exact, rtol=1e-6)
    assert (head.base, head.commit) == ("o/pre", listing.repos["o/pre"].commit)
    assert rows["o/one"].downloads == 99 and rows["o/one"].listed == "o/pre"


def test_the_base_is_read_once_and_a_model_costs_no_call_of_its_own(listing: SurveyHub) -> None:
    take(listing)
    base = [one for one in listing.log if one.path.startswith("/o/pre/")]
    assert len({one.range for one in base if one.range}) == len([o for o in base if o.range])
    assert not [one for one in listing.log if one.path.startswith("/api/models/o/one")]
    of_one = [one for one in listing.log if one.path.startswith("/o/one/")]
    assert rows_of()["o/one"].requests == len(of_one)
    ranges = [one.range for one in of_one if one.range]
    assert len([one for one in ranges if one.startswith("bytes=0-")]) == 1
    assert "bytes=0-7" not in ranges, "as long as the base's header, at once"
    read = rows_of()["o/one"].bytes_fetched
    assert read == sum(one.served for one in of_one)


OUTCOMES = {
    "o/same": ("unchanged", "bit by bit"),
    "o/rounded": ("unchanged", "rounding only"),
    "o/bare": ("no biases", "no bias"),
    "o/gpt": ("other architecture", "no bias of o/pre matches"),
    "o/wide": ("other width", "elements in o/pre, but"),
    "o/pickle": ("only bin", "--download fetches it"),
    "o/gated": ("gated", "accept its terms"),
    "o/gone": ("gone", "no such repository"),
    "o/damaged": ("damaged", "cut short"),
    "o/nan": ("damaged", "NaN or infinity"),
    "o/nothing": ("refused", "no model.safetensors"),
    "o/busy": ("unreachable", "the hub answers 503"),
}


def publish_all(listing: SurveyHub, tmp_path: Path) -> None:
    """One fine-tune of each outcome."""
    repos = tmp_path / "repos"
    listing.tuned("o/same", repos / "pre")
    listing.tuned("o/rounded", write_model(repos / "rounded", seed=0, dtype="F16"))
    bare = shutil.copytree(repos / "one", repos / "bare")
    weights = {n: v for n, v in tensors_of("bert", 1).items() if n.endswith("weight")}
    write_file(bare / FILE, weights)
    listing.tuned("o/bare", bare)
    listing.tuned("o/gpt", write_model(repos / "gpt", "gpt2"))
    wide = shutil.copytree(repos / "one", repos / "wide")
    changed = {n: np.tile(v, 2) if v.ndim == 1 else v for n, v in tensors_of("bert", 1).items()}
    write_file(wide / FILE, changed)
    listing.tuned("o/wide", wide)
    for name, file in (("pickle", "pytorch_model.bin"), ("nothing", "README.md")):
        (repos / name).mkdir()
        (repos / name / file).write_bytes(b"\x80\x02")
        listing.tuned(f"o/{name}", repos / name)
    listing.tuned("o/gated", repos / "one", gated="manual")
    listing.tuned("o/busy", repos / "one")
    listing.about["o/gone"] = {"base": "o/pre"}
    damaged = shutil.copytree(repos / "one", repos / "damaged")
    (damaged / FILE).write_bytes((damaged / FILE).read_bytes()[:-9])
    listing.tuned("o/damaged", damaged)
    values = tensors_of("bert", 1)
    name = next(name for name in values if name.endswith("query.bias"))
    values[name] = np.full_like(values[name], np.nan)
    nan = shutil.copytree(repos / "one", repos / "nan")
    write_file(nan / FILE, values)
    listing.tuned("o/nan", nan)
    listing.faults = [
        Fault("/o/gated/", status=403, headers={"X-Error-Code": "GatedRepo"}),
        Fault("/o/busy/", status=503),
    ]


def test_every_outcome_is_a_row(listing: SurveyHub, tmp_path: Path) -> None:
    publish_all(listing, tmp_path)
    rows = take(listing)
    assert len(rows) == len(OUTCOMES) + 3
    for name, (outcome, reason) in OUTCOMES.items():
        row = rows[name]
        assert (row.outcome, reason in row.reason) == (outcome, True), row
        assert row.reason.isprintable() and row.change is None and row.of == 16
    assert rows["o/pickle"].requests == 0
    assert rows["o/same"].projection == (0.0,) * 16 and rows["o/gated"].gated


def test_taken_up_only_what_moved_or_was_unreachable_is_asked(
    listing: SurveyHub, tmp_path: Path
) -> None:
    publish_all(listing, tmp_path)
    before = take(listing)
    text = Path("out", ROWS).read_bytes()
    with pytest.raises(Refusal, match="holds a survey already; resume=True goes on"):
        take(listing)
    listing.log.clear()
    listing.faults.pop()
    listing.repos["o/two"].folder = tmp_path / "repos" / "one"
    listing.repos["o/two"].commit = "2" * 40
    listing.repos["o/two"].revisions.add("2" * 40)
    listing.tuned("o/new", tmp_path / "repos" / "three")
    Path("out", ROWS).write_bytes(text + b'{"model":"o/half","x":"' + b"y" * 200_000)
    after = take(listing, resume=True)
    asked = {one.path.split("/")[2] for one in listing.log if one.path.startswith("/o/")}
    assert asked == {"pre", "two", "busy", "new", "gated"}
    assert after["o/busy"].outcome == "scored" and "o/half" not in after
    assert after["o/two"].commit == "2" * 40
    assert after["o/two"].projection == after["o/one"].projection != before["o/two"].projection
    assert {n: r for n, r in after.items() if n in before and n not in ("o/two", "o/busy")} == {
        n: r for n, r in before.items() if n not in ("o/two", "o/busy")
    } | {"o/gated": after["o/gated"]}
    now = Path("out", ROWS).read_bytes()
    assert now.startswith(text) and now.endswith(b"\n") and b"o/half" not in now
    head, _ = read_rows("out")
    changes, one = read_changes("out", head), after["o/one"].change
    for name in ("o/two", "o/busy"):
        np.testing.assert_array_equal(changes[after[name].change], changes[one])
    assert len({row.change for row in after.values() if row.change is not None}) == 5


def test_another_base_does_not_go_on_with_it(listing: SurveyHub, tmp_path: Path) -> None:
    take(listing)
    with pytest.raises(Refusal, match="whose biases are not those of repos/one"):
        api.survey("repos/one", ["repos/two"], output="out", resume=True)


def test_references_here_and_there(listing: SurveyHub, tmp_path: Path) -> None:
    models = ["repos/one", "o/two", "hf://o/three@main", "absent/folder/x", "repos/one", "o/no"]
    found = api.survey("repos/pre", models, output="out")
    rows = rows_of()
    assert [*rows] and set(rows) == set(models) and len(found.rows) == 5
    assert rows["o/two"].commit == listing.repos["o/two"].commit and rows["o/two"].listed is None
    assert rows["repos/one"].commit is None and rows["repos/one"].outcome == "scored"
    assert (rows["absent/folder/x"].outcome, rows["o/no"].outcome) == ("gone", "gone")
    listing.log.clear()
    lines = Path("out", ROWS).read_bytes().count(b"\n")
    os.utime(f"repos/one/{FILE}", (1, 1))
    for path in Path("repos/one").iterdir():
        os.utime(path, (1, 1))
    os.utime("repos/one", (1, 1))
    api.survey("repos/pre", models, output="out", resume=True)
    assert {one.path for one in listing.log} == {
        "/api/models/o/two", "/api/models/o/three/revision/main", "/api/models/o/no",
    }  # fmt: skip
    assert Path("out", ROWS).read_bytes().count(b"\n") == lines + 2, "what was gone is asked again"


def test_a_base_by_its_former_id(listing: SurveyHub, tmp_path: Path) -> None:
    """Once known, the present one is what files are asked under."""
    listing.add("google/bert", tmp_path / "repos" / "pre")
    listing.former["bert"] = "google/bert"
    listing.tuned("o/old", tmp_path / "repos" / "one", base="bert")
    listing.tuned("o/new", tmp_path / "repos" / "two", base="google/bert")
    rows = take(listing, base="bert")
    assert {name: row.listed for name, row in rows.items()} == {
        "o/old": "bert", "o/new": "google/bert",
    }  # fmt: skip
    assert {row.outcome for row in rows.values()} == {"scored"}
    assert not [one for one in listing.log if one.path.startswith("/bert/resolve")]
    assert take(listing, base="bert", resume=True) == rows


def test_what_was_skipped_is_fetched_with_download(listing: SurveyHub, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load_tensors

    folder = tmp_path / "repos" / "pickle"
    folder.mkdir()
    shutil.copy(tmp_path / "repos" / "one" / "config.json", folder)
    torch.save(load_tensors(tmp_path / "repos" / "one" / FILE), folder / "pytorch_model.bin")
    listing.tuned("o/pickle", folder)
    assert take(listing)["o/pickle"].outcome == "only bin"
    listing.log.clear()
    rows = take(listing, resume=True, download=True)
    assert rows["o/pickle"].projection == rows["o/one"].projection
    assert not [one for one in listing.log if one.path.startswith("/o/one/")]


def test_what_cannot_be_asked(listing: SurveyHub) -> None:
    with pytest.raises(UsageError, match="is here, not on the hub"):
        api.survey("repos/pre", output="out")
    with pytest.raises(UsageError, match=r"sort='download': .*did you mean downloads"):
        take(listing, sort="download")
    for name, value in (("limit", 0), ("max_bytes", -1)):
        with pytest.raises(UsageError, match=f"{name}={value}"):
            take(listing, **{name: value})
    for name, value in (("limit", 3), ("sort", "likes"), ("task", "x")):
        with pytest.raises(UsageError, match=f"{name}='?{value}'?: is of what the hub lists"):
            api.survey("repos/pre", ["o/one"], output="out", **{name: value})
    with pytest.raises(UsageError, match="a list of references, not one"):
        api.survey("o/pre", "o/one", output="out")
    with pytest.raises(BeftError, match="the hub lists no fine-tunes of the task x"):
        take(listing, task="x")
    listing.about.clear()
    with pytest.raises(BeftError, match="lists no fine-tunes"):
        take(listing)
    assert not Path("out", ROWS).exists()


def test_asked_to_stop_it_keeps_what_is_done(listing: SurveyHub, tmp_path: Path) -> None:
    for number in range(30):
        listing.tuned(f"o/m{number}", tmp_path / "repos" / "one")
    listing.latency = 0.01

    def asked() -> int:
        return 2 * (len(listing.requests(FILE)) > 60)

    with pytest.raises(Interrupted):
        take(listing, asked_to_stop=asked)
    kept = Path("out", ROWS).read_bytes()
    assert 3 < len(rows_of()) < 33
    listing.latency = 0
    assert len(take(listing, resume=True)) == 33 and Path("out", ROWS).read_bytes().startswith(kept)


def test_two_surveys_into_one_folder(listing: SurveyHub) -> None:
    Path("out").mkdir()
    with occupied(Path("out")), pytest.raises(Refusal, match="writes there; wait for its end"):
        take(listing)
    assert len(take(listing)) == 3


def test_a_full_disk_keeps_what_is_there(
    listing: SurveyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second addition only some bytes fit."""
    monkeypatch.setattr("beftkit.surveys.survey._ROWS", 1)
    real, room = os.pwrite, [None]  # type: ignore[var-annotated]

    def pwrite(descriptor: int, data: Any, place: int) -> int:
        if room[0] is not None:
            if not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = memoryview(data)[: room[0]]
            room[0] -= len(data)
        return real(descriptor, data, place)

    monkeypatch.setattr(ledger.os, "pwrite", pwrite)
    add = ledger.Ledger.add

    def counted(self: Any, dones: Any) -> None:
        add(self, dones)
        room[0] = 1500

    monkeypatch.setattr(ledger.Ledger, "add", counted)
    with pytest.raises(BeftError) as error:
        take(listing)
    said = str(error.value)
    assert "out: cannot be written (No space left on device)" in said
    assert "models are kept there: make room, then go on with resume=True" in said
    kept = rows_of()
    assert 0 < len(kept) < 3 and Path("out", ROWS).read_bytes().endswith(b"\n")
    monkeypatch.undo()
    os.environ.pop("HF_HUB_OFFLINE", None)


def test_an_error_of_ours_is_a_row_too(listing: SurveyHub, monkeypatch: pytest.MonkeyPatch) -> None:
    real = scoring.compared

    def compared(sides: Any, checkpoint: Any, tower: Any) -> Any:
        if checkpoint.reference == "o/two":
            raise ZeroDivisionError("no\x1b[31m\nway")
        return real(sides, checkpoint, tower)

    monkeypatch.setattr(scoring, "compared", compared)
    rows = take(listing)
    told = "could not be read (ZeroDivisionError: no?[31m way)"
    assert (rows["o/two"].outcome, rows["o/two"].reason) == ("refused", told)
    assert rows["o/three"].outcome == "scored"


def test_a_damaged_line_is_named(listing: SurveyHub) -> None:
    take(listing)
    path = Path("out", ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    values = json.loads(lines[2])
    for wrong in (b"{}\n", b"[1]\n", json.dumps({**values, "angle": [1]}).encode() + b"\n"):
        path.write_bytes(b"".join([*lines[:2], wrong, *lines[3:]]))
        with pytest.raises(BeftError, match="line 3 is damaged"):
            read_rows("out")
    path.write_bytes(lines[0].replace(b'"schema_version":2', b'"schema_version":9'))
    with pytest.raises(BeftError, match="schema version 9"):
        read_rows("out")
    path.write_bytes(b"nonsense\n")
    with pytest.raises(BeftError, match="first line is not that of a survey"):
        read_rows("out")
