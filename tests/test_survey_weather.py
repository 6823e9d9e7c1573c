"""Bad weather over a survey: whatever the hub does, the rest goes on and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit.surveys.rows import ROWS, Row, read_rows
from beftkit.surveys.survey import LIMIT, MAX_BYTES, SORT
from tests.builders import write_model
from tests.command import Beftkit, refused
from tests.hub_fixtures import ROOT, outside
from tests.hub_server import Fault
from tests.survey_hub import Grant, SurveyHub

FILE = "model.safetensors"
GOOD = {"o/one": "scored", "o/two": "scored", "o/three": "scored"}


def take(**options: Any) -> dict[str, Row]:
    return {row.model: row for row in api.survey("o/pre", output="out", **options).rows}


def outcomes(rows: dict[str, Row]) -> dict[str, str]:
    return {name: row.outcome for name, row in rows.items()}


PASSING = {
    "429 with the rate": Fault("/o/two/", times=2, status=429,
                               headers={"RateLimit": '"resolvers";r=0;t=1'}),
    "429 with both": Fault("/o/two/", times=2, status=429,
                           headers={"RateLimit": '"resolvers";r=0;t=1', "Retry-After": "1"}),
    "429 until a date": Fault("/o/two/", times=1, status=429, headers={"Retry-After": "DATE"}),
    "500": Fault("/o/two/", times=2, status=500),
    "503 with Retry-After": Fault(FILE, after=3, times=1, status=503,
                                  headers={"Retry-After": "1"}),
    "cut in the middle": Fault("/o/two/", after=2, times=2, cut=3),
    "cut at once": Fault("/o/two/", times=2, cut=0),
    "cut short": Fault("/o/two/", after=2, times=2, short=2),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_leaves_no_trace(listing: SurveyHub, case: str) -> None:
    fault = Fault(**vars(PASSING[case]))
    if fault.headers.get("Retry-After") == "DATE":
        fault.headers = {"Retry-After": formatdate(time.time() + 1, usegmt=True)}
    listing.faults = [fault]
    rows = take()
    assert outcomes(rows) == GOOD and fault.times == 0
    for name in GOOD:
        one = api.score("repos/pre", f"repos/{name[2:]}")
        assert sorted(x for x in rows[name].projection if x is not None) == sorted(
            site.figures["projection"] or 0.0 for site in one.sites
        )


STAYING = {
    "503": (Fault("/o/two/", status=503), "unreachable", "answers 503"),
    "cut": (Fault("/o/two/", after=1, cut=1), "unreachable", "the connection was cut"),
    "another range": (
        Fault("/o/two/resolve", content_range="bytes 5-{b}/{n}"), "refused", "bytes 5-",
    ),
    "no ranges": (Fault("/o/two/", ignore_range=True), "refused", "whole files only"),
    "compressed": (Fault("/o/two/", after=2, encoding="gzip"), "refused", "encoded as gzip"),
    "more": (Fault("/o/two/", after=2, long=9), "refused", "more than was asked for"),
    "in circles": (
        Fault("/o/two/", status=302, headers={"Location": "/o/two/resolve/x"}),
        "refused", "Exceeded maximum",
    ),
    "no hub": (Fault("/o/two/", status=418), "refused", "the server answers 418"),
    "a login": (Fault("/o/two/", status=401), "gone", "no such repository"),
    "hours": (
        Fault("/o/two/", status=429, headers={"Retry-After": "86400"}),
        "unreachable", "asks to wait for 24 h",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STAYING)
def test_what_stays_is_one_row_and_stops_nothing(listing: SurveyHub, case: str) -> None:
    fault, outcome, reason = STAYING[case]
    listing.faults = [Fault(**vars(fault))]
    rows = take()
    assert (rows["o/two"].outcome, reason in rows["o/two"].reason) == (outcome, True), rows["o/two"]
    assert set(rows) == set(GOOD)
    if case != "hours":
        assert outcomes(rows) == {**GOOD, "o/two": outcome}
    listing.faults.clear()
    assert outcomes(take(resume=True))["o/three"] == "scored"


def test_an_answer_that_only_drips(listing: SurveyHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    listing.drip = {"/o/two/": 0.02}
    rows = take()
    assert outcomes(rows) == {**GOOD, "o/two": "unreachable"}
    assert re.search(r"the answer only drips \(\d+ bytes in", rows["o/two"].reason)


def test_a_store_behind_redirects(listing: SurveyHub) -> None:
    """What it sends is not the hub's to grant: of each file one request is."""
    with SurveyHub() as store:
        store.repos = listing.repos
        listing.store = store
        grant = listing.grants["resolvers"] = Grant(limit=11, window=2)
        rows = take()
    assert outcomes(rows) == GOOD and grant.refused == 0
    assert grant.used == [8], "a configuration and a file of four models"
    assert all(one.token is None for one in store.log)
    pre, one = (sum(f"/{name}/" in x.path for x in store.log) for name in ("pre", "one"))
    assert one == pre - 1 > 2, "a header at once; nothing in vain to save what is not counted"


