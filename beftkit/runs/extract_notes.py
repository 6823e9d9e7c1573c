"""What `beftkit.extract` says of what it took, and of what it left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from beftkit.biases import ROLES
from beftkit.checkpoints import BiasSet
from beftkit.weights.beside import Beside
from beftkit.weights.extracting import Taken


def said_of(
    found: Taken,
    left: BiasSet,
    right: BiasSet,
    beside: Beside,
    config: Mapping[str, Any] | None,
) -> list[str]:
    """Sentences on what came along, what was lost, and what else changed."""
    notes = []
    if config is None:
        notes.append(
            "POST has no config.json, so whether it has a classification head is not known; "
            "--model-config PATH says it"
        )
    if found.head:
        fresh = ", ".join(found.fresh)
        if set(found.fresh) >= set(found.head):
            fresh = "it"
        fresh = f"; PRE has {fresh} not, or otherwise" if fresh else ""
        notes.append(f"POST's head came along: {', '.join(found.head)}{fresh}")
    held = [[s for s in one.sites if s.name in one.checkpoint.tensors] for one in (left, right)]
    kinds = [", ".join({site.dtype: 1 for site in sites}) for sites in held]  # zeros have none
    if kinds[0] and kinds[0] != kinds[1]:
        notes.append(f"PRE is in {kinds[0]}, POST in {kinds[1]}")
    if found.rounded:
        notes.append(
            f"{found.rounded:,} of {found.scalars:,} scalars of POST are finer than the base's "
            "dtype, which rounds them when the adapter is merged"
        )
    if found.unreached and any(site.dtype == "F64" for site in held[0]):
        notes.append(
            f"{found.unreached:,} of {found.scalars:,} scalars miss POST's value by a rounding to "
            "float32, which an adapter holds; the base is in float64"
        )
    elif found.unreached:
        notes.append(
            f"{found.unreached:,} of {found.scalars:,} scalars miss POST's value by a "
            "rounding, as no float32 change reaches it; --adapter-format biases holds the values"
        )
    if not any(found.norms.values()) and not any(
        not np.array_equal(one.pre, one.post) for one in found.tuned
    ):
        notes.append("none of these biases changed: the adapter changes nothing")
    if beside.biases:
        known = [f"{n} of {name}" if name in ROLES else name for name, n in beside.biases.items()]
        some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        notes.append(f"other biases changed as well and are not in it: {some}")
    if beside.unread:
        notes.append(
            f"{beside.unread} other tensors were not looked at: whether they changed is not known; "
            "--deep compares them"
        )
    if beside.changed:
        share = "" if beside.relative is None else f", by {beside.relative:.2g} of their length"
        notes.append(
            f"{beside.changed} of {beside.compared} other tensors changed as well{share}: the "
            "adapter is not the whole fine-tuning"
        )
    elif beside.compared is not None and not (beside.biases or beside.reshaped):
        notes.append(f"none of the {beside.compared} other tensors changed")
    lists = {"of another shape in POST": beside.reshaped, "in PRE alone": beside.only_pre}
    lists["NaN or infinity in POST: is it damaged, or did it diverge?"] = beside.nonfinite
    for what, names in {**lists, "in POST alone and not in it": beside.only_post}.items():
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            notes.append(f"{names[0]}{more}: {what}")
    return notes
