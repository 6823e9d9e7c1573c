"""What biases a checkpoint has, by role, without a second one to compare with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from beftkit.adapters import meant
from beftkit.biases import ROLES, Site, Table, bias_free, load_table
from beftkit.checkpoints import (
    AdaptedBiasSet,
    BiasSet,
    Checkpoint,
    base_reference,
    load_config,
    open_checkpoint,
    recognise_checkpoint,
    widened_by,
)
from beftkit.errors import BeftError
from beftkit.files import headed, path_or_name, plain_of
from beftkit.scores import Identity, Inert, combine_inert
from beftkit.shown import Shown


@dataclass(frozen=True, repr=False)
class RoleSummary(Shown):
    """All sites of one role in one tower and attention; norms are l2, None where not finite."""

    role: str
    tower: str
    attention: str
    count: int
    layers: int
    widths: tuple[int, ...]
    dtypes: tuple[str, ...]
    fused: bool
    norm_mean: float | None
    norm_min: float | None
    norm_max: float | None
    inert: Inert

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "role tower count layers widths dtypes norm_mean inert")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        keys = {"widths": "width", "dtypes": "dtype"}
        said = {keys.get(name, name): value for name, value in vars(self).items() if name != "role"}
        return {**said, "width": list(self.widths), "dtype": list(self.dtypes)}


@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """The biases of one checkpoint.

    Attributes:
        checkpoint: reference, and the digest of its biases.
        family: what the biases were recognised as.
        layers: layers per tower.
        roles: one summary per role, tower and attention, in the order of the roles.
        unscored: biases that have none of the roles (embeddings, heads).
        bias_free: whether no attention block has a bias.
        notes: sentences that a reader needs.
    """

    checkpoint: Identity
    family: str
    layers: Mapping[str, int]
    roles: tuple[RoleSummary, ...]
    unscored: tuple[str, ...]
    bias_free: bool
    notes: tuple[str, ...]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        roles = list(dict.fromkeys(role.role for role in self.roles))
        what = {"checkpoint": self.checkpoint.path, "family": self.family, "layers": self.layers}
        return what | {"roles": roles, "vectors": sum(role.count for role in self.roles)}

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``beftkit inspect --format json``."""
        roles: dict[str, list[dict[str, Any]]] = {}
        for summary in self.roles:
            roles.setdefault(summary.role, []).append(summary.to_dict())
        return headed(
            {
                "checkpoint": self.checkpoint.to_dict(),
                "family": self.family,
                "layers": dict(self.layers),
                "bias_free": self.bias_free,
                "roles": roles,
                "unscored": list(self.unscored),
                "notes": list(self.notes),
            }
        )


def inspect(
    checkpoint: str | Path | Any,
    *,
    model_config: str | Path | None = None,
    families: str | Path | None = None,
    download: bool = False,
) -> Inspection:
    """List a checkpoint's biases by role: how many, how wide, dtype, norms, inert or not.

    Args:
        checkpoint: a ``.safetensors`` file, an index of shards, a model folder, or one on the hub
            (``owner/name[@revision]``); the folder of a run that made a whole model; an adapter
            that adds biases to its base, of which all are listed then; or a module or state dict
            in memory, on any device.
        model_config: a ``config.json`` to use instead of the one beside the weights.
        families: a TOML file with rows for families that beftkit does not know.
        download: fetch whole weight files from the hub into its cache, not parts of them.

    Raises:
        BeftError: unreadable or damaged, an adapter that adds no bias, fused biases that need a
            configuration to be cut, something that is no checkpoint, or a model in memory without
            values (on the meta device).

    Example:
        >>> inspect("bert-base").layers  # doctest: +SKIP
        {'text': 12}
    """
    opened = _opened(checkpoint, download)
    base = opened if opened.adapter is None else _base(opened, download)
    config = load_config(model_config) if model_config else base.config
    table = load_table(families)
    biases = BiasSet(base, recognise_checkpoint(base, config, table))
    if opened.adapter is not None:
        biases = _with_added(biases, opened, config, table)
    recognition = biases.recognition
    groups: dict[tuple[str, str, str], list[Site]] = {}
    for site in recognition.sites:
        groups.setdefault((site.role, site.tower, site.attention), []).append(site)
    notes = [*recognition.notes, *biases.beside_notes()]
    if names := biases.nonfinite():
        notes.append(f"not finite, so without a norm: {', '.join(names)}")
    if recognition.without_bias or not groups:
        notes.append(bias_free(recognition))
    if config is None and groups:
        notes.append("without a config.json it is unknown whether k is inert (--model-config PATH)")
    identity = biases.identity()
    towers = dict.fromkeys(site.tower for site in recognition.sites)
    blocks = {(site.tower, site.stack, site.indices, site.uses) for site in recognition.sites}
    layers = {tower: sum(uses for own, *_, uses in blocks if own == tower) for tower in towers}
    roles = tuple(_summary(key, sites, biases) for key, sites in sorted_groups(groups))
    family, unscored = recognition.family, recognition.unscored
    return Inspection(identity, family, layers, roles, unscored, not groups, tuple(notes))


