"""`beftkit.average`: several adapters of one base into one, as the paper's Table 3 has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from beftkit.adapters import Tuned, check_format, default_format, meant, write_adapter
from beftkit.biases import BUILT_IN
from beftkit.checkpoints import BiasSet, base_digest, open_checkpoint
from beftkit.checkpoints.digest import vectors_digest
from beftkit.diff.sides import Sides
from beftkit.errors import BeftError, UsageError, option
from beftkit.files import headed, plain_of
from beftkit.runs.made_card import outputs_of
from beftkit.runs.standing import Standing
from beftkit.runs.summed import header_words, put_tokenizer, sum_card
from beftkit.runs.whole import MADE_ADAPTER, made_whole, make_place
from beftkit.shown import Shown
from beftkit.weights.adding import aligned, measure, tuned_sum
from beftkit.weights.changes import Changes, read_changes
from beftkit.weights.comparing import base_if_there, base_of
from beftkit.weights.sums import combined


@dataclass(frozen=True, repr=False)
class Summand(Shown):
    """One adapter of an average.

    Attributes:
        reference: as given.
        weight: its factor, without ``scale``.
        norm: Euclidean length of all its changes, the head's apart.
        norms: of those of each role.
    """

    reference: str
    weight: float
    norm: float
    norms: Mapping[str, float]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "reference weight norm norms")


@dataclass(frozen=True, repr=False)
class AverageResult(Shown):
    """What `average` wrote.

    Attributes:
        output: the folder.
        adapters: what went in.
        scale: factor of the sum.
        norm: Euclidean length of the result.
        norms: of each role.
        head: the adapter whose head is in it; None: it has none.
        base: the model that it belongs to.
        adapter_format: ``beft``, ``lora`` or ``biases``.
        vectors: how many biases it changes, the head's apart.
        scalars: how many scalars those are.
        notes: what a reader should know.
    """

    output: str
    adapters: tuple[Summand, ...]
    scale: float
    norm: float
    norms: Mapping[str, float]
    head: str | None
    base: str | None
    adapter_format: str
    vectors: int
    scalars: int
    notes: tuple[str, ...]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "output adapter_format scale norm head vectors scalars")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        adapters = [{**vars(one), "norms": dict(one.norms)} for one in self.adapters]
        rest = {"norms": dict(self.norms), "notes": list(self.notes)}
        return headed({**vars(self), "adapters": adapters, **rest})


def average(
    *adapters: str | Path,
    output: str | Path,
    weights: Sequence[float] | None = None,
    scale: float = 1.0,
    head: str | Path | None = None,
    base: str | Path | None = None,
    overwrite: bool = False,
) -> AverageResult:
    """Write the mean, or a weighted sum, of what several adapters change, as one adapter.

    Sums are formed in float64 from the changes as the files hold them, and rounded once. All must
    change the same biases of one base. Heads are each task's own and are never added up; a
    pretrained pooler's bias goes with its head.

    Args:
        adapters: folders, those of runs, or ``owner/name[@revision]`` on the hub; of any format.
            One alone can be scaled.
        output: the folder to make, whole or not at all.
        weights: a factor for each; without them the mean.
        scale: a factor of the whole sum.
        head: which of the adapters' heads goes into it. Without it a head that all have alike, or
            none.
        base: the model that they belong to, where it is not the one that they name.
        overwrite: replace what `average` or `extract` made there before.

    Raises:
        UsageError: no adapter, weights that do not fit, a head of none of them.
        BeftError: another base, role or width, a LoRA that changes weights; each by name.
        Refusal: something else lies in ``output``.
    """
    given = [str(one) for one in adapters]
    factors = _weights(given, weights, scale)
    inputs = dict.fromkeys(map(Path, given), "adapter")
    cleared = make_place(Path(output), MADE_ADAPTER, inputs, overwrite=overwrite)
    notes = [*cleared]
    sides = Sides(None if base is None else str(base), None, BUILT_IN, False)
    opened = [open_checkpoint(meant(one)) for one in given]
    bases = [base_of(one, sides)[0] for one in opened]
    changes = [read_changes(one, there) for one, there in zip(opened, bases, strict=True)]
    source = _head_source(given, changes, head)
    _check_base(changes, base)
    there = base_if_there(bases[0], notes, given=base is not None)
    notes += _check_values(changes[0], there, base)
    names = aligned(changes, there)
    total = {
        name: combined([c.biases[own[name]].change for c, own in zip(changes, names, strict=True)],
                       [factor * scale for factor in factors])
        for name in changes[0].biases
    }  # fmt: skip
    kept = None if source is None else changes[source]
    tuned = tuned_sum(changes[0], total, kept, bases[0], there)
    info, several = changes[0].info, len(changes) > 1
    task_type = _task_type(changes, kept)
    format = _format(tuned, info.format, task_type, notes)
    if kept is None and any(one.head or one.pooler for one in changes):
        notes.append(
            "their heads differ, so none is in it and nothing can be answered with it; "
            "--head ADAPTER takes that of one"
        )
    metadata = header_words(changes, kept, given, factors, scale)
    model = info.base if base is None else _named(str(base))
    if model is None:
        raise BeftError(f"{given[0]}: does not name its base; give it by --base=BASE")
    lengths_of = measure(total, there)
    length, lengths = lengths_of(total)
    if total and not length:
        notes.append("the sum is zero: with it the base is as it was")
    card = sum_card(given, changes, factors, scale, model, metadata)
    revision = info.revision if base is None else None
    card = replace(
        card, format=format, task_type=task_type, outputs=outputs_of(tuned), revision=revision
    )
    with made_whole(Path(output), MADE_ADAPTER, overwrite=overwrite) as (work, _):
        metadata, told = put_tokenizer(work, kept or (None if several else changes[0]), metadata)
        notes += told
        notes += write_adapter(
            work,
            tuned,
            format=format,
            base=model,
            task_type=task_type,
            metadata=metadata,
            revision=revision,
        )
        card.write(work, notes[len(cleared) :])
    summands = [
        Summand(one, factor, *lengths_of({n: c.biases[own[n]].change for n in total}))
        for one, factor, c, own in zip(given, factors, changes, names, strict=True)
    ]
    return AverageResult(
        output=str(output),
        adapters=tuple(summands),
        scale=scale,
        norm=length,
        norms=lengths,
        head=None if source is None else given[source],
        base=model,
        adapter_format=format,
        vectors=len(total),
        scalars=sum(one.size for one in total.values()),
        notes=tuple(dict.fromkeys(notes)),
    )


def _weights(given: Sequence[str], weights: Sequence[float] | None, scale: float) -> list[float]:
    if not given:
        raise UsageError("no adapter was given; expected two or more, or one and --scale")
    if not np.isfinite(scale):
        raise UsageError(f"{option('scale', scale)}: expected a finite number")
    if weights is None:
        return [1 / len(given)] * len(given)
    found = [float(one) for one in weights]
    if len(found) != len(given) or not np.isfinite(found).all():
        raise UsageError(
            f"{option('weights', list(weights))}: expected {len(given)} finite numbers, one for "
            "each adapter"
        )
    return found


def _head_source(
    given: Sequence[str], changes: Sequence[Changes], head: str | Path | None
) -> int | None:
    """Which adapter's head goes into the result."""
    if head is None:
        same = all(one.same_head(changes[0]) for one in changes)
        return 0 if same and (changes[0].head or changes[0].pooler) else None
    wanted = str(head)
    for number, one in enumerate(given):
        if wanted == one or (Path(wanted).exists() and Path(one).exists()
                             and meant(wanted) == meant(one)):  # fmt: skip
            if not changes[number].head:
                raise BeftError(f"{option('head', wanted)}: that adapter brings no head")
            return number
    raise UsageError(f"{option('head', wanted)}: expected one of {', '.join(given)}")


