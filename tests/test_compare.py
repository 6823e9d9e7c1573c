"""`beftkit compare`: cosines of what adapters and checkpoints changed, against numpy."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import beftkit
from beftkit.errors import BeftError, UsageError
from beftkit.present.cosines import cosines_document
from beftkit.weights import compare
from beftkit.weights.cosines import Alike
from tests import builders
from tests.adapted import trained
from tests.command import Beftkit, misused, refused
from tests.hub_fixtures import needed
from tests.hub_server import Hub
from tests.test_imports import COMMAND, HEAVY, heavy_after
from tests.tiny_models import build

Bert = tuple[Path, dict[str, Any]]


def by_hand(a: Any, b: Any) -> float:
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def change(base: Any, model: Any, word: str) -> np.ndarray:
    """What changed in the parameters of a word, in the order of the layers."""
    names = [name for name, _ in model.named_parameters() if word in name]
    pairs = [(model.get_parameter(n), base.get_parameter(n)) for n in names]
    return np.concatenate([(a.double() - b.double()).detach().numpy() for a, b in pairs])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Adapters of one base in each format, ``base`` and a checkpoint of the last, ``post``."""
    folder = tmp_path_factory.mktemp("bert")
    build("bert").save_pretrained(folder / "base")
    models: dict[str, Any] = {}
    for seed, format in enumerate(("beft", "lora", "biases")):
        at = {"format": format, "base": str(folder / "base")}
        models["base"], models[format] = trained("bert", folder / format, seed=seed, **at)
    models["biases"].save_pretrained(folder / "post")
    return folder, models


def test_adapters_of_any_format(bert: Bert) -> None:
    folder, models = bert
    names = ("beft", "lora", "biases")
    found = beftkit.compare(*(folder / name for name in names))
    moved = [change(models["base"], models[name], "value.bias") for name in names]
    for i in range(3):
        for j in range(3):
            want = by_hand(moved[i], moved[j])
            assert found.cosines[i][j] == pytest.approx(want, abs=1e-5)  # a sum rounds
            assert found.roles[0].cosines[i][j] == found.cosines[i][j]
        assert found.cosines[i][i] == 1.0 and found.whole.angles[i][i] == 0.0
        assert found.whole.norms[i] == pytest.approx(np.linalg.norm(moved[i]), rel=1e-6)
    [role] = found.roles
    assert (role.role, role.width, len(found.sites)) == ("v", 48, 2)
    for site, a, b in zip(
        found.sites, moved[0].reshape(2, -1), moved[1].reshape(2, -1), strict=True
    ):
        assert site.cosines[0][1] == pytest.approx(by_hand(a, b), abs=1e-5)
        assert site.angles[0][1] == pytest.approx(np.degrees(np.arccos(site.cosines[0][1])))
    assert any("belong to each task" in note for note in found.notes)


def test_an_adapter_and_the_checkpoint_that_it_is_of(bert: Bert) -> None:
    folder, _ = bert
    found = beftkit.compare(folder / "biases", folder / "post", base=folder / "base")
    assert found.cosines[0][1] == pytest.approx(1.0, abs=1e-12)
    still = next(role for role in found.roles if role.role == "q")
    assert still.norms == (0.0, 0.0) and still.cosines == ((None, None), (None, None))


def test_without_a_base_names_tell_the_roles(bert: Bert, tmp_path: Path) -> None:
    trained("bert", tmp_path / "one", base=str(tmp_path / "gone"))
    trained("bert", tmp_path / "two", base=str(tmp_path / "gone"), seed=4)
    found = beftkit.compare(tmp_path / "one", tmp_path / "two")
    assert [role.role for role in found.roles] == ["v"]
    assert any("told by names alone" in note for note in found.notes)
    known = beftkit.compare(tmp_path / "one", tmp_path / "two", base=bert[0] / "base")
    assert known.cosines == found.cosines
    other = beftkit.compare(tmp_path / "one", bert[0] / "beft")
    assert any("they name different bases" in note for note in other.notes)
    assert not any("different bases" in note for note in found.notes)


