"""The biases that a model has not: where one would lie, were there one beside each weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beftkit.biases.names import ADDED, Tensor, plain_name
from beftkit.biases.recognise import Site, recognise
from beftkit.biases.table import BUILT_IN, Table

#: roles of projections, whose output a bias can be added to; m2 of a gated MLP is gate and up
ADDABLE = ("q", "k", "v", "m1", "m2", "m3")


def missing_sites(
    tensors: Iterable[Tensor], config: Mapping[str, Any] | None, where: str, table: Table = BUILT_IN
) -> tuple[Site, ...]:
    """The sites that biases would be, of projections that have a weight and no bias.

    They are told by the rows that tell biases, a fused projection's cuts included, with ``bias``
    in the place of ``weight``. The ``name`` of such a site is that of the parameter an added bias
    has in the runtime's module, ``...v_proj.added_bias``; its dtype is float32.

    Args:
        tensors: everything the checkpoint holds.
        config: its ``config.json``, or None.
        where: the checkpoint, for messages.
        table: the rows to look at.

    Raises:
        BeftError: as `recognise`.
    """
    tensors = list(tensors)
    held = {plain_name(tensor.name) for tensor in tensors}
    more = {}
    for tensor in tensors:
        stem, _, leaf = tensor.name.rpartition(".")
        if leaf == "weight" and len(tensor.shape) == 2 and plain_name(f"{stem}.bias") not in held:
            name = f"{stem}.{ADDED}"
            more[name] = Tensor(name, "F32", tensor.shape[:1])
    found = recognise([*tensors, *more.values()], config, where, table)
    return tuple(one for one in found.sites if one.name in more and one.role in ADDABLE)
