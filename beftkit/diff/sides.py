"""What the user gave for PRE and POST, turned into biases: files, hub, adapters, live models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beftkit.adapters import BIASES_NAME, meant
from beftkit.adapters import CONFIG_NAME as ADAPTER_CONFIG
from beftkit.biases import ADDED, Table
from beftkit.biases.adding import switched_on
from beftkit.checkpoints import (
    AdaptedBiasSet,
    BiasSet,
    Checkpoint,
    base_reference,
    open_checkpoint,
    other_base,
    recognise_checkpoint,
    widened,
    widened_by,
)
from beftkit.errors import BeftError, UsageError

#: a path or a hub reference, a module, or a state dict
Reference = Any
#: what lies in the folder of a model or an adapter, never in that of a run
_NO_RUN = ("model.safetensors", "pytorch_model.bin", ADAPTER_CONFIG, BIASES_NAME)
_BOTH = "`beftkit score PRE POST`"
_RUN = re.compile(r"(?:checkpoint|epoch|step|snapshot)s?[-_]?\d+", re.IGNORECASE)


@dataclass
class Sides:
    """Opens both sides under the same options, and PRE only once for many POSTs.

    Attributes:
        pre: what was given for PRE; None: the base that each adapter names.
        given: the configuration to use for all, or None.
        table: the families.
        download: whether hub files are fetched whole.
        merged: whether an adapter's sums are rounded to its base's dtype, as by PEFT's merge.
        advice: what to do where an adapter does not lead to its base.
    """

    pre: Reference | None
    given: dict[str, Any] | None
    table: Table
    download: bool
    merged: bool = True
    advice: str = "give the base as PRE"
    _bases: dict[str, Checkpoint] = field(default_factory=dict)
    _sets: dict[tuple[int, int], BiasSet] = field(default_factory=dict)

    def pair(self, post: Reference) -> tuple[BiasSet, BiasSet]:
        """The biases of PRE and of one POST."""
        try:
            after = self._open(post)  # not kept: memory stays flat over many POSTs
        except BeftError as error:
            if self.pre is not None:
                raise
            alone = "one name alone has to be an adapter's, two are compared by"
            raise BeftError(f"{error.told}; {alone} {_BOTH}") from None
        return self.pair_with(after)

    def pair_with(self, after: Checkpoint) -> tuple[BiasSet, BiasSet]:
        """The biases of PRE and of one POST that is open already."""
        if self.pre is not None:
            before = self.kept(self.pre)
        elif after.adapter is not None:
            before = self.base_of(after)
        else:
            raise UsageError(
                f"{after.reference}: is no adapter that names its base, so PRE is needed as well: "
                f"{_BOTH}; `beftkit inspect {after.reference}` lists its biases"
            )
        # A snapshot without a configuration is read by that of its other side.
        own = before.config if before.adapter is None else self.base_of(before).config
        config = self.given or own or after.config
        left = self.biases(before, config)
        right: BiasSet
        if after.adapter is None:
            right = self._read(after, self.given or after.config or own)
        else:
            plain = left if before.adapter is None else self.biases(self.base_of(after), config)
            plain = widened_by(plain, after, config, self.table)
            self._met(after, plain.checkpoint)
            right = AdaptedBiasSet(plain, after, merged=self.merged)
        # What one of them has not, and could have, is zero there.
        if after.adapter is not None:
            right = widened(right, left.sites, config, self.table)
        elif not _could_be_added(own, after):
            return left, right
        return widened(left, right.sites, config, self.table), right

    def kept(self, reference: Reference) -> Checkpoint:
        """PRE or an adapter's base, opened once for all POSTs."""
        key = str(reference) if isinstance(reference, (str, Path)) else f"live {id(reference)}"
        if key not in self._bases:
            self._bases[key] = self._open(reference)
        return self._bases[key]

    def base_of(self, adapter: Checkpoint) -> Checkpoint:
        """The model that an adapter was trained on, as it names it."""
        name = base_reference(adapter, self.advice)
        found = self.kept(name)
        if found.adapter is not None:
            raise BeftError(f"{adapter.reference}: its base {name} is an adapter itself")
        return found

    def biases(self, checkpoint: Checkpoint, config: dict[str, Any] | None) -> BiasSet:
        """The biases of PRE or a base, read once for each configuration they are seen by."""
        key = (id(checkpoint), id(config))
        if key not in self._sets:
            if checkpoint.adapter is not None:
                base = self.biases(self.base_of(checkpoint), config)
                base = widened_by(base, checkpoint, config, self.table)
                self._met(checkpoint, base.checkpoint)
                self._sets[key] = AdaptedBiasSet(base, checkpoint, merged=self.merged)
            else:
                self._sets[key] = self._read(checkpoint, config)
        return self._sets[key]

    def _met(self, adapter: Checkpoint, base: Checkpoint) -> None:
        """Note where a base is not the one that an adapter was trained on."""
        adapter.notes += [note for note in other_base(adapter, base) if note not in adapter.notes]

    def _open(self, reference: Reference) -> Checkpoint:
        if isinstance(reference, Checkpoint):  # opened already, in another manner
            return reference
        if isinstance(reference, (str, Path)):
            return open_checkpoint(meant(reference), download=self.download)
        from beftkit.checkpoints.live import LiveCheckpoint

        return LiveCheckpoint(reference)

    def _read(self, checkpoint: Checkpoint, config: dict[str, Any] | None) -> BiasSet:
        return BiasSet(checkpoint, recognise_checkpoint(checkpoint, config, self.table))


