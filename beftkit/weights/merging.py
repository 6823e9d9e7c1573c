"""An adapter merged into its base, from files: what every tensor of the result is.

No model is made: an adapter's steps (`beftkit.adapters.all_steps`) meet the tensors of the base's
headers, and only what changes is read. Sums are formed in float32 (float64 for a float64 base) and
rounded once to the dtype of the base, as PEFT's merge forms them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from beftkit.adapters import (
    SAVED_BY_TASK,
    AdapterInfo,
    Step,
    Target,
    all_steps,
    endings,
    fewer_layers,
    layers_of,
)
from beftkit.biases import Site
from beftkit.checkpoints import Checkpoint, TensorInfo, recognise_checkpoint
from beftkit.checkpoints.shards import Part, bytes_part
from beftkit.errors import BeftError
from beftkit.scores.statistics import PRECISION, decode, rounded
from beftkit.weights.added import Given, place_added
from beftkit.weights.heads import HeadOver
from beftkit.weights.opening import read_values
from beftkit.weights.places import Places
from beftkit.weights.plan import HeadFrame, Plan
from beftkit.weights.products import fill_product
from beftkit.weights.values import Array, Ledger, encode

#: model types whose projections are transformers' Conv1D, with weights [in, out]
_CONV1D = ("gpt2", "imagegpt", "openai-gpt", "decision_transformer")


def brings_head(base: Checkpoint, adapter: Checkpoint, info: AdapterInfo) -> bool:
    """Whether an adapter holds a head over a whole text, so that the result is another class."""
    if info.task_type in SAVED_BY_TASK or info.head_labels is not None:
        return True
    if info.task_type is not None:  # a language model's own head, say, which has to be there
        return False
    places, steps = _placed(base, adapter, info)
    new = [one.parameter for one in steps if one.kind == "replace"]
    return any(places.find(one) is None and not layers_of([one]) for one in new)


def plan_merge(
    base: Checkpoint,
    adapter: Checkpoint,
    info: AdapterInfo,
    *,
    head: HeadFrame | None = None,
    dtype: str | None = None,
) -> Plan:
    """Say what every tensor of the merged model is; changed vectors are computed here.

    Args:
        base: the model's files, with its configuration.
        adapter: its files.
        info: what it says of itself.
        head: the model with the head, where the adapter brings one or the base's is kept.
        dtype: what all floats are cast to before anything is added; None: as they are.

    Raises:
        BeftError: the adapter does not fit, or no plain model computes the same.
    """
    return _Merge(base, adapter, info, head, dtype).plan()


def main_dtype(base: Checkpoint) -> str:
    """What most of a base's floats are stored as, in the words of a header."""
    sizes: dict[str, int] = {}
    for info in base.tensors.values():
        if info.dtype in PRECISION:
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.stop - info.start
    return max(sizes, key=lambda one: sizes[one], default="F32")


def _placed(base: Checkpoint, adapter: Checkpoint, info: AdapterInfo) -> tuple[Places, list[Step]]:
    steps = sorted(all_steps(adapter.adapter or {}, adapter.tensors, info), key=Step.turn)
    names = [step.parameter for step in steps]
    return Places(base.tensors, base.config or {}, names), steps


