"""What can go wrong between here and the hub: one line each, and nothing wrong is believed."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

import beftkit as api
from beftkit.errors import BeftError
from tests.builders import write_model
from tests.command import Beftkit, refused
from tests.hub_fixtures import outside
from tests.hub_server import Fault, Hub

FILE = "model.safetensors"
API = "/api/models/"
ATTEMPTS = 3

Case = tuple[Fault, str]
#: what is wrong -> (the fault, what the line says)
ANSWERS: dict[str, Case] = {
    "gated, no token": (
        Fault(API, status=401, headers={"X-Error-Code": "GatedRepo"}),
        "o/pre: gated; accept its terms at http",
    ),
    "gated file": (
        Fault(FILE, status=403, headers={"X-Error-Code": "GatedRepo"}),
        "log in with `hf auth login`",
    ),
    "bare 401": (Fault(API, status=401), "no such repository at http"),
    "absent, said with 401": (
        Fault(API, status=401, headers={"X-Error-Code": "RepoNotFound"}),
        "or private: then log in with `hf auth login`",
    ),
    "bare 403": (
        Fault(FILE, status=403, headers={"X-Error-Message": "not for you"}),
        "access refused ('not for",
    ),
    "file gone": (
        Fault(FILE, status=404, headers={"X-Error-Code": "EntryNotFound"}),
        "model.safetensors: no such file in the repository",
    ),
    "teapot": (Fault(API, status=418), "the server answers 418; is http"),
    "not modified": (Fault(FILE, status=304), "the server answers 304"),
    "login page": (Fault(API, status=200, body=b"<html>Log in"), "answers, but not as a hub does"),
    "listing without commit": (Fault(API, status=200, body=b'{"siblings": []}'), "not as a hub"),
    "listing with a wrong commit": (
        Fault(API, status=200, body=b'{"sha": "../..", "siblings": []}'),
        "not as a hub",
    ),
    "listing of nothing": (
        Fault(API, status=200, body=b'{"sha": "%b", "siblings": [1]}' % (b"a" * 40)),
        "not as a hub",
    ),
    "garbage config": (Fault("config.json", status=200, body=b"{,"), "o/pre/config.json: config"),
    "no ranges": (Fault(FILE, ignore_range=True), "whole files only, not parts of"),
    "wrong range": (Fault(FILE, content_range="bytes 8-15/{n}"), "asked for bytes 0-7, the server"),
    "wrong range later": (
        Fault(FILE, after=2, content_range="bytes 0-{b}/{n}"),
        "the server answers with 'bytes 0-",
    ),
    "range of unknown size": (Fault(FILE, content_range="bytes {a}-{b}/*"), "bytes 0-7/*"),
    "no content range": (Fault(FILE, status=206, body=bytes(8)), "'no Content-Range'"),
    "garbage content range": (Fault(FILE, content_range="eight bytes"), "'eight bytes'"),
    "size that changes": (Fault(FILE, after=1, content_range="bytes {a}-{b}/99999999"), "now 999"),
    "more than asked": (Fault(FILE, after=2, long=5), "sends more than was asked for"),
    "compressed": (Fault(FILE, encoding="gzip"), "encoded as gzip"),
    "short body": (Fault(FILE, after=2, short=3), "ended after"),
    "empty body": (Fault(FILE, after=2, short=10**9), "ended after 0"),
    "cut in the middle": (Fault(FILE, after=2, cut=3), "connection was cut ('peer closed"),
    "cut at once": (Fault(FILE, after=2, cut=0), "the connection was cut ("),
    "unavailable": (Fault(FILE, status=503), "the hub answers 503; try again later"),
    "too many requests": (Fault(FILE, status=429), "too many requests; try again later"),
    "redirect to nowhere": (
        Fault(FILE, status=302, headers={"Location": "gopher://127.0.0.1/"}),
        "the request failed (",
    ),
    "redirect in circles": (
        Fault(FILE, status=302, headers={"Location": "/o/pre/resolve/main/model.safetensors"}),
        "the request failed ('Exceeded maximum allowed redirects",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("side", ["pre", "post"])
def test_a_wrong_answer(hub: Hub, beftkit: Beftkit, case: str, side: str) -> None:
    fault, message = ANSWERS[case]
    order = ("o/pre", "repos/post") if side == "pre" else ("repos/post", "o/pre")
    hub.faults = [Fault(**vars(fault))]
    refused(beftkit("score", *order), message, limit=360)
    retried = ("try again later", "ended after", "connection was cut")
    assert hub.served(FILE) < 100_000
    if any(words in message for words in retried):
        ranges = [one.range for one in hub.log if one.range]
        assert max(map(ranges.count, ranges)) == ATTEMPTS


def test_without_ranges_the_body_is_not_pulled(hub: Hub, tmp_path: Path, beftkit: Beftkit) -> None:
    folder = write_model(tmp_path / "large")
    with (folder / FILE).open("ab") as file:
        file.truncate(200_000_000)
    hub.add("o/large", folder)
    hub.faults = [Fault(FILE, ignore_range=True)]
    refused(beftkit("inspect", "o/large"), "--download")
    time.sleep(0.2)  # what the sockets hold may still be counted
    assert hub.served(FILE) < 20_000_000


def test_and_with_download_no_ranges_are_needed(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault(FILE, ignore_range=True)]
    ran = outside(hub, tmp_path / "home", "score", "o/pre", "o/post", "--download")
    assert ran.code == 0 and "target: " in ran.out


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FILE, times=1, status=503),
        Fault(FILE, times=2, status=500),
        Fault(FILE, times=1, status=429, headers={"Retry-After": "1"}),
        Fault(FILE, after=3, times=2, cut=2),
        Fault(FILE, after=3, times=1, short=2),
        Fault("config.json", times=1, status=502),
        Fault("config.json", times=1, delay=2.5),
    ],
    ids=["503", "500 twice", "429", "cut twice", "short", "502 for the config", "timeout"],
)
def test_what_passes_is_asked_for_again(hub: Hub, fault: Fault) -> None:
    hub.faults = [fault]
    folders = [hub.repos[name].folder for name in ("o/pre", "o/post")]
    assert api.score("o/pre", "o/post").roles == api.score(*folders).roles
    assert fault.times == 0


def test_a_server_that_asks_for_hours_is_not_waited_for(hub: Hub, beftkit: Beftkit) -> None:
    hub.faults = [Fault(FILE, status=429, headers={"Retry-After": "3600"})]
    refused(beftkit("inspect", "o/pre"), "too many requests")
    assert len(hub.requests(FILE)) == 1


def test_after_a_failure_the_rest_is_not_asked_for(
    hub: Hub, tmp_path: Path, beftkit: Beftkit
) -> None:
    from tests.sizes import bert_base, write_sparse_model

    write_sparse_model(tmp_path / "bert", bert_base(), 1)
    hub.add("o/bert", tmp_path / "bert")
    hub.latency = 0.02
    hub.faults = [Fault(FILE, after=3, times=1, content_range="bytes 0-0/1")]
    refused(beftkit("inspect", "o/bert"), "bytes 0-0/1")
    time.sleep(0.2)
    assert len(hub.requests(FILE)) < 30, "of about a hundred"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("o/absent", "o/absent: no such repository at http"),
        ("o/absent", "; nor is there such a local file or folder"),
        ("o/pre@v9", "o/pre: no revision 'v9' in this repository"),
        ("hf://o/pre/nothing/here", "no such file or folder in the repository"),
        ("o/nothing", "no model.safetensors or sharded set here (found README.md, notes.txt)"),
        ("o/pickle", "no .safetensors, only pytorch_model.bin, a pickle that can only be"),
        ("o/damaged", "o/damaged/model.safetensors: not a safetensors file"),
        ("o/short", "o/short/model.safetensors: 5 bytes is too short"),
        ("o/empty", "o/empty/model.safetensors: the file is empty"),
        ("o/lost", "its shard 'model-00002-of-00002.safetensors' is missing"),
    ],
)  # fmt: skip
def test_what_is_not_there(
    hub: Hub, tmp_path: Path, beftkit: Beftkit, reference: str, message: str
) -> None:
    contents = {
        "nothing": {"README.md": b"", "notes.txt": b""},
        "pickle": {"README.md": b"", "pytorch_model.bin": b"\x80\x02"},
        "damaged": {FILE: b"\xff" * 100},
        "short": {FILE: b"12345"},
        "empty": {FILE: b""},
    }
    for name, files in contents.items():
        (tmp_path / name).mkdir()
        for file, data in files.items():
            (tmp_path / name / file).write_bytes(data)
        hub.add(f"o/{name}", tmp_path / name)
    lost = write_model(tmp_path / "lost", shards=2)
    (lost / "model-00002-of-00002.safetensors").unlink()
    hub.add("o/lost", lost)
    refused(beftkit("inspect", reference), message)


def test_a_bad_token(hub: Hub, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_good"
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    ran = beftkit("inspect", "o/pre")
    refused(ran, "the hub refuses the token (401); log in with `hf auth login` again")
    assert "hf_bad" not in ran.err
    monkeypatch.setenv("HF_TOKEN", "hf_gööd")
    refused(beftkit("inspect", "o/pre"), "the request failed")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert api.inspect("o/pre").family == "bert"


def test_nobody_there(hub: Hub, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for url, message in ((dead, f"o/x: {dead} cannot be reached ("), ("ftp://a", "request failed")):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        started = time.monotonic()
        refused(beftkit("inspect", "o/x"), message)
        assert time.monotonic() - started < 1


def test_a_silent_server(hub: Hub, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.faults = [Fault("", delay=1.5)]
    refused(beftkit("inspect", "o/pre"), "within 0.3 s; try again later")
    assert len(hub.log) == 1, "without a first answer there is no second question"
    hub.faults = [Fault(FILE, delay=1.5)]
    refused(beftkit("inspect", "o/pre"), "within 0.3 s; try again later")
    assert len(hub.requests(FILE)) == ATTEMPTS


def test_a_download_that_fails(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault(FILE, status=403, headers={"X-Error-Code": "GatedRepo"})]
    ran = outside(hub, tmp_path / "home", "inspect", "o/pre", "--download")
    refused(ran, "o/pre/model.safetensors: not downloaded ('403 Client Error")


def test_as_a_user_meets_it(hub: Hub, tmp_path: Path) -> None:
    """The environment alone, in a process of its own: success, then one refusal of each kind."""
    home = tmp_path / "home"
    ran = outside(hub, home, "score", "o/pre", "o/post", "--format", "json")
    assert ran.code == 0 and ran.err == "" and json.loads(ran.out)["posts"][0]["target"]
    hub.faults = [Fault(FILE, after=5, cut=1)]
    refused(outside(hub, home, "score", "o/pre", "o/post"), "the connection was cut (")
    refused(outside(hub, home, "inspect", "o/absent"), "no such repository")
    hub.token = "hf_good"
    refused(outside(hub, home, "inspect", "o/pre", HF_TOKEN="hf_bad"), "refuses the token")
    assert not home.exists()


def test_an_error_is_a_beft_error(hub: Hub) -> None:
    with pytest.raises(BeftError, match="no such repository"):
        api.score("o/pre", "hf://o/absent")