@pytest.mark.parametrize("shards", [1, 3])
def test_checkpoints_against_numpy(tmp_path: Path, shards: int) -> None:
    for seed, name in enumerate(("pre", "a", "b")):
        builders.write_model(tmp_path / name, "qwen2", seed, shards=shards)
    found = beftkit.compare(tmp_path / "a", tmp_path / "b", base=tmp_path / "pre")
    pre, a, b = (builders.model("qwen2", seed) for seed in range(3))
    pre, a, b = ({n: v.astype(np.float32) for n, v in one.items()} for one in (pre, a, b))
    for role in found.roles:
        names = [name for name in pre if f"{role.role}_proj.bias" in name]
        moved = [np.concatenate([one[n].astype(float) - pre[n] for n in names]) for one in (a, b)]
        assert role.cosines[0][1] == pytest.approx(by_hand(*moved), abs=1e-14)
    assert [role.role for role in found.roles] == ["q", "k", "v"]
    assert found.whole.width == sum(role.width for role in found.roles)


def test_on_the_hub_biases_alone_are_fetched(hub: Hub, tmp_path: Path) -> None:
    found = beftkit.compare("o/post", "o/pre", base="o/pre")
    assert found.cosines == ((1.0, None), (None, None))
    assert any("o/pre: changes none of these biases" in note for note in found.notes)
    assert hub.served(".safetensors") < 4 * needed(tmp_path / "repos" / "post")


def test_slices_of_a_fused_projection(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path / "base")
    more = {"format": "lora", "base": str(tmp_path / "base"), "task_type": "CAUSAL_LM"}
    base, one = trained("gpt2", tmp_path / "one", **more)
    _, two = trained("gpt2", tmp_path / "two", seed=5, **more)
    found = beftkit.compare(tmp_path / "one", tmp_path / "two")
    moved = [change(base, model, "c_attn.bias").reshape(2, 3, -1) for model in (one, two)]
    for number, role in enumerate(found.roles):
        assert role.role == "qkv"[number]
        want = by_hand(moved[0][:, number], moved[1][:, number])
        assert role.cosines[0][1] == pytest.approx(want, abs=1e-5)
    assert found.sites[0].slice == "[0:24]"


def test_what_cannot_be_compared(bert: Bert, tmp_path: Path) -> None:
    folder, _ = bert
    with pytest.raises(UsageError, match="expected two adapters or more"):
        beftkit.compare(folder / "beft")
    with pytest.raises(UsageError, match=r"holds no change by itself.*base=PRE"):
        beftkit.compare(folder / "beft", folder / "post")
    trained("bert", tmp_path / "wide", options={"hidden_size": 48}, base=str(tmp_path / "gone"))
    with pytest.raises(BeftError, match=r"has 48 elements, but that of .* has 24"):
        beftkit.compare(folder / "beft", tmp_path / "wide")
    with pytest.raises(BeftError, match="is this the adapter's base"):
        beftkit.compare(folder / "beft", tmp_path / "wide", base=folder / "base")
    with pytest.raises(BeftError, match="is an adapter; expected a model"):
        beftkit.compare(folder / "beft", folder / "lora", base=folder / "beft")
    trained("bert", tmp_path / "nan", base=str(folder / "base"))
    path = tmp_path / "nan" / "adapter_model.safetensors"
    tensors = {name: one.copy() for name, one in load_file(path).items()}
    next(one for name, one in tensors.items() if "beft" in name)[0, 0] = np.nan
    save_file(tensors, path)
    with pytest.raises(BeftError, match="beft_bias holds NaN or infinity"):
        beftkit.compare(folder / "beft", tmp_path / "nan")


