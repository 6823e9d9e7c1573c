"""Adapters from where they lie, and onto a live model, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters import AdapterInfo, Step, Target, all_steps, fewer_layers
from beftkit.biases import ADDED
from beftkit.checkpoints import Checkpoint
from beftkit.errors import BeftError
from beftkit.scores.statistics import decode
from beftkit.tuning import attach
from beftkit.weights.heads import check_task
from beftkit.weights.opening import check_stored, open_adapter
from beftkit.weights.tied import shared

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter that a model now has on it.

    Attributes:
        info: what it says of itself.
        parameters: what it changed, by runtime name, sorted.
        notes: sentences that a reader of results needs.
        merged: whether products of a LoRA's matrices were added to weights.
    """

    info: AdapterInfo
    parameters: tuple[str, ...]
    notes: tuple[str, ...]
    merged: bool = False

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was given when it was written."""
        return self.info.metadata


def apply_adapter(
    model: torch.nn.Module, reference: str | Path, *, download: bool = False
) -> AppliedAdapter:
    """Put an adapter onto a live model, in place, as PEFT's merge would.

    Sums are formed in float32 (float64 in a float64 model) and rounded to each parameter's dtype.
    A bias that the base has not is no sum: it is added to the module's output as PEFT adds it
    (`beftkit.tuning.added`), and stays float32.
    Everything is checked before the first parameter is touched.

    Args:
        model: the base, a transformers model on any device.
        reference: the adapter's folder, or ``owner/name[@revision]`` on the hub: ours, or a BEFT
            or LoRA adapter of PEFT.
        download: fetch whole files from the hub into its cache.

    Raises:
        BeftError: the adapter is damaged, of another kind or task, or does not fit this model.
    """
    import torch

    checkpoint, info = open_adapter(reference, download=download)
    steps = all_steps(checkpoint.adapter or {}, checkpoint.tensors, info)
    placed = sorted((_place(model, step, info) for step in steps), key=lambda one: one.step.turn())
    for one in placed:
        _check(one, model, checkpoint, info)
    _check_tied(placed, model, info)
    check_task(model, info)  # tensors that do not fit say more, and come first
    raw = checkpoint.read(dict.fromkeys(name for one in placed for name in one.step.tensors))
    values = {name: decode(data, checkpoint.tensors[name].dtype) for name, data in raw.items()}
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise BeftError(f"{reference}: {name} holds NaN or infinity; nothing was changed")
    made = [one.parameter for one in placed if one.target is None]
    with torch.no_grad():
        for one in placed:
            pair = one.step.kind == "low_rank"
            shapes = {
                n: checkpoint.tensors[n].shape if pair else one.shape for n in one.step.tensors
            }
            one.apply([values[name].reshape(shape) for name, shape in shapes.items()])
    notes = []
    if made:
        notes.append(f"added {len(made)} biases that the base has not (e.g. {made[0]})")
    # Of what is changed a module is the owner, also where it had no bias.
    changed = [one.parameter.rpartition(".")[0] for one in placed]
    notes += fewer_layers(changed, [name for name, _ in model.named_modules()])
    merged = any(one.step.kind == "low_rank" for one in placed)
    names = tuple(sorted({one.parameter for one in placed}))
    return AppliedAdapter(info, names, tuple(notes), merged)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A step, and where the model has its parameter: the model's own name, the module with it."""

    step: Step
    parameter: str
    module: torch.nn.Module

    @property
    def target(self) -> torch.Tensor | None:
        """The parameter or buffer; None: a Linear's bias that is to be made."""
        leaf = self.parameter.rpartition(".")[2]
        found: torch.Tensor | None = getattr(self.module, leaf, None)
        if found is None:  # it may have been added before
            found = getattr(self.module, ADDED, None)
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        if self.target is None:
            return (int(self.module.out_features),)  # type: ignore[arg-type]
        return tuple(self.target.shape)

    @property
    def transposed(self) -> bool:
        """Whether a weight is ``[in, out]``: transformers' Conv1D."""
        return type(self.module).__name__ == "Conv1D"

    def apply(self, arrays: Sequence[npt.NDArray[np.float64]]) -> None:
        """Do the step; everything has been checked."""
        import torch

        target = self.target
        like: Any = self.module.weight if target is None else target
        dtype = torch.promote_types(like.dtype, torch.float32)
        given = [torch.from_numpy(array).to(like.device, dtype) for array in arrays]
        before = None if target is None else target.to(dtype)
        after = self.step.after(before, given, self.transposed)
        if target is None:
            attach(self.module).requires_grad_(like.requires_grad).copy_(after)
        else:
            target.copy_(after)


def _place(model: Any, step: Step, info: AdapterInfo) -> _Placed:
    """The parameter that a step changes."""
    import torch

    for name in step.spellings(getattr(model, "base_model_prefix", "")):
        owner, _, leaf = name.rpartition(".")
        try:
            module: torch.nn.Module = model.get_submodule(owner)
        except AttributeError:
            continue
        may_be_made = leaf == "bias" and isinstance(module, torch.nn.Linear)
        if may_be_made or isinstance(getattr(module, leaf, None), torch.Tensor):
            return _Placed(step, name, module)
    raise BeftError(
        f"{info.reference}: {step.tensor} changes {step.parameter}, which this "
        f"{type(model).__name__} has not; {info.mismatch}"
    )


def _check_tied(placed: Sequence[_Placed], model: Any, info: AdapterInfo) -> None:
    """Refuse a change of one matrix of two that are tied: in place it would change both."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    for one in placed:
        target = one.target
        if one.step.kind != "add" and target is not None and target.dim() == 2:
            if len(names.get(id(target), ())) > 1:
                raise shared(one.step, info)


def _check(one: _Placed, model: Any, checkpoint: Checkpoint, info: AdapterInfo) -> None:
    """Refuse tensors that cannot be read, or that do not fit their parameter."""
    check_stored(checkpoint, one.step.tensors)
    if one.target is not None and one.target.is_meta:
        raise BeftError(
            f"{info.reference}: {one.parameter} of the model is not in memory (offloaded?); load "
            "the whole model onto a device first"
        )
    target = Target.of(model, one.parameter, one.shape, one.transposed)
    one.step.check_shapes(
        [checkpoint.tensors[name].shape for name in one.step.tensors], target, info
    )
