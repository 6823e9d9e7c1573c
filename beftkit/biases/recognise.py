"""From tensor names, shapes and a configuration to sites: which bias is what, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from beftkit.biases.config import config_for, model_types, name_towers, uses
from beftkit.biases.inertness import Inert, key_inert
from beftkit.biases.layouts import ROLES
from beftkit.biases.names import Named, Tensor, find_names, is_bias, raw_names
from beftkit.biases.renames import runtime_path
from beftkit.biases.splits import Cut, cut
from beftkit.biases.table import BUILT_IN, Table
from beftkit.errors import BeftError

FLOATS = ("F64", "F32", "F16", "BF16")
_ATTENTION = ("q", "k", "v", "qkv", "kv")


@dataclass(frozen=True)
class Site:
    """One bias vector in one place.

    Attributes:
        role: one of `ROLES`, or a raw name for an unknown family.
        name: the tensor that holds it, as on disk.
        stack: the runtime's path of the module list that holds the layer, indices as ``*``,
            without the base model's prefix.
        indices: the indices on that path; the last is the layer, in most families.
        leaf: parameter name below the layer index.
        layer: number of the layer within its stack.
        tower: ``text``, ``vision``, ``text.encoder``, ...
        attention: ``self`` or ``cross``.
        width: length of the vector.
        dtype: dtype on disk.
        cut: the part of a fused tensor, None for the whole.
        inert: whether softmax ignores it.
        uses: how many layers share it.
        owner: the runtime's module (or free parameter) that holds it, without the base model's
            prefix; a fused projection owns several sites.
        module: the runtime's module whose bias this is, without the base model's prefix; None
            where no module has it for its own (a fused projection, a free parameter).
    """

    role: str
    name: str
    stack: str
    indices: tuple[int, ...]
    leaf: str
    layer: int
    attention: str
    width: int
    dtype: str
    tower: str = "text"
    cut: Cut | None = None
    inert: Inert = "no"
    uses: int = 1
    owner: str = ""
    module: str | None = None

    @property
    def parameter(self) -> str:
        """The runtime's parameter that holds the vector, or that it is a slice of."""
        return f"{self.owner}.bias" if self.leaf.endswith(".bias") else self.owner

    def take(self, whole: Any) -> Any:
        """The site's vector ``[D]`` of the tensor that holds it, in numpy or torch."""
        return whole if self.cut is None else self.cut.take(whole)


@dataclass(frozen=True)
class Recognition:
    """All sites of a checkpoint, and the biases that are none of them.

    Attributes:
        family: the ``model_type``, or the layout that the names speak of.
        sites: by role, tower and layer.
        unscored: biases outside the roles.
        notes: sentences that a reader of the sites needs.
        biases: how many bias vectors there are in all.
        without_bias: q, k and v projections that have a weight and no bias, indices as ``*``.
    """

    family: str
    sites: tuple[Site, ...]
    unscored: tuple[str, ...]
    notes: tuple[str, ...] = ()
    biases: int = 0
    without_bias: tuple[str, ...] = ()