def _check_base(changes: Sequence[Changes], base: str | Path | None) -> None:
    """Refuse adapters of different bases: by the digests in their headers, else by their names."""
    first = changes[0]
    digest, name = Standing.of(first.info).base_digest, _base_name(first)
    for one in changes[1:]:
        own = Standing.of(one.info).base_digest
        if digest and own:
            if digest == own:
                continue
            what = f"whose biases or shapes are others (SHA-256 {own[:8]}, not {digest[:8]})"
        elif base is not None or name == _base_name(one):
            continue
        else:
            mine, theirs = (
                known or (base_digest(c.info.base, c.info.revision) if c.info.base else None)
                for known, c in ((digest, first), (own, one))
            )
            if mine and mine == theirs:
                continue
            what = "another model, as far as is known; --base=BASE says that both belong to BASE"
        raise BeftError(
            f"{one.reference}: was trained on {_base_name(one)}, {first.reference} on {name}: "
            f"{what}"
        )


def _base_name(changes: Changes) -> str:
    info = changes.info
    at = f"@{info.revision}" if info.revision else ""
    return f"{info.base or 'a base that it does not name'}{at}"


def _check_values(changes: Changes, base: BiasSet | None, given: str | Path | None) -> list[str]:
    """Whether the base is still the one that was trained on, as far as its vectors tell.

    Raises:
        BeftError: it is not, and nobody but the adapter named it.
    """
    wanted = Standing.of(changes.info).base_digest
    if base is None or wanted is None or vectors_digest(base.checkpoint) == wanted:
        return []
    where = base.checkpoint.reference
    if given is None:
        raise BeftError(
            f"{where}: has changed since {changes.reference} was trained on it: its biases or "
            "shapes are others; put it back, or give the base by --base=BASE"
        )
    return [f"{where}: its biases, shapes or dtype are not those of the base that was trained on"]


def _format(tuned: Sequence[Tuned], format: str, task_type: str | None, notes: list[str]) -> str:
    """The first adapter's format, or one that holds the result."""
    try:
        check_format(tuned, format, task_type)
    except BeftError:
        format, why = default_format(tuned, task_type)
        notes.append(why)
    return format


def _task_type(changes: Sequence[Changes], kept: Changes | None) -> str | None:
    """PEFT's; it wants the head of a task that has one."""
    if kept is not None:
        return kept.info.task_type
    said = {one.info.task_type for one in changes}
    if len(said) > 1 or any(one.head for one in changes):
        return None
    return said.pop()


def _named(base: str) -> str:
    return str(Path(base).resolve()) if Path(base).exists() else base
