"""Which scalars train: from ``--bias v`` and a model to parameters and slices of them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from beftkit.biases import ROLES, Site, Tensor, bias_free, choose_tower, in_tower, is_bias
from beftkit.checkpoints import recognise_checkpoint
from beftkit.errors import BeftError, UsageError, option
from beftkit.models import head_names
from beftkit.spelling import OF_ROLES, meant
from beftkit.tuning.added import choose_added

#: what ``--bias`` takes beside roles
WHOLE = ("all", "none", "head", "full", "rand")
#: the bias of a pooler, which trains along with a head and belongs to it
POOLER_BIAS = re.compile(r"(.*\.)?pooler(\..*)?\.bias")


@dataclass(frozen=True)
class Part:
    """One parameter that trains, whole or in part.

    Attributes:
        parameter: its name at runtime.
        size: how many of its scalars train.
        sites: the bias vectors in it that train.
        positions: which scalars, into the flat parameter; empty: all.
        kind: ``bias``; ``head``: classifier and pooler bias; ``other``: weights (full, rand);
            ``lora``: a matrix beside one of them.
    """

    parameter: str
    size: int
    sites: tuple[Site, ...] = ()
    positions: tuple[int, ...] = ()
    kind: str = "bias"


@dataclass(frozen=True)
class Choice:
    """What ``--bias`` means for one model.

    Attributes:
        bias: as it was given.
        parts: the parameters that train.
        sites: the bias vectors whose scores are worth tracking.
        scalars: how many scalars train, the head's apart.
        head_scalars: those of the classifier and the pooler bias.
        total: all scalars of the model, without vectors that are added.
        notes: warnings.
        added: modules to whose output a vector is added; parameters of parts are among these.
    """

    bias: str
    parts: tuple[Part, ...]
    sites: tuple[Site, ...]
    scalars: int
    head_scalars: int
    total: int
    notes: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def percent(self) -> float:
        """Share of the model's scalars that train, without the head, in percent."""
        return 100 * self.scalars / self.total if self.total else 0.0

    @property
    def is_adapter(self) -> bool:
        """Whether what trains is biases, a head or a LoRA, and not weights inside the model."""
        return all(part.kind != "other" for part in self.parts)


@dataclass(frozen=True)
class _Wanted:
    """``--bias``, parsed."""

    roles: tuple[str, ...] = ()
    whole: str = ""
    count: int | None = None


def parse_bias(bias: str) -> _Wanted:
    """Read ``v``, ``q,v``, ``all``, ``none``, ``head``, ``full``, ``rand`` or ``rand:N``.

    Raises:
        UsageError: anything else.
    """
    words = [word for word in bias.replace(" ", "").split(",") if word]
    if len(words) == 1:
        word, colon, count = words[0].partition(":")
        if word in WHOLE and (not colon or (word == "rand" and count.isdecimal() and int(count))):
            return _Wanted(whole=word, count=int(count) if count else None)
    if words and all(word in ROLES for word in words):
        return _Wanted(roles=tuple(role for role in ROLES if role in words))
    if words == ["auto"]:
        raise UsageError("--bias=auto: is known only after a probe; see `beftkit select`")
    unknown = next((word for word in words if word not in ROLES), "")
    raise UsageError(
        f"{option('bias', bias)}: expected roles out of {', '.join(ROLES)} (several with commas), "
        f"or one of all, none, head, full, rand, rand:N{meant(unknown, ROLES + WHOLE, OF_ROLES)}"
    )