def recognise(
    tensors: Iterable[Tensor], config: Mapping[str, Any] | None, where: str, table: Table = BUILT_IN
) -> Recognition:
    """Say which tensor (or part of one) is which bias.

    Args:
        tensors: everything the checkpoint holds.
        config: its ``config.json``, or None.
        where: the checkpoint, for messages.
        table: the rows to look at.

    Returns:
        The sites; empty if the checkpoint holds no bias of an attention block.

    Raises:
        BeftError: a fused bias cannot be cut without a configuration, or two tensors claim one
            site.
    """
    tensors = list(tensors)
    types = model_types(config)
    biases = [tensor for tensor in tensors if is_bias(tensor)]
    named = find_names(biases, table)
    attention = [item for item in named if item.role in _ATTENTION]
    weighted = [item for item in find_names(_as_biases(tensors), table) if item.role in _ATTENTION]
    stacks = {item.stack for item in (*attention, *weighted)}
    notes = []
    if not stacks:
        named = raw_names(biases)
        stacks = {item.stack for item in named}
        if named:
            notes.append(
                "this family is not in the table: roles are the raw names of what looks like "
                "q, k and v (a file for --families can name them)"
            )
    inside = [item for item in named if item.stack in stacks and item.role != "none"]
    outside = {tensor.name for tensor in biases} - {item.tensor.name for item in inside}
    _check_dtypes(inside, where)
    runtime = {stack: runtime_path(stack, "", types) for stack in stacks}
    prefixes = {stack: base_prefix(runtime[stack], runtime.values(), types) for stack in stacks}
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    towers = name_towers(stacks, config)
    scene = _Scene(config, types, table, where, runtime, prefixes, towers, shapes)
    sites = [site for item in inside for site in _sites(item, scene)]
    whole = sorted({item.leaf for item in inside if any(s.role == item.leaf for s in sites)})
    if whole:
        notes.append(
            f"{', '.join(whole)}: q, k and v in one, and no row says how this model type splits "
            "them, so it is scored whole (a file for --families can say)"
        )
    for shared in sorted({(site.stack, site.uses) for site in sites if site.uses > 1}):
        notes.append(f"layers share their biases: each block of {shared[0]} serves {shared[1]}")
    _check_unique(sites, where)
    family, placed = _family(config, inside), tuple(ordered(_number_layers(sites)))
    bare = sorted({_pattern(item) for item in weighted} - {_pattern(item) for item in attention})
    unscored = tuple(sorted(outside))
    return Recognition(family, placed, unscored, tuple(notes), len(biases), tuple(bare))


