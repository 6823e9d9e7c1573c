"""Every family's biases are found, named with the module that owns them, and cut as it cuts them.

The judge is the tiny model itself: its parameters, its files, its forward.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import beftkit
from beftkit.biases import Site
from beftkit.checkpoints import BiasSet, open_checkpoint, recognise_checkpoint
from beftkit.checkpoints.live import LiveCheckpoint
from beftkit.diff import choose_tower
from tests.attention_probe import owned_elements, projections
from tests.tiny_blocks import Owner
from tests.tiny_models import BY_ID, CASES, Case, batch, build

FORMS = ("state_dict", "save_pretrained")
#: biases inside the layers that have none of the roles
OTHERS = re.compile(r"\.(pos_q_proj|pos_key_proj|pos_query_proj|[qk]_layernorm|router|experts)\W")
FUSED = [case for case in CASES if case.fused]


@dataclass(frozen=True)
class Saved:
    """A tiny model and its folders: named as at runtime, and as transformers names it on disk."""

    case: Case
    model: Any
    folders: dict[str, Path]

    def sites(self, form: str) -> tuple[Site, ...]:
        """What recognition finds in one of the folders."""
        checkpoint = open_checkpoint(self.folders[form])
        return recognise_checkpoint(checkpoint, checkpoint.config).sites


@pytest.fixture(scope="module")
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    from safetensors.torch import save_file

    case = BY_ID[request.param]
    model = build(case)
    folders = {form: tmp_path_factory.mktemp(form) for form in FORMS}
    tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}
    save_file(tensors, folders["state_dict"] / "model.safetensors")
    model.config.save_pretrained(folders["state_dict"])
    model.save_pretrained(folders["save_pretrained"])
    return Saved(case, model, folders)


every_case = pytest.mark.parametrize("saved", [case.id for case in CASES], indirect=True)
every_fused_case = pytest.mark.parametrize("saved", [case.id for case in FUSED], indirect=True)
every_form = pytest.mark.parametrize("form", FORMS)


@every_case
def test_case_owns_every_bias_of_its_layers(saved: Saved) -> None:
    owned = {owner.name for owner in saved.case.owners}
    stacks = tuple(f"{block.stack}." for block in saved.case.blocks)
    names = [name for name, _ in saved.model.named_parameters() if name.endswith("bias")]
    inside = {name for name in names if name.startswith(stacks) and not OTHERS.search(name)}
    assert inside == owned


@every_case
@every_form
def test_sites_are_those_of_the_architecture(saved: Saved, form: str) -> None:
    sites, owners = saved.sites(form), saved.case.owners
    assert Counter(site.role for site in sites) == Counter(owner.role for owner in owners)
    assert Counter((s.role, s.attention, s.layer, s.uses) for s in sites) == Counter(
        (o.role, o.attention, o.layer, o.uses) for o in owners
    )
    stacks = {block.stack for block in saved.case.blocks}
    assert len({site.tower for site in sites}) == len(stacks)
    main, _notes = choose_tower([site.tower for site in sites], None)
    assert main == saved.case.modality


@every_case
@every_form
def test_moving_one_bias_moves_its_site_alone(saved: Saved, form: str, tmp_path: Path) -> None:
    post = tmp_path / "post"
    shutil.copytree(saved.folders[form], post)
    file = SavedFile(post / "model.safetensors")
    for owner in saved.case.owners:
        bias = saved.model.get_parameter(owner.name).detach().numpy()
        name = owner.name if form == "state_dict" else file.name_of(bias)
        moved = bias.copy()
        moved[elements(saved, owner)] += 1
        file.overwrite(name, moved)
        scores = beftkit.score(saved.folders[form], post, tower="all")
        changed = [
            (site.role, site.layer, site.attention, site.name)
            for role in scores.roles.values()
            for site in role.sites
            if site.figures["projection"] != 0
        ]
        assert changed == [(owner.role, owner.layer, owner.attention, name)], owner
        file.overwrite(name, bias)


@every_case
def test_names_at_runtime_match_names_on_disk(saved: Saved) -> None:
    runtime, disk = (saved.folders[form] for form in FORMS)
    for pre, post in ((runtime, disk), (disk, runtime)):
        scores = beftkit.score(pre, post, tower="all")
        assert not scores.coverage.only_pre and not scores.coverage.only_post
        assert scores.coverage.matched == len(saved.case.owners)
        assert not scores.changed


@every_case
def test_target_modules_are_runtime_modules(saved: Saved) -> None:
    """Each fits one module by the end of its name, as PEFT compares them: the bias's owner.

    A part of a module (a slice, a free parameter) is no target: training it takes the whole.
    """
    loaded = type(saved.model).from_pretrained(saved.folders["save_pretrained"])
    modules = dict(loaded.named_modules())
    tensors = {form: SavedFile(saved.folders[form] / "model.safetensors") for form in FORMS}
    for form in FORMS:
        for site in saved.sites(form):
            is_part = site.cut is not None or site.name.endswith("_bias")
            assert (site.module is None) == is_part, f"{site.name}: module {site.module}"
            if site.module is None:
                continue
            found = [name for name in modules if f".{name}".endswith(f".{site.module}")]
            assert len(found) == 1, f"{site.module} fits {found} ({form}: {site.name})"
            bias = modules[found[0]].bias.detach().numpy()
            np.testing.assert_array_equal(bias, tensors[form].read(site.name), err_msg=site.name)


@every_fused_case
def test_a_slice_moves_the_projection_of_its_role_alone(saved: Saved) -> None:
    """Change the slice; of q, k and v in the module's own forward only that one moves, all of it.

    Rotary positions come between, so a move must only differ from zero at every coordinate.
    """
    import torch

    inputs = batch(saved.case, saved.model)
    fused = {owner.name for owner in saved.case.owners if owner.fused}
    sites = [site for site in saved.sites("state_dict") if site.name in fused]
    assert Counter(site.role for site in sites) == Counter(
        owner.role for owner in saved.case.owners if owner.fused
    )
    for site in sites:
        bias, path = saved.model.get_parameter(site.name), site.name.rsplit(".", 2)[0]
        with torch.no_grad():
            before = projections(saved.model, path, inputs)
            original = bias.clone()
            bias[cut_elements(site, len(bias))] += 0.7
            after = projections(saved.model, path, inputs)
            bias.copy_(original)
        for old, new in zip(before, after, strict=True):
            moves = {role: (b - a).abs() for role, a, b in zip("qkv", old, new, strict=True)}
            assert moves.pop(site.role).min() > 1e-4, site
            assert all((move == 0).all() for move in moves.values()), site


@every_fused_case
def test_slices_are_those_that_gradients_reach(saved: Saved) -> None:
    inputs = batch(saved.case, saved.model)
    for site in saved.sites("state_dict"):
        if site.cut is not None:
            mask = owned_elements(saved.model, site.name, inputs)[site.role].numpy()
            ours = cut_elements(site, len(mask))
            np.testing.assert_array_equal(np.sort(ours), np.flatnonzero(mask), err_msg=str(site))


def cut_elements(site: Site, width: int) -> np.ndarray:
    """Numbers of the elements that a site's slice takes out of its tensor."""
    assert site.cut is not None
    numbers = np.arange(width).reshape(site.cut.view)
    return np.take(numbers, range(site.cut.start, site.cut.stop), axis=site.cut.axis).reshape(-1)