class _Merge:
    def __init__(
        self,
        base: Checkpoint,
        adapter: Checkpoint,
        info: AdapterInfo,
        head: HeadFrame | None,
        dtype: str | None,
    ) -> None:
        self.base, self.adapter, self.info, self.dtype = base, adapter, info, dtype
        self.config = dict((head.config if head else base.config) or {})
        self.places, self.steps = _placed(base, adapter, info)
        self.parts: dict[str, Part] = {}
        self.new: list[Part] = []
        self.values: dict[str, Array] = {}  # of what changes as a whole
        self.added: dict[str, Array] = {}
        self.before: dict[str, Array] = {}
        self.slices: dict[str, Site] | None = None
        self.ledger = Ledger()
        self.merged = False
        self.over = HeadOver(head, base, info, self.places.more) if head else None
        self.prefix = self.over.prefix if self.over else ""

    def plan(self) -> Plan:
        if not self.steps:
            raise BeftError(f"{self.info.reference}: changes nothing; there is nothing to merge")
        if self.dtype and self.config.get("quantization_config"):
            raise BeftError(
                f"{self.base.reference}: is quantised, and its numbers mean nothing in another "
                "--dtype; leave it out"
            )
        given = read_values(self.adapter, self.steps)
        for step in self.steps:
            self._do(step, [given[name] for name in step.tensors])
        place = Given()
        if self.added:
            place = place_added(self.base, self.config, self.added, self.info.reference)
            self._take_in(place)
        changed = self._store()
        dropped = frozenset[str]()
        if self.over:
            new = [one.name for one in self.new]
            dropped = self.over.dropped({*self.parts, *new})
            self.over.check(new, dropped)
        there = [name.rpartition(".")[0] for name in self.base.tensors]
        found = [self.places.find(one.parameter) for one in self.steps]
        touched = [name.rpartition(".")[0] for name in (*filter(None, found), *self._added_names())]
        notes = [*place.notes, *fewer_layers(touched, there)]
        if dropped:
            notes.append(
                f"left out {len(dropped)} {'tensors' if len(dropped) > 1 else 'tensor'} of the "
                f"base's own head, which this model has not (e.g. {min(dropped)})"
            )
        if self.merged:
            notes += self._said_of_products()
        roundings = self.ledger.roundings()
        notes += [one.told() for one in roundings if one.lost]
        config = {**({} if place.whole else self.config), **place.config}
        return Plan(
            self.parts, self.new, dropped, self.prefix, self.dtype, config, changed, place,
            self.merged, roundings, tuple(notes),
        )  # fmt: skip

    def _do(self, step: Step, given: Sequence[Array]) -> None:
        name = self.places.find(step.parameter)
        if name is None:
            self._make(step, given)
            return
        info = self.base.tensors[name]
        dtype = self._float(name, info)
        if step.kind == "low_rank":
            self._product(step, given, name, info, dtype)
            return
        shape = info.shape
        is_head = self.over is not None and self.over.is_head(self.prefix + name)
        if is_head and step.kind == "replace":  # of its own number of labels
            shape = given[0].shape
        self._check(step, name, shape)
        if name not in self.before and step.kind == "add":
            self.before[name] = self._base(name, info, dtype)
        before = self.values.get(name, self.before.get(name))
        self.values[name] = self._after(step, before, given[0].reshape(shape), dtype)

    def _after(self, step: Step, before: Array | None, given: Array, dtype: str) -> Array:
        """The sum, formed in float32 as a merge forms it, or in float64."""
        like = np.float64 if dtype == "F64" else np.float32
        with np.errstate(over="ignore", invalid="ignore"):
            old = None if before is None else before.astype(like)
            found: Array = np.asarray(step.after(old, [given.astype(like)]), np.float64)
        return found

    def _base(self, name: str, info: TensorInfo, dtype: str) -> Array:
        """A tensor of the base, float64, as it is in the dtype that is wanted."""
        return rounded(decode(self.base.read([name])[name], info.dtype), dtype).reshape(info.shape)

    def _make(self, step: Step, given: Sequence[Array]) -> None:
        """A bias of a module that has none, or a tensor of a head."""
        if step.kind != "low_rank" and (site := self._slice(step.parameter)):
            self._cut(step, given[0], site)
            return
        module, _, leaf = step.parameter.rpartition(".")
        weight = self.places.find(f"{module}.weight") if leaf == "bias" else None
        if weight is not None and step.kind != "low_rank":
            info = self.base.tensors[weight]
            width = info.shape[1 if self._transposed(info.shape) else 0]
            self._check(step, f"{module}.bias", (width,))
            place = weight.removesuffix(".weight")
            self.added[place] = self._after(
                step, self.added.get(place), given[0].reshape(-1), self._float(weight, info)
            )
            return
        if step.kind != "replace" or not (self.over and self.over.is_head(step.parameter)):
            raise BeftError(
                f"{self.info.reference}: {step.tensor} changes {step.parameter}, which "
                f"{self.base.reference} has not under that name; {self.info.mismatch}"
            )
        if not self.over.known(step.parameter):  # PEFT saves more than a model of ours has
            return
        dtype = self.dtype or main_dtype(self.base)
        data = encode(given[0], dtype)
        self.new.append(bytes_part(step.parameter, dtype, given[0].shape, data))

    def _slice(self, parameter: str) -> Site | None:
        """The part of a tensor that files fuse and the running model has apart (GTE)."""
        if self.slices is None:
            found = recognise_checkpoint(self.base, self.config).sites
            self.slices = {one.parameter: one for one in found if one.cut and one.module}
        return next((s for end in endings(parameter)[:3] if (s := self.slices.get(end))), None)

    def _cut(self, step: Step, given: Array, site: Site) -> None:
        """Do a step on a part of a fused bias."""
        name, info = site.name, self.base.tensors[site.name]
        dtype = self._float(name, info)
        self._check(step, name, (site.width,))
        if name not in self.before:
            self.before[name] = self._base(name, info, dtype)
        whole = self.values.setdefault(name, self.before[name].copy())
        after = self._after(step, site.take(whole).copy(), given.reshape(-1), dtype)
        assert site.cut is not None
        part = site.cut.part(whole)
        part[...] = after.reshape(part.shape)

    def _product(
        self, step: Step, given: Sequence[Array], name: str, info: TensorInfo, dtype: str
    ) -> None:
        """W + scale B A, when it is written, block by block."""
        a, b = given
        transposed = self._transposed(info.shape)
        shapes = [self.adapter.tensors[one].shape for one in step.tensors]
        step.check_shapes(shapes, self._target(name, info.shape, transposed), self.info)
        if not (a.any() and b.any() and step.scale):
            return
        if name in self.parts or name in self.values:
            raise BeftError(f"{self.info.reference}: changes {name} twice; load it with PEFT")
        self.merged = True
        if transposed:
            a, b = b.T, a.T
        file = self.base.files[info.file]
        fill = partial(fill_product, file, info, dtype, a, b, step.scale)
        self.parts[name] = Part(name, dtype, info.shape, fill)

    def _transposed(self, shape: tuple[int, ...]) -> bool:
        if self.config.get("model_type") not in _CONV1D:
            return False
        return len(shape) == 2

    def _check(self, step: Step, name: str, shape: tuple[int, ...]) -> None:
        shapes = [self.adapter.tensors[one].shape for one in step.tensors]
        step.check_shapes(shapes, self._target(name, shape), self.info)

    def _target(self, name: str, shape: tuple[int, ...], transposed: bool = False) -> Target:
        owner = str(self.config.get("model_type", "model"))
        return Target(name, shape, owner, transposed=transposed)

    def _float(self, name: str, info: TensorInfo) -> str:
        if info.dtype not in PRECISION:
            raise BeftError(
                f"{self.base.reference}: {name} is stored as {info.dtype}, so it is quantised, and "
                "nothing can be added to it; merge into the model as it was before, or keep the "
                "adapter"
            )
        return self.dtype or info.dtype

    def _take_in(self, place: Given) -> None:
        for name, bias in place.biases.items():
            weight = self.base.tensors[f"{name.removesuffix('.bias')}.weight"]
            dtype = self.dtype or weight.dtype
            self.ledger.add(np.zeros_like(bias), bias, dtype)
            data = self._encoded(name, bias, dtype)
            self.new.append(bytes_part(self.prefix + name, dtype, bias.shape, data))
        for name, change in place.folded.items():
            info = self.base.tensors[name]
            dtype = self._float(name, info)
            if name not in self.before:
                self.before[name] = self._base(name, info, dtype)
            self.values[name] = self.values.get(name, self.before[name]) + change

    def _added_names(self) -> list[str]:
        return [f"{module}.bias" for module in self.added]

    def _store(self) -> int:
        """Turn values into parts; returns how many biases change."""
        changed = 0
        for name, values in self.values.items():
            info = self.base.tensors[name]
            dtype = self.dtype or info.dtype
            data = self._encoded(name, values, dtype)
            if values.ndim == 1:
                before = self.before.get(name)
                if before is None:
                    before = self._base(name, info, dtype) if values.shape == info.shape else None
                if before is not None:
                    changed += bool((values != before).any())
                    self.ledger.add(before, values, dtype)
            same = info.dtype == dtype and info.shape == values.shape
            if same and self.base.read([name])[name] == data:
                continue  # a LayerNorm's weight travels unchanged beside its bias
            self.parts[name] = bytes_part(name, dtype, values.shape, data)
        return changed

    def _encoded(self, name: str, values: Array, dtype: str) -> bytes:
        data = encode(values, dtype)
        if not np.isfinite(decode(data, dtype)).all():
            raise BeftError(
                f"{self.info.reference}: with its change {name} is no number of {dtype}, the base's"
                " dtype; nothing was written"
            )
        return data

    def _said_of_products(self) -> list[str]:
        coarse = sorted({one.dtype for one in self.parts.values()} & {"BF16", "F16"})
        if not coarse:
            return []
        word = {"BF16": "bfloat16", "F16": "float16"}[coarse[0]]
        return [
            f"the LoRA is merged into its base, which {word} rounds; as trained, its products are "
            "added to the outputs, so figures may differ a little"
        ]