def parse_layers(layers: str) -> frozenset[int]:
    """Read ``0-5,8``: numbers and ranges, both ends included."""
    found: set[int] = set()
    for word in layers.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            place = option("layers", layers)
            raise UsageError(f"{place}: expected numbers and ranges such as 0-5,8")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def choose(
    model: Any,
    bias: str,
    *,
    add_bias: str | None = None,
    layers: str | None = None,
    freeze_head: bool = False,
    allow_partial: bool = False,
    seed: int = 0,
) -> Choice:
    """Settle which parameters of a model train.

    Args:
        model: a transformers model in memory.
        bias: as `parse_bias` takes it. ``none`` is classifier and pooler bias, the control that
            shows what "fine-tuning b_k" learns; ``head`` the classifier alone; ``all`` every bias
            vector; ``rand:N`` N scalars drawn uniformly from all parameters below the head, by
            default as many as there are in b_v (paper table 2).
        add_bias: roles to which a bias is added, as `beftkit.tuning.added.parse_added` takes them;
            the model is left as it is.
        layers: as `parse_layers` takes it; without it all.
        freeze_head: train neither classifier nor pooler bias along.
        allow_partial: accept a role that only some of the layers have.
        seed: of ``rand``.

    Raises:
        BeftError: no bias of a role, or not in every layer; no such layer; a bias that is there
            already is to be added, or one where there is no projection.
    """
    wanted = parse_bias(bias)
    names = {name: p.numel() for name, p in model.named_parameters()}
    head, pooler = head_names(model), [name for name in names if POOLER_BIAS.fullmatch(name)]
    sites, found = _sites(model)
    notes: list[str] = []
    chosen = None if layers is None else parse_layers(layers)
    more = choose_added(model, add_bias, layers=chosen, allow_partial=allow_partial)
    if chosen is not None:
        there = {site.layer for site in sites} | more.layers
        if not chosen <= there:
            lacking = ", ".join(map(str, sorted(chosen - there)))
            raise BeftError(
                f"{option('layers', layers)}: no layer {lacking} with a bias; this model has "
                f"{spans(there) or 'none'}"
            )
        sites = [site for site in sites if site.layer in chosen]
    parts: list[Part] = []
    tracked: Sequence[Site] = sites
    if wanted.roles:
        tracked = [site for site in sites if site.role in wanted.roles]
        _check_matches(wanted.roles, sites, allow_partial, found)
        parts = _site_parts(tracked, names)
        notes += _inert_notes(wanted.roles, tracked, bool(head))
    elif wanted.whole == "all":
        parts = _all_biases(model, names, sites, layers is None, {*head, *pooler})
        if not parts and not more.sites:
            raise BeftError(f"--bias=all: {found}")
    elif wanted.whole == "full":
        inner_names = [name for name in names if name not in {*head, *pooler}]
        parts = _whole(inner_names, names, sites, kind="other")
    elif wanted.whole == "rand":
        count = wanted.count or sum(site.width for site in sites if site.role == "v")
        inside = {name: size for name, size in names.items() if name not in head}
        parts = _drawn(count, inside, seed, along=[] if freeze_head else pooler)
    else:
        tracked = []
    parts += _site_parts(more.sites, more.widths)
    notes += [*_inert_notes(more.roles, more.sites, bool(head)), *more.notes]
    if wanted.whole == "head" and not head:
        raise BeftError("bias head: this model has no classifier; none is the model as it is")
    if not freeze_head:
        train_along = head if wanted.whole == "head" else [*head, *pooler]
        parts += [Part(name, names[name], kind="head") for name in train_along if name in names]
    outer = sum(part.size for part in parts if part.kind == "head")
    inner, total = sum(part.size for part in parts) - outer, sum(names.values())
    counts = inner, outer, total
    return Choice(bias, tuple(parts), (*tracked, *more.sites), *counts, tuple(notes), more.modules)


def _sites(model: Any) -> tuple[list[Site], str]:
    """The bias vectors of the main tower, and a sentence for a model that lacks some."""
    from beftkit.checkpoints.live import LiveCheckpoint

    checkpoint = LiveCheckpoint(model)
    found = recognise_checkpoint(checkpoint, checkpoint.config)
    tower, _ = choose_tower([site.tower for site in found.sites], None) if found.sites else ("", [])
    sites = [site for site in found.sites if in_tower(site.tower, tower)]
    roles = ", ".join(dict.fromkeys(site.role for site in sites))
    said = bias_free(found) if found.without_bias or not found.biases else f"it has {roles}"
    return sites, said