def elements(saved: Saved, owner: Owner) -> Any:
    """Where a role lies in its tensor: everywhere, or where the module's forward takes it from."""
    if not owner.fused:
        return slice(None)
    key = (saved.case.id, owner.name)
    if key not in _masks:
        _masks[key] = owned_elements(saved.model, owner.name, batch(saved.case, saved.model))
    return _masks[key][owner.role].numpy()


_masks: dict[tuple[str, str], dict[str, Any]] = {}


class SavedFile:
    """A safetensors file of float32 tensors, patched in place: rewriting takes longer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        header.pop("__metadata__", None)
        self.spans = {
            name: [8 + length + offset for offset in entry["data_offsets"]]
            for name, entry in header.items()
        }
        self.names = {raw[slice(*span)]: name for name, span in self.spans.items()}

    def name_of(self, values: np.ndarray) -> str:
        """The tensor that holds exactly these values: all are random, so there is only one."""
        return self.names[values.astype("<f4").tobytes()]

    def read(self, name: str) -> np.ndarray:
        """The values of a tensor, flat."""
        return np.frombuffer(self.path.read_bytes()[slice(*self.spans[name])], "<f4")

    def overwrite(self, name: str, values: np.ndarray) -> None:
        """Put other values into a tensor."""
        with self.path.open("r+b") as file:
            file.seek(self.spans[name][0])
            file.write(values.astype("<f4").tobytes())


@pytest.mark.parametrize("config", [None, {"model_type": "one of my own"}])
def test_torch_s_own_attention_is_thirds_in_any_model(config: dict[str, Any] | None) -> None:
    """Its in_proj_bias is [q|k|v] by torch's code; it was left out, or wanted a configuration."""
    layer = torch.nn.TransformerEncoderLayer(12, 3, 20)
    cross = torch.nn.TransformerDecoderLayer(12, 3, 20)
    odd = torch.nn.ModuleDict({"mix": torch.nn.MultiheadAttention(12, 3)})
    model = torch.nn.ModuleDict(
        {
            "encoder": torch.nn.ModuleDict({"layers": torch.nn.ModuleList([layer])}),
            "decoder": torch.nn.ModuleDict({"layers": torch.nn.ModuleList([cross])}),
            "fusion": torch.nn.ModuleDict({"steps": torch.nn.ModuleList([odd])}),
        }
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("in_proj_bias"):
                parameter.copy_(torch.arange(36.0))
    live = LiveCheckpoint(model)
    biases = BiasSet(live, recognise_checkpoint(live, config))
    found = {(s.tower, s.attention, s.role): biases.vector(s)[0] for s in biases.sites}
    fused = {key: first for key, first in found.items() if key[2] in ("q", "k", "v")}
    assert sorted(fused.values()) == [0.0] * 4 + [12.0] * 4 + [24.0] * 4
    assert all(first == 12.0 * "qkv".index(role) for (_, _, role), first in fused.items())
    assert ("text.decoder", "cross", "v") in fused and ("text.decoder", "self", "q") in fused
    roles = {(s.attention, s.role) for s in biases.sites if s.tower == "text.encoder"}
    assert roles == {("self", r) for r in ("q", "k", "v", "m1", "m2", "m3", "ln1", "ln2")}