def test_deleted_between_listing_and_reading(listing: SurveyHub) -> None:
    del listing.repos["o/two"]
    rows = take()
    assert outcomes(rows) == {**GOOD, "o/two": "gone"}
    assert "no such repository" in rows["o/two"].reason


def hostile(folder: Path, name: str, header: bytes, length: int | None = None) -> None:
    folder.mkdir()
    with (folder / name).open("wb") as file:
        file.write((len(header) if length is None else length).to_bytes(8, "little") + header)
        if length is not None:
            file.truncate(8 + length)


def test_headers_that_mean_harm(listing: SurveyHub, tmp_path: Path) -> None:
    """100 MB of header are not fetched, and names are shown, not obeyed."""
    evil = "\x1b[2J</script><script>alert(1)</script>\u202e.bias"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}
    hostile(tmp_path / "evil", FILE, json.dumps({evil: entry}).encode())
    hostile(tmp_path / "huge", FILE, b'{"', length=99_000_000)
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    hostile(tmp_path / "deep", FILE, deep)
    for name in ("evil", "huge", "deep"):
        listing.tuned(f"o/{name}", tmp_path / name, tags=[evil], pipeline_tag=evil)
    rows = take()
    assert outcomes(rows) == GOOD | dict.fromkeys(("o/evil", "o/huge", "o/deep"), "damaged")
    assert "a header of 99,000,000 bytes; expected at most 4,000,000" in rows["o/huge"].reason
    assert sum(one.served for one in listing.log if "/huge/" in one.path) < 10_000
    for row in rows.values():
        assert row.reason.isprintable() and len(row.reason) <= 500
    assert rows["o/evil"].task == evil, "data stays exact"


def test_at_a_terminal_nothing_of_it_is_obeyed(
    listing: SurveyHub, tmp_path: Path, beftkit: Beftkit
) -> None:
    evil = "\x1b[2J</script><script>alert(1)</script>"
    hostile(tmp_path / "evil", FILE, json.dumps({evil: [1]}).encode())
    listing.tuned("o/evil", tmp_path / "evil", pipeline_tag=evil)
    ran = beftkit("survey", "o/pre", "-o", "out")
    assert ran.code == 0 and "\x1b" not in ran.out + ran.err
    assert "3 of o/pre" not in ran.err and "fine-tunes that the hub lists: 4 of o/pre" in ran.err
    page = Path("out", "survey.html")
    assert not page.exists() or "<script>alert" not in page.read_text()


@pytest.mark.parametrize("retry_after", [True, False])
def test_a_limit_is_kept_to(listing: SurveyHub, tmp_path: Path, retry_after: bool) -> None:
    """Windows of a second with 60 requests each: all used, none refused twice."""
    grant = Grant(limit=60, window=1, retry_after=retry_after)
    listing.grants["resolvers"] = grant
    for number in range(20):
        listing.tuned(f"o/m{number}", tmp_path / "repos" / "one", downloads=number)
    rows = take(max_bytes=0)
    assert set(outcomes(rows).values()) == {"scored"}
    assert grant.refused <= 1 and len(grant.used) >= 2
    assert sum(one.status == 429 for one in listing.log) <= 1