def _check_matches(
    roles: Iterable[str], sites: Sequence[Site], allow_partial: bool, said: str
) -> None:
    places = {(site.tower, site.layer) for site in sites}
    for role in roles:
        there = {(site.tower, site.layer) for site in sites if site.role == role}
        if not there and not (allow_partial and any(site.role in roles for site in sites)):
            raise BeftError(f"{option('bias', role)}: this model has no such bias; {said}")
        if there != places and not allow_partial:
            lacking = spans({layer for _, layer in places - there})
            raise BeftError(
                f"{option('bias', role)}: {len(there)} of {len(places)} layers have it, not "
                f"{lacking}; "
                "--allow-partial trains what there is"
            )


def _inert_notes(roles: Iterable[str], sites: Sequence[Site], head: bool) -> list[str]:
    shown = "the head alone" if head else "the model as it was"
    return [
        f"{role} is inert here: softmax ignores it, so what the metrics show is {shown} "
        "(compare --bias none)"
        for role in roles
        if (mine := [site.inert for site in sites if site.role == role])
        and all(inert == "yes" for inert in mine)
    ]


def spans(numbers: Iterable[int]) -> str:
    """``0-2, 5`` of {0, 1, 2, 5}."""
    groups = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in run] for _, run in groups]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _site_parts(sites: Sequence[Site], sizes: Mapping[str, int]) -> list[Part]:
    """One part a parameter; several slices of a fused bias go together."""
    parts = []
    for name, members in _by_name(sites).items():
        cuts = [site.cut for site in members if site.cut is not None]
        positions = tuple(at for cut in cuts for at in cut.positions())
        positions = () if len(positions) == sizes[name] else positions
        parts.append(Part(name, len(positions) or sizes[name], tuple(members), positions))
    return parts


def _whole(
    names: Iterable[str], sizes: Mapping[str, int], sites: Sequence[Site], kind: str
) -> list[Part]:
    members = _by_name(sites)
    return [Part(name, sizes[name], tuple(members.get(name, ())), kind=kind) for name in names]


def _all_biases(
    model: Any, sizes: Mapping[str, int], sites: Sequence[Site], outside_too: bool, head: set[str]
) -> list[Part]:
    if not outside_too:
        return _site_parts(sites, sizes)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if name not in head}
    biases = [name for name, shape in shapes.items() if is_bias(Tensor(name, "F32", shape))]
    return _whole(biases, sizes, sites, kind="bias")


def _by_name(sites: Iterable[Site]) -> dict[str, list[Site]]:
    found: dict[str, list[Site]] = {}
    for site in sites:
        found.setdefault(site.name, []).append(site)
    return found


def _drawn(count: int, sizes: Mapping[str, int], seed: int, along: Sequence[str]) -> list[Part]:
    """N scalars, none of what trains ``along`` with the head: that would train it twice."""
    total, taken, begin = sum(sizes.values()), set[int](), 0
    for name, size in sizes.items():
        taken |= {*range(begin, begin + size)} if name in along else set()
        begin += size
    if not 0 < count <= total - len(taken):
        raise BeftError(
            f"--bias=rand:{count}: expected 1 to {total - len(taken)} scalars (rand alone takes as "
            "many as b_v has, where the model has it)"
        )
    draw = random.Random(seed)
    found = {*draw.sample(range(total), count)} - taken
    if 2 * count > total:  # by chance alone the last free ones would take for ever
        free = [at for at in range(total) if at not in found and at not in taken]
        found |= {*draw.sample(free, count - len(found))}
    while len(found) < count:
        found |= {draw.randrange(total)} - taken
    drawn = iter(sorted(found))
    parts, begin, at = [], 0, next(drawn, None)
    for name, size in sizes.items():
        mine = []
        while at is not None and at < begin + size:
            mine.append(at - begin)
            at = next(drawn, None)
        if mine:
            parts.append(Part(name, len(mine), positions=tuple(mine), kind="other"))
        begin += size
    return parts