def _opened(given: object, download: bool) -> Checkpoint:
    if isinstance(given, (str, os.PathLike)):
        return open_checkpoint(meant(path_or_name(given, "CHECKPOINT")), download=download)
    from beftkit.checkpoints.live import LiveCheckpoint

    return LiveCheckpoint(given)


def _base(adapter: Checkpoint, download: bool) -> Checkpoint:
    """The base of an adapter, to see whether it adds biases to it.

    Raises:
        BeftError: there is none to look at.
    """
    try:
        found = open_checkpoint(base_reference(adapter), download=download)
    except BeftError as error:
        raise BeftError(f"{_no_biases(adapter)} ({error.told})") from None
    if found.adapter is not None:
        raise BeftError(_no_biases(adapter))
    return found


def _no_biases(adapter: Checkpoint) -> str:
    base = (adapter.adapter or {}).get("base_model_name_or_path")
    return (
        f"{adapter.reference}: an adapter, which has no biases of its own; inspect its base "
        f"({base}), or score the adapter"
    )


def _with_added(
    base: BiasSet, adapter: Checkpoint, config: dict[str, Any] | None, table: Table
) -> BiasSet:
    """The biases of a base and those that an adapter adds to it.

    Raises:
        BeftError: it adds none.
    """
    wide = widened_by(base, adapter, config, table)
    new = [site for site in wide.sites if site not in {*base.sites}]
    if not new:
        raise BeftError(_no_biases(adapter))
    found = AdaptedBiasSet(wide, adapter)
    roles = ", ".join(dict.fromkeys(site.role for site in new))
    said = f"{roles}: added by the adapter to {base.checkpoint.reference}, which has no such bias"
    recognition = replace(found.recognition, notes=(*found.recognition.notes, said))
    found.recognition = replace(recognition, without_bias=())
    return found


def sorted_groups(
    groups: Mapping[tuple[str, str, str], list[Site]],
) -> list[tuple[tuple[str, str, str], list[Site]]]:
    """Order by tower, then attention, then role in the order of `ROLES`."""
    place = {role: number for number, role in enumerate(ROLES)}

    def order(key: tuple[str, str, str]) -> tuple[str, bool, str, int, str]:
        role, tower, attention = key
        return tower, attention != "self", attention, place.get(role, len(place)), role

    return [(key, groups[key]) for key in sorted(groups, key=order)]


def _summary(key: tuple[str, str, str], sites: list[Site], biases: BiasSet) -> RoleSummary:
    with np.errstate(over="ignore", invalid="ignore"):
        norms = [float(np.linalg.norm(biases.vector(site))) for site in sites]
    finite = bool(np.isfinite(norms).all())
    return RoleSummary(
        *key,
        count=len(sites),
        layers=sum(site.uses for site in sites),
        widths=tuple(sorted({site.width for site in sites})),
        dtypes=tuple(sorted({site.dtype for site in sites})),
        fused=any(site.cut for site in sites),
        norm_mean=float(np.mean(norms)) if finite else None,
        norm_min=min(norms) if finite else None,
        norm_max=max(norms) if finite else None,
        inert=combine_inert(sites),
    )
