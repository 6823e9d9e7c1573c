"""What an average says of itself in its header, and the tokenizer beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from beftkit.runs.bases import bare as base_name
from beftkit.runs.made_card import MadeCard, Source, file_digest, labels_said
from beftkit.runs.said import hub_id
from beftkit.runs.standing import Standing
from beftkit.weights.changes import Changes

_KEY = "beftkit.average"


def header_words(
    changes: Sequence[Changes],
    kept: Changes | None,
    given: Sequence[str],
    weights: Sequence[float],
    scale: float,
) -> dict[str, str]:
    """What the header says: the head's own run, or what all say alike; never a path.

    Args:
        changes: of the adapters.
        kept: whose head goes along.
        given: the adapters as they were given.
        weights: the factor of each.
        scale: of the sum.
    """
    first = changes[0].info.metadata
    if kept is not None:
        said = dict(kept.info.metadata)
    elif any(one.head for one in changes):
        said = {key: text for key, text in first.items() if key == "beftkit.base"}
    else:
        alike = {k for k, v in first.items() if all(c.info.metadata.get(k) == v for c in changes)}
        said = {key: text for key, text in first.items() if key in alike}
    named = [{"adapter": _bare(one), "weight": w} for one, w in zip(given, weights, strict=True)]
    return {**said, _KEY: json.dumps({"of": named, "scale": scale})}


def _bare(reference: str) -> str:
    """An adapter's name without the path of this machine."""
    if hub_id(reference):
        return reference
    path = Path(reference).resolve()
    return path.parent.name if path.name == "adapter" else path.name


def put_tokenizer(
    work: Path, source: Changes | None, metadata: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Copy the tokenizer that lies beside an adapter; the header names it only where it does.

    Args:
        work: the folder to be.
        source: whose; None: nobody's.
        metadata: the header.

    Returns:
        The header, and notes.
    """
    key = "beftkit.tokenizer_files"
    standing = Standing.of(source.info if source else None)
    rest = {name: text for name, text in metadata.items() if name != key}
    if source is None or not standing.tokenizer_files:
        return rest, []
    folder = Path(source.reference)
    if not all((folder / name).is_file() for name in standing.tokenizer_files):
        return rest, [f"{source.reference}: its tokenizer is not here; the base's own is used"]
    for name in standing.tokenizer_files:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, work / name)
    return dict(metadata), []


def sum_card(
    given: Sequence[str],
    changes: Sequence[Changes],
    weights: Sequence[float],
    scale: float,
    base: str,
    metadata: Mapping[str, str],
) -> MadeCard:
    """The card of an average, but for what its adapter is.

    Args:
        given: the adapters as they were given.
        changes: of each.
        weights: the factor of each.
        scale: of the sum.
        base: as the adapter names it.
        metadata: the header.
    """
    names = [_bare(one) for one in given]
    of = f"{base_name(base)}, made of {len(given)} adapter{'s' * (len(given) != 1)}"
    return MadeCard(
        title=" + ".join(names),
        opening=f"Bias changes of {of} by beftkit average: each times its weight, summed"
        f"{'' if scale == 1 else f', and times {scale:g}'}.",
        base=base,
        revision=None,
        sources=[
            Source(f"weight {weight:g}", name, file_digest(one.checkpoint))
            for weight, name, one in zip(weights, names, changes, strict=True)
        ],
        format="",
        task_type=None,
        outputs=None,
        labels=labels_said(metadata),
        command=["beftkit", "average", *names, f"--weights={','.join(map(repr, weights))}",
                 f"--scale={scale!r}", "-o", "out"],
        given=(*given, base),
    )  # fmt: skip