def test_larger_requests_where_each_one_counts(listing: SurveyHub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "repos" / "again", seed=5)
    for number in range(12):
        listing.tuned(f"o/m{number}", folder)
    costs = {}
    for most in (0, 1_000_000):
        listing.grants["resolvers"] = Grant(limit=100, window=2)
        listing.log.clear()
        api.survey("o/pre", output=f"out-{most}", max_bytes=most)
        rows = read_rows(f"out-{most}")[1]
        assert {row.outcome for row in rows} == {"scored"}
        costs[most] = sum(row.requests or 0 for row in rows), listing.served(FILE)
    assert costs[1_000_000][0] <= 0.8 * costs[0][0]
    assert costs[1_000_000][1] > costs[0][1]
    a, b = ({row.model: row.projection for row in read_rows(f"out-{n}")[1]} for n in costs)
    assert a == b


def test_killed_and_taken_up(listing: SurveyHub, tmp_path: Path) -> None:
    """SIGKILL in a process of its own, as a user meets it; then the command ends it."""
    for number in range(40):
        listing.tuned(f"o/m{number}", tmp_path / "repos" / "one", downloads=number)
    listing.latency = 0.02
    home = tmp_path / "home"
    given = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    given |= {"HF_ENDPOINT": listing.url, "HF_HOME": str(home)}
    given["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, "-m", "beftkit", "survey", "o/pre", "-o", "out", "-q"]
    path = tmp_path / "out" / ROWS
    with subprocess.Popen(command, cwd=tmp_path, env=given, stderr=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 50
        while not path.exists() or path.read_bytes().count(b"\n") < 9:
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = path.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    done = kept.count(b"\n") - 1
    assert done < 43
    listing.latency = 0
    listing.log.clear()
    refused(outside(listing, home, "survey", "o/pre", "-o", "out"), "--resume goes on with it")
    ran = outside(listing, home, "survey", "o/pre", "-o", "out", "--resume", "--format", "json")
    assert ran.code == 0 and json.loads(ran.out)["base"] == "o/pre"
    assert path.read_bytes().startswith(kept)
    _, rows = read_rows(tmp_path / "out")
    assert len(rows) == 43 and {row.outcome for row in rows} == {"scored"}
    asked = {one.path.split("/")[2] for one in listing.requests(FILE)} - {"pre"}
    assert len(asked) == 43 - done


def test_the_command(listing: SurveyHub, beftkit: Beftkit) -> None:
    refused(beftkit("survey", "o/pre"), "no --output was given", code=2)
    refused(beftkit("survey", "o/pre", "-o", "x", "--sort", "size"), "--sort size", code=2)
    Path("models.txt").write_text("repos/one\no/two\n")
    ran = beftkit("survey", "repos/pre", "--from", "models.txt", "-o", "out")
    assert ran.code == 0 and "repos/pre" in ran.out
    again = beftkit("survey", "out", "-q")
    assert again.code == 0 and again.out == ran.out and again.err == ""
    refused(beftkit("survey", "out", "-o", "other"), "holds a survey, which is shown", code=2)
    # Refused where it is given, also as what it would be by itself, which --help says.
    helped = " ".join(beftkit("survey", "--help").out.split())
    for name, usual in (("limit", LIMIT), ("sort", SORT), ("max-bytes", MAX_BYTES)):
        assert f"[{usual}]" in helped
        refused(beftkit("survey", "out", f"--{name}={usual}"), f"without --{name};", code=2)
    ran = beftkit("survey", "repos/pre", "--from", "repos", "-o", "tree", "--format", "csv")
    assert ran.code == 0 and len(read_rows("tree")[1]) == 4
