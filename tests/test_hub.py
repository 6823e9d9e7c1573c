"""Checkpoints on the hub: what is asked for, how often, and that the result is the local one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import beftkit as api
from beftkit.checkpoints.hub import parse_reference
from beftkit.errors import BeftError
from tests.builders import write_model
from tests.command import Beftkit, refused, tree
from tests.hub_fixtures import needed, outside
from tests.hub_server import Fault, Hub
from tests.sizes import Model, bert_base, qwen2_7b, write_sparse_model

WEIGHTS = ".safetensors"


def roles(pre: object, post: object, **options: object) -> object:
    return api.score(pre, post, **options).roles  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "repo", "revision", "path"),
    [
        ("owner/name", "owner/name", None, ""),
        ("a-b/c.d_e@v1.0", "a-b/c.d_e", "v1.0", ""),
        ("o/n@refs/pr/1", "o/n", "refs/pr/1", ""),
        ("o/n@feature/x", "o/n", "feature/x", ""),
        ("hf://o/n", "o/n", None, ""),
        ("hf://o/n@main", "o/n", "main", ""),
        ("hf://o/n@refs/pr/1/a/b.safetensors", "o/n", "refs/pr/1", "a/b.safetensors"),
        ("hf://o/n@feature%2Fx/b", "o/n", "feature/x", "b"),
        ("hf://o/n/model.safetensors", "o/n", None, "model.safetensors"),
        ("hf://o/n.bin", "o/n.bin", None, ""),
        ("hf://gpt2", "gpt2", None, ""),
        ("hf://gpt2@v1", "gpt2", "v1", ""),
    ],
)
def test_references(text: str, repo: str, revision: str | None, path: str) -> None:
    found = parse_reference(text)
    assert found and (found.repo, found.revision, found.path) == (repo, revision, path)


@pytest.mark.parametrize(
    "text", ["name", "a/b/c", "/a/b", "./a", "../a/b", "~/a", "a/b/", "a/model.safetensors", "a/ b",
             "o/n@", "C:\\a\\b", "é/b"]
)  # fmt: skip
def test_what_can_only_be_local(text: str) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize("text", ["hf://", "hf://-", "hf:///o/n", "hf://o/n@", "hf://o /n"])
def test_a_malformed_hub_reference(text: str, beftkit: Beftkit) -> None:
    refused(beftkit("inspect", text), "expected hf://owner/name")


def test_equal_to_local_and_next_to_nothing_fetched(hub: Hub, tmp_path: Path) -> None:
    pre, post = hub.repos["o/pre"].folder, hub.repos["o/post"].folder
    scores = api.score("o/pre", "o/post")
    assert scores.roles == roles(pre, post)
    assert hub.served(WEIGHTS) <= 1.05 * (needed(pre) + needed(post))
    assert scores.bytes_read == hub.served(WEIGHTS)
    assert all(one.range and one.status == 206 for one in hub.requests(WEIGHTS))
    assert scores.pre.commit == hub.repos["o/pre"].commit
    assert (scores.pre.bytes_fetched or 0) + (scores.post.bytes_fetched or 0) == hub.served()
    assert not (tmp_path / "home").exists(), "nothing is written to the user's cache"


@pytest.mark.parametrize("model", [bert_base(), qwen2_7b()], ids=["bert", "qwen2-7b-4-shards"])
def test_large_models(hub: Hub, tmp_path: Path, model: Model) -> None:
    sides = [tmp_path / "pre", tmp_path / "post"]
    wanted = sum(write_sparse_model(side, model, seed) for seed, side in enumerate(sides))
    for side in sides:
        hub.add(f"big/{side.name}", side)
    hub.latency = 0.01
    assert roles("big/pre", "big/post") == roles(*sides)
    assert wanted <= hub.served(WEIGHTS) <= 1.05 * wanted
    assert 4 < hub.busiest <= 8, "requests run side by side, and not all at once"


def test_headers_of_shards_are_fetched_side_by_side(hub: Hub, tmp_path: Path) -> None:
    hub.add("o/shards", write_model(tmp_path / "shards", shards=4))
    hub.latency = 0.1
    api.inspect("o/shards")
    starts = [n for n, one in enumerate(hub.requests(WEIGHTS)) if one.range == "bytes=0-7"]
    assert len(starts) == 4 and max(starts) < 6, "the next shard does not wait for the last"


def test_shards_without_an_index(hub: Hub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "shards", shards=3)
    (folder / "model.safetensors.index.json").unlink()
    hub.add("o/shards", folder)
    assert api.inspect("o/shards").to_dict()["roles"] == api.inspect(folder).to_dict()["roles"]


def test_revisions_folders_and_files(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    write_model(folder / "run" / "last", seed=5)
    shutil.copytree(folder / "run" / "last", folder, dirs_exist_ok=True)
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    hub.add("o/many", folder, "v1", "refs/pr/1", "feature/x")
    wanted = api.inspect(folder).to_dict()["roles"]
    for reference in (
        "o/many@v1", "o/many@refs/pr/1", "o/many@feature/x", f"o/many@{hub.repos['o/many'].commit}",
        "hf://o/many@feature%2Fx/other.safetensors", "hf://o/many/other.safetensors",
        "hf://o/many@refs/pr/1/run/last", "hf://o/many/run/last/model.safetensors",
    ):  # fmt: skip
        found = api.inspect(reference)
        assert found.to_dict()["roles"] == wanted
        assert found.checkpoint.path == reference


def test_a_repository_of_no_owner_is_reached_with_the_prefix(hub: Hub, tmp_path: Path) -> None:
    hub.add("gpt2", write_model(tmp_path / "repos" / "gpt2", "gpt2"))
    assert api.inspect("hf://gpt2").family == "gpt2"


def test_a_local_path_wins_unless_the_hub_is_forced(hub: Hub, tmp_path: Path) -> None:
    write_model(tmp_path / "o" / "pre", "opt")
    assert api.inspect("o/pre").family == "opt"
    assert not hub.log
    assert api.inspect("hf://o/pre").family == "bert"


def test_what_is_printed(hub: Hub, beftkit: Beftkit) -> None:
    table = beftkit("score", "o/pre", "o/post")
    assert table.code == 0 and table.err == ""
    served = [sum(one.served for one in hub.log if f"/o/{n}" in one.path) for n in ("pre", "post")]
    commit = hub.repos["o/pre"].commit
    assert f"PRE   o/pre (commit {commit[:8]}, fetched {served[0] / 1000:.3g} kB of " in table.out
    assert "fetched" in beftkit("inspect", "o/pre").out
    document = json.loads(beftkit("score", "o/pre", "o/post", "--format", "json").out)
    assert document["pre"]["commit"] == commit
    assert document["pre"]["bytes_fetched"] == served[0]
    assert document["posts"][0]["post"]["bytes_fetched"] == served[1]


def test_an_adapters_folder_of_the_hub_has_its_configuration(hub: Hub, tmp_path: Path) -> None:
    from beftkit.checkpoints import open_checkpoint

    folder = write_model(tmp_path / "adapter")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "BEFT"}')
    hub.add("o/adapter", folder)
    assert open_checkpoint("o/adapter").adapter == {"peft_type": "BEFT"}


@pytest.mark.parametrize("from_cache", ["all", "one shard"])
def test_what_the_cache_holds_is_read_there(hub: Hub, tmp_path: Path, from_cache: str) -> None:
    folder = write_model(tmp_path / "shards", shards=3)
    commit = hub.add("o/shards", folder)
    snapshot = tmp_path / "home" / "hub" / "models--o--shards" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    gone = sorted(snapshot.glob("*.safetensors"))[1]
    if from_cache == "one shard":
        gone.unlink()
    found = api.inspect("o/shards")
    assert found.to_dict()["roles"] == api.inspect(folder).to_dict()["roles"]
    asked = {one.path.rpartition("/")[2] for one in hub.requests()}
    assert asked == {"shards", *({gone.name} if from_cache == "one shard" else {})}
    assert found.checkpoint.bytes_fetched == hub.served()


def test_redirects_to_a_store(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pre, post = (hub.repos[name].folder for name in ("o/pre", "o/post"))
    with Hub() as store:
        store.repos, hub.store = hub.repos, store
        # In the middle of PRE's biases the address that the hub led to becomes too old.
        store.faults = [Fault(match="resolve", after=6, times=1, status=403)]
        scores = api.score("o/pre", "o/post")
        assert scores.roles == roles(pre, post)
        assert {one.token for one in hub.log} == {"Bearer hf_secret"}
        assert {one.token for one in store.log} == {None}, "the token stays with the hub"
        assert len(hub.requests(WEIGHTS)) in (3, 4), "one way through the hub a file, and again"
        assert store.served() <= 1.05 * (needed(pre) + needed(post))


def test_download_then_offline(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    hub.add("o/shards", write_model(tmp_path / "shards", seed=2, shards=3))
    arguments = ("score", "o/pre", "o/shards", "--format", "json")
    before = json.loads(outside(hub, home, *arguments).out)
    assert not (home / "hub").exists()
    hub.log.clear()
    ran = outside(hub, home, *arguments, "--download")
    assert ran.code == 0, ran.err
    after = json.loads(ran.out)
    assert after["posts"][0]["roles"] == before["posts"][0]["roles"]
    weights = [path.stat().st_size for path in home.rglob("*.safetensors")]
    assert len(weights) == 4 and hub.served(WEIGHTS) == sum(weights)
    assert all(one.range is None for one in hub.requests(WEIGHTS))

    hub.log.clear()
    ran = outside(hub, home, *arguments, HF_HUB_OFFLINE="1")
    assert json.loads(ran.out)["posts"][0]["roles"] == before["posts"][0]["roles"]
    assert json.loads(ran.out)["pre"]["commit"] == before["pre"]["commit"]
    assert hub.log == []
    left = tree(home)
    ran = outside(hub, home, *arguments, "--download")  # what is there is not fetched again
    assert ran.code == 0 and sorted(one.path for one in hub.log) == [
        "/api/models/o/pre", "/api/models/o/shards",
    ]  # fmt: skip
    assert tree(home) == left


def test_inspect_downloads_too(hub: Hub, tmp_path: Path) -> None:
    ran = outside(hub, tmp_path / "home", "inspect", "o/pre", "--download")
    assert ran.code == 0 and len(list((tmp_path / "home").rglob("*.safetensors"))) == 1


def test_offline_without_a_copy(hub: Hub, tmp_path: Path) -> None:
    for reference in ("o/pre", "hf://o/pre@v1"):
        ran = outside(hub, tmp_path / "home", "inspect", reference, HF_HUB_OFFLINE="1")
        refused(ran, f"{reference}: not in the cache")
    assert hub.log == []


@pytest.mark.skipif("BEFTKIT_DATA" not in os.environ, reason="needs BEFTKIT_DATA")
def test_a_real_pair_through_the_hub(hub: Hub, tmp_path: Path) -> None:
    pairs = Path(os.environ["BEFTKIT_DATA"]) / "pairs"
    for side in ("pre", "post"):
        (tmp_path / side).mkdir()
        whole = pairs / f"minilm-sst2-{side}.safetensors"
        shutil.copy(whole, tmp_path / side / "model.safetensors")
        hub.add(f"minilm/{side}", tmp_path / side)
    far = api.score("minilm/pre", "minilm/post")
    near = api.score(*(pairs / f"minilm-sst2-{side}.safetensors" for side in ("pre", "post")))
    assert far.roles == near.roles and far.target == near.target == "v"
    assert [far.pre.bias_sha256, far.post.bias_sha256] == [
        near.pre.bias_sha256,
        near.post.bias_sha256,
    ]
    assert far.roles["v"].figures["projection"] == pytest.approx(0.528216949957, abs=1e-9)


def test_paths_are_never_taken_for_the_hub(hub: Hub, tmp_path: Path) -> None:
    for path in (Path("o/pre"), "pre", "o/pre/model.safetensors", "o/model.safetensors"):
        with pytest.raises(BeftError, match="no such file or folder"):
            api.inspect(path)
    for take in (
        lambda: api.extract(Path("o/pre"), Path("o/post"), output=tmp_path / "out"),
        lambda: api.compare(Path("o/pre"), Path("o/post")),
    ):
        with pytest.raises(BeftError, match="no such file or folder"):
            take()
    assert hub.log == []
