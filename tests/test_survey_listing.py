"""Which models a survey asks: the hub's list under both ids of a base, files, folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from beftkit.errors import BeftError
from beftkit.surveys.listing import SORTS, list_models, read_references
from tests.builders import write_model
from tests.hub_server import Fault
from tests.survey_hub import SurveyHub


def names(found: Any) -> list[str]:
    return [one.model for one in found.models]


def test_what_a_list_says(listing: SurveyHub) -> None:
    said = {"tags": ["license:mit", "x"], "pipeline_tag": "fill-mask", "gated": "auto"}
    said |= {"lastModified": "2026-01-02T03:04:05.000Z", "cardData": {"license": ["apache-2.0"]}}
    listing.about["o/two"] |= said
    found = list_models("o/pre")
    assert names(found) == ["o/one", "o/two", "o/three"] and found.counts == {"o/pre": 3}
    one, two = found.models[:2]
    assert one.commit == listing.repos["o/one"].commit
    assert one.paths == ("config.json", "model.safetensors") and one.by == "o/pre"
    assert (two.task, two.licence, two.gated, two.downloads) == (
        "fill-mask",
        "apache-2.0",
        True,
        98,
    )
    assert two.tags == ("license:mit", "x") and two.last_modified == "2026-01-02T03:04:05.000Z"
    [asked] = [one for one in listing.log if one.path == "/api/models"]
    assert asked.served


def test_huggingface_hub_asks_the_same(listing: SurveyHub) -> None:
    """Its own reader of lists, page by page, finds the same models."""
    from huggingface_hub import HfApi

    from beftkit.surveys.listing import EXPANDED

    listing.page = 2
    for sort in ("downloads", "likes"):
        expand: Any = [*EXPANDED]
        theirs = HfApi(endpoint=listing.url).list_models(
            filter="base_model:finetune:o/pre", sort=sort, expand=expand, limit=100
        )
        ours = list_models("o/pre", sort=sort).models
        assert [(one.id, one.sha, one.downloads) for one in theirs] == [
            (one.model, one.commit, one.downloads) for one in ours
        ]
    assert set(SORTS) >= {"downloads", "likes", "createdAt"}


def test_pages_limits_tasks(listing: SurveyHub) -> None:
    listing.page = 1
    assert names(list_models("o/pre")) == ["o/one", "o/two", "o/three"]
    listing.log.clear()
    assert names(list_models("o/pre", limit=2)) == ["o/one", "o/two"]
    assert len([one for one in listing.log if one.path == "/api/models"]) == 2
    listing.about["o/three"]["pipeline_tag"] = "summarization"
    assert names(list_models("o/pre", task="summarization")) == ["o/three"]
    assert names(list_models("o/pre", task="nothing")) == []


@pytest.mark.parametrize("asked", ["bert", "google/bert"])
def test_both_ids_of_a_base(listing: SurveyHub, tmp_path: Path, asked: str) -> None:
    """Whichever is given; counted apart, and a model of both lists is one."""
    listing.add("google/bert", tmp_path / "repos" / "pre")
    listing.former["bert"] = "google/bert"
    for name, base, downloads in (
        ("o/a", "google/bert", 5),
        ("o/b", "bert", 9),
        ("o/c", "bert", 1),
    ):
        listing.tuned(name, tmp_path / "repos" / "one", base=base, downloads=downloads)
    listing.about["google/bert"] = {"base": "bert", "downloads": 99}  # lists itself
    found = list_models(asked)
    assert found.counts == {"google/bert": 1, "bert": 3}
    assert names(found) == ["o/b", "o/a", "o/c"] and found.models[0].by == "bert"


def test_another_model_of_the_bare_name_is_no_former_id(listing: SurveyHub, tmp_path: Path) -> None:
    listing.add("pre", tmp_path / "repos" / "one")
    assert list_models("o/pre").counts == {"o/pre": 3}


def test_the_next_page_stays_with_the_hub(listing: SurveyHub) -> None:
    body = json.dumps([{"id": "o/one", "sha": "1" * 40, "siblings": []}]).encode()
    for link in ('<http://elsewhere.example/api/models?x=1>; rel="next"', ""):
        listing.faults = [
            Fault("/api/models", after=2, status=200, body=body, headers={"Link": link})
        ]
        assert names(list_models("o/pre")) == ["o/one"]
    ring = {"Link": f'<{listing.url}/api/models?x=1>; rel="next"'}
    listing.faults = [Fault("/api/models", after=2, status=200, body=body, headers=ring)]
    assert names(list_models("o/pre")) == ["o/one"], "a list that leads to itself ends"


def test_entries_that_are_none(listing: SurveyHub) -> None:
    entries: list[Any] = [
        None, 7, {"id": 5}, {"id": "../x"}, {"id": "o/<script>"}, {"id": "a/b/c"}, {},
        {"id": "o/one", "sha": "main", "siblings": [{"rfilename": 1}, 2], "tags": [1, "t"],
         "downloads": "many", "cardData": "none", "lastModified": 3, "gated": None},
    ]  # fmt: skip
    body = json.dumps(entries).encode()
    listing.faults = [Fault("/api/models", after=2, status=200, body=body)]
    [one] = list_models("o/pre").models
    assert (one.model, one.commit, one.paths, one.tags) == ("o/one", None, None, ("t",))
    assert (one.downloads, one.last_modified, one.gated) == (None, None, False)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("/api/models/o/pre", status=200, body=b"<html>"), "answers, but not as a hub does"),
        (Fault("/api/models/o/pre", status=200, body=b'{"id": "a b"}'), "not as a hub does"),
        (Fault("/api/models", after=2, status=200, body=b"{}"), "does not list models as a hub"),
        (Fault("/api/models", after=2, status=503), "the hub answers 503; try again later"),
    ],
)
def test_no_list(listing: SurveyHub, fault: Fault, message: str) -> None:
    listing.faults = [fault]
    with pytest.raises(BeftError, match=re.escape(message)):
        list_models("o/pre")


def test_no_such_base(listing: SurveyHub) -> None:
    with pytest.raises(BeftError, match="o/absent: no such repository"):
        list_models("o/absent")


def test_a_file_of_references(tmp_path: Path) -> None:
    path = tmp_path / "models.txt"
    path.write_text("# mine\n o/one \n\no/two@v1\t# new\nfolder/with blanks\no/one # again\na#b\n")
    assert read_references(path) == ["o/one", "o/two@v1", "folder/with blanks", "a#b"]
    for text, message in (("# none\n", "names no model"), ("\xff\xfe", "is no UTF-8 text")):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(BeftError, match=message):
            read_references(path)
    with pytest.raises(BeftError, match="cannot be read"):
        read_references(tmp_path / "absent")


def test_a_tree_of_checkpoints(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("run/checkpoint-1000", "run/checkpoint-200", "a", "deep/er"):
        write_model(tree / name)
    (tree / "pickled").mkdir()
    (tree / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    (tree / "logs").mkdir()
    (tree / "logs" / "training_args.bin").write_bytes(b"x")
    (tree / "ring").symlink_to(tree)
    lost = write_model(tree / "lost", shards=3)
    (lost / "model-00002-of-00003.safetensors").unlink()
    (lost / "model.safetensors.index.json").unlink()
    for name in ("loose/ours.safetensors", "loose/theirs.safetensors", "shots/step-7.safetensors"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    (tree / "shots" / "step-10.safetensors").write_bytes(b"x")
    found = [str(Path(one).relative_to(tree)) for one in read_references(tree)]
    assert found == [
        "a", "deep/er", "loose/ours.safetensors", "loose/theirs.safetensors", "lost", "pickled",
        "run/checkpoint-200", "run/checkpoint-1000",
        "shots/step-7.safetensors", "shots/step-10.safetensors",
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(BeftError, match="no checkpoint in it or below"):
        read_references(tmp_path / "empty")