def _could_be_added(before: dict[str, Any] | None, after: Checkpoint) -> bool:
    """Whether biases of a POST may be new: added, or given it by a switch of its configuration.

    A snapshot has no configuration, and may hold added ones. Elsewhere a bias that PRE has not is
    missing there.
    """
    added = any(name.endswith(f".{ADDED}") for name in after.tensors)
    return added or after.config is None or switched_on(before, after.config)


def expand_runs(posts: Iterable[Reference]) -> list[Reference]:
    """Replace each folder of a run by the checkpoints in it, in natural order.

    A run's folder holds no model itself, but folders such as ``checkpoint-500``, or bias snapshots
    ``*.safetensors`` of several steps.
    """
    result: list[Reference] = []
    for post in posts:
        is_model, members = _members(post)
        result += [post] if is_model or not members else members
    return result


def passed_over(post: Reference) -> list[str]:
    """Say that checkpoints of a run lie in the folder of a model, which alone is scored."""
    is_model, members = _members(post)
    if not (is_model and members):
        return []
    names = ", ".join(one.name for one in members[:3]) + (", ..." if len(members) > 3 else "")
    pattern = f"{Path(post) / re.split('[0-9]', members[0].name)[0]}*"
    return [
        f"{post}: the model in this folder was scored; the {len(members)} checkpoints beside it "
        f"({names}) were not: give them by name ({pattern})"
    ]


def _members(reference: Reference) -> tuple[bool, list[Path]]:
    """Whether a folder holds a model or an adapter itself, and the checkpoints of a run in it."""
    if not isinstance(reference, (str, Path)):
        return False, []
    folder = Path(reference)
    try:
        entries = list(folder.iterdir()) if folder.is_dir() else []
    except (OSError, ValueError):
        return False, []
    names = [entry.name for entry in entries]
    is_model = any(name in _NO_RUN or name.endswith(".index.json") for name in names)
    folders = [entry for entry in entries if entry.is_dir() and _RUN.fullmatch(entry.name)]
    files = [one for one in entries if one.suffix == ".safetensors" and _RUN.fullmatch(one.stem)]
    return is_model, sorted(folders or files, key=natural)


def natural(path: Path) -> list[tuple[int, str | int]]:
    """A sorting key under which ``checkpoint-200`` comes before ``checkpoint-1000``."""
    words: Sequence[str] = re.split(r"(\d+)", path.name)
    return [(1, int(word)) if word.isdecimal() else (0, word) for word in words if word]