def _as_biases(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The biases that a checkpoint's matrices would have: they show where attention is."""
    return [
        Tensor(f"{tensor.name.removesuffix('weight')}bias", tensor.dtype, tensor.shape[:1])
        for tensor in tensors
        if tensor.name.endswith(".weight") and len(tensor.shape) == 2
    ]


def _pattern(item: Named) -> str:
    return f"{item.stack}.{item.leaf.removesuffix('.bias')}"


def _check_dtypes(inside: Sequence[Named], where: str) -> None:
    for item in inside:
        if item.tensor.dtype not in FLOATS:
            raise BeftError(
                f"{where}: {item.tensor.name} is stored as {item.tensor.dtype}; expected one of "
                f"{', '.join(FLOATS)} (is this checkpoint quantised?)"
            )


@dataclass(frozen=True)
class _Scene:
    """What every tensor of one checkpoint is seen against."""

    config: Mapping[str, Any] | None
    types: frozenset[str]
    table: Table
    where: str
    runtime: Mapping[str, str]  # stack on disk -> at runtime
    prefixes: Mapping[str, str]  # stack on disk -> the base model's prefix at runtime
    towers: Mapping[str, tuple[str, str]]
    shapes: Mapping[str, tuple[int, ...]]


def _sites(item: Named, scene: _Scene) -> list[Site]:
    tower, part = scene.towers[item.stack]
    own = config_for(scene.config, tower.split(".")[0].split(":")[0], part)
    answer = key_inert(own, scene.table.rule_of) if scene.config else "unknown"
    stack = scene.runtime[item.stack].removeprefix(scene.prefixes[item.stack])
    place = (stack, item.indices, item.leaf, item.indices[-1], item.attention)
    stored = (item.tensor.shape[0], item.tensor.dtype)
    site = Site(item.role, item.tensor.name, *place, *stored, tower, uses=uses(item.stack, own))
    keys: dict[str, Inert] = {"k": answer}
    if item.role not in ("qkv", "kv"):
        inert = keys.get(item.role, "no") if item.role in ROLES else "unknown"
        return [_owned(replace(site, inert=inert), item, scene)]
    rule = _split_rule(item, scene)
    if rule is None:
        return [_owned(replace(site, role=item.leaf, inert="unknown"), item, scene)]
    pieces = cut(rule, item.tensor.name, site.width, own, scene.where)
    parts = [
        replace(site, role=role, cut=piece, width=piece.width, inert=keys.get(role, "no"))
        for role, piece in pieces.items()
    ]
    return [_owned(one, item, scene) for one in parts]


def _split_rule(item: Named, scene: _Scene) -> str | None:
    rule = scene.table.split_rule(item.leaf, scene.types)
    if rule is not None or scene.config:
        return rule
    # GPT-2's Conv1D weight is [in, 3 in]; nobody else's fused weight is transposed.
    shape = scene.shapes.get(item.tensor.name.removesuffix("bias") + "weight", ())
    if len(shape) == 2 and shape[1] == item.tensor.shape[0] != shape[0]:
        return scene.table.split_rule(item.leaf, frozenset({"gpt2"}))
    raise BeftError(
        f"{scene.where}: {item.tensor.name} holds q, k and v in one, and without a config.json "
        "nothing says how; give --model-config=PATH"
    )


def _owned(site: Site, item: Named, scene: _Scene) -> Site:
    """Name the runtime's module that holds this bias, and say whether it is its only one."""
    leaf = site.leaf.removesuffix(".bias")
    stack = item.stack
    if "*" in leaf:  # the layer's index stands in the leaf
        stack = stack.rpartition(".")[0]
    indices = iter(site.indices)
    words = f"{stack}.{leaf}".strip(".").split(".")
    path = ".".join(str(next(indices)) if word == "*" else word for word in words)
    found = runtime_path(path, site.role, scene.types)
    owner = found.removeprefix(scene.prefixes[item.stack])
    shared = site.cut and found == runtime_path(path, "another", scene.types)
    free = site.leaf.endswith("_bias") and found == path
    return replace(site, owner=owner, module=None if shared or free else owner)


def base_prefix(stack: str, stacks: Iterable[str], types: frozenset[str]) -> str:
    """The base model's prefix of a stack: without it, names fit bare and task models alike.

    PEFT compares the ends of names; what is needed to tell two stacks apart stays.
    """
    words = {word for name in types for word in (name, name.replace("-", "_"), *name.split("-"))}
    words |= {"base_model", "model", "module", "transformer"}
    rest = stack
    while rest.count(".") > 1 and rest.partition(".")[0] in words:
        shorter = rest.partition(".")[2]
        if any(other != stack and f".{other}".endswith(f".{shorter}") for other in stacks):
            break
        rest = shorter
    return stack.removesuffix(rest)


def _number_layers(sites: list[Site]) -> list[Site]:
    """Number the layers of nested stacks (stages of blocks, layer groups) from 0 on."""
    nested = sorted({(site.stack, site.indices) for site in sites if len(site.indices) > 1})
    by_stack = (members for _, members in groupby(nested, key=itemgetter(0)))
    numbers = {place: number for members in by_stack for number, place in enumerate(members)}
    return [replace(s, layer=numbers.get((s.stack, s.indices), s.layer)) for s in sites]


def ordered(sites: Iterable[Site]) -> list[Site]:
    """Sites by role, tower and layer."""
    rank = {role: number for number, role in enumerate(ROLES)}
    return sorted(
        sites,
        key=lambda s: (rank.get(s.role, len(rank)), s.role, s.tower, s.layer, s.attention, s.leaf),
    )


def _check_unique(sites: list[Site], where: str) -> None:
    seen: dict[tuple[str, tuple[int, ...], str, str], str] = {}
    for site in sites:
        key = (site.stack, site.indices, site.leaf, site.role)
        if key in seen:
            raise BeftError(f"{where}: {seen[key]} and {site.name} claim the same place")
        seen[key] = site.name


def _family(config: Mapping[str, Any] | None, inside: list[Named]) -> str:
    if config and isinstance(config.get("model_type"), str):
        return str(config["model_type"])
    names = [item.layout for item in inside if item.role in ("q", "v", "qkv")]
    if not any(names):
        return "unknown"
    return f"{max(set(names), key=names.count)} (by its names)"