def test_the_command(bert: Bert, beftkit: Beftkit, tmp_path: Path) -> None:
    folder, _ = bert
    names = [str(folder / name) for name in ("beft", "lora", "biases")]
    ran = beftkit("compare", *names, "--format", "json", "--plot", tmp_path / "m.svg")
    said = json.loads(ran.out)
    assert said["schema_version"] == 2 and said["names"] == names
    want = compare(*names)
    assert said["whole"]["cosines"] == [list(row) for row in want.cosines]
    drawn = (tmp_path / "m.svg").read_text()
    assert f"{want.cosines[0][1]:.2f}" in drawn
    rows = list(csv.DictReader(io.StringIO(beftkit("compare", *names, "--format", "csv").out)))
    assert len(rows) == 3 * (1 + 1 + 2) and rows[2]["layer"] == "0"
    assert float(rows[0]["cosine"]) == want.cosines[0][1]
    two = beftkit("compare", *names[:2], "--plot", tmp_path / "two.png")
    assert two.code == 0 and f"cosine {want.cosines[0][1]:.4f}" in two.out
    assert (tmp_path / "two.png").read_bytes()[:4] == b"\x89PNG"
    misused(beftkit("compare", names[0]), "expected two adapters or more")
    misused(beftkit("compare", *names, "--plot", tmp_path / "m.gif"), "ends in .png")
    refused(beftkit("compare", names[0], tmp_path / "none"), "no such file or folder")


def test_no_heavy_library_is_loaded(bert: Bert, tmp_path: Path) -> None:
    names = [str(bert[0] / name) for name in ("beft", "biases")]
    assert not heavy_after(COMMAND, "compare", *names, tmp_path=tmp_path) & HEAVY


def test_names_are_shown_as_text() -> None:
    one = Alike(
        None, None, None, None, None, 1, (1.0, 0.0), ((1.0, None), (None, None)),
        ((0.0, None), (None, None)),
    )  # fmt: skip
    found = beftkit.CosineResult(("a", "b"), None, one, (), (), ())
    assert "0,1:None" in repr(found) and cosines_document(found).json["whole"]["norms"] == [1, 0]
    assert "<table" in str(dataclasses.replace(found, names=("<b>", "c"))._repr_html_())
    assert "<b>" not in str(dataclasses.replace(found, names=("<b>", "c"))._repr_html_())


def test_parts_that_nothing_trained_are_not_compared(tmp_path: Path) -> None:
    """An adapter of values holds a fused bias over its full width, with zeros for q and k."""
    base = build("gpt2")
    base.save_pretrained(tmp_path / "base")
    for name in ("one", "two"):
        for module in base.modules():
            if type(module).__name__ == "Conv1D" and module.nf == 3 * module.nx:
                module.bias.data[2 * module.nx :] += torch.randn(module.nx)
        base.save_pretrained(tmp_path / f"post-{name}")
        posts = tmp_path / "base", tmp_path / f"post-{name}"
        beftkit.extract(*posts, "v", output=tmp_path / name)
    found = beftkit.compare(tmp_path / "one", tmp_path / "two")
    assert [one.role for one in found.roles] == ["v"]
    assert found.whole.width == sum(one.width for one in found.sites) == found.roles[0].width
    assert not any("no change of" in note for note in found.notes)


def test_a_base_that_is_gone(tmp_path: Path) -> None:
    """Roles are told by names, and the note says how this command takes a base."""
    names = []
    for name in ("one", "two"):
        trained("bert", tmp_path / name, seed=len(names), base=str(tmp_path / "gone"))
        names.append(tmp_path / name)
    for found in (beftkit.compare(*names), beftkit.average(*names, output=tmp_path / "mean")):
        note = next(note for note in found.notes if "told by names alone" in note)
        assert note.endswith("; --base names it") and "PRE" not in note


def test_what_is_no_reference() -> None:
    for given, said in ((["a", "b"], "list was given; each is given by itself"), (1, "int was")):
        with pytest.raises(UsageError, match=f"a path or owner/name is expected, and {said}"):
            beftkit.compare(given, given)  # type: ignore[arg-type]
    with pytest.raises(BeftError, match="int was given; expected a path, a module or a state dict"):
        beftkit.inspect(1)  # type: ignore[arg-type]
