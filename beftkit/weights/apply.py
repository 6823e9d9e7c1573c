"""Put an adapter onto a live model, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters import bias_changes, lora_scale, plain
from beftkit.checkpoints import Checkpoint
from beftkit.errors import BeftError
from beftkit.scores.statistics import PRECISION, decode
from beftkit.weights.info import AdapterInfo, info_of, open_adapter

if TYPE_CHECKING:
    import torch

#: options of a LoRA that change more than W + B A and the bias
_NOT_PLAIN = (
    "use_dora", "use_qalora", "use_bdlora", "layer_replication", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "arrow_config", "corda_config", "eva_config",
)  # fmt: skip
_OTHER_LORA = "beftkit does not apply; load this adapter with PEFT"


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter that a model now has on it.

    Attributes:
        info: what it says of itself.
        parameters: what it changed, by runtime name, sorted.
        notes: sentences that a reader of results needs.
    """

    info: AdapterInfo
    parameters: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was given when it was written."""
        return self.info.metadata


def apply_adapter(
    model: torch.nn.Module, reference: str | Path, *, download: bool = False
) -> AppliedAdapter:
    """Put an adapter onto a live model, in place, as PEFT's merge would.

    Sums are formed in float32 (float64 in a float64 model) and rounded to each parameter's dtype.
    Everything is checked before the first parameter is touched.

    Args:
        model: the base, a transformers model on any device.
        reference: the adapter's folder, or ``owner/name[@revision]`` on the hub: ours, or a BEFT
            or LoRA adapter of PEFT.
        download: fetch whole files from the hub into its cache.

    Raises:
        BeftError: the adapter is damaged, of another kind, or does not fit this model.
    """
    import torch

    checkpoint = open_adapter(reference, download)
    info = info_of(checkpoint)
    steps = _plan(model, checkpoint, info)
    for step in steps:
        _check_shapes(model, step, checkpoint, info)
    raw = checkpoint.read(dict.fromkeys(name for step in steps for name in step.tensors))
    values = {name: decode(data, checkpoint.tensors[name].dtype) for name, data in raw.items()}
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise BeftError(f"{reference}: {name} holds NaN or infinity; nothing was changed")
    made = [step.parameter for step in steps if step.target is None]
    with torch.no_grad():
        for step in steps:
            shapes = [checkpoint.tensors[name].shape for name in step.tensors]
            _apply(step, [values[n].reshape(s) for n, s in zip(step.tensors, shapes, strict=True)])
    notes = []
    if made:
        notes.append(f"added {len(made)} biases that the base has not (e.g. {made[0]})")
    return AppliedAdapter(info, tuple(sorted({step.parameter for step in steps})), tuple(notes))


@dataclass(frozen=True, eq=False)
class _Step:
    """One thing to do to one parameter.

    Attributes:
        kind: ``replace``, ``add``, or ``low_rank`` (the product of two tensors is added).
        parameter: its runtime name.
        module: the module that holds it.
        tensors: of the adapter; two for ``low_rank``: A, B.
        scale: factor of what is added.
    """

    kind: str
    parameter: str
    module: torch.nn.Module
    tensors: tuple[str, ...]
    scale: float = 1.0

    @property
    def leaf(self) -> str:
        """The parameter's name in its module."""
        return self.parameter.rpartition(".")[2]

    @property
    def target(self) -> torch.Tensor | None:
        """The parameter or buffer; None: a Linear's bias that is to be made."""
        found: torch.Tensor | None = getattr(self.module, self.leaf)
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


def _plan(model: torch.nn.Module, checkpoint: Checkpoint, info: AdapterInfo) -> list[_Step]:
    """What each tensor of the adapter does, in the order in which it is to be done."""
    config = checkpoint.adapter or {}
    _refuse_variants(info, config)
    changes, rest = bias_changes(config, checkpoint.tensors)
    wanted: list[tuple[str, str, tuple[str, ...], float]] = [
        (one.kind, one.parameter, (one.tensor,), one.scale) for one in changes
    ]
    for tensor in rest:
        module, _, leaf = plain(tensor).rpartition(".")
        if ".lora_" not in tensor:
            wanted.append(("replace", plain(tensor), (tensor,), 1.0))
        elif leaf == "weight" and module.endswith((".lora_A", ".lora_B")):
            pair = [
                tensor.replace(f"{module[-7:]}.", f"{which}.") for which in (".lora_A", ".lora_B")
            ]
            module = module[:-7]
            if tensor == pair[0] or pair[0] not in checkpoint.tensors:
                scale = lora_scale(config, module)
                wanted.append(("low_rank", f"{module}.weight", (pair[0], pair[1]), scale))
        else:
            raise BeftError(f"{info.reference}: {tensor}, which {_OTHER_LORA}")
    steps = []
    for kind, parameter, tensors, scale in wanted:
        place = _place(model, parameter)
        if place is None:
            raise BeftError(
                f"{info.reference}: {tensors[0]} changes {parameter}, which this "
                f"{type(model).__name__} has not; {_mismatch(info)}"
            )
        steps.append(_Step(kind, *place, tensors, scale))
    return sorted(steps, key=lambda step: step.kind != "replace")


def _refuse_variants(info: AdapterInfo, config: Mapping[str, Any]) -> None:
    """Options that make a LoRA change more than we would apply."""
    if info.format != "lora":
        return
    found = [key for key in _NOT_PLAIN if config.get(key)]
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start not in ("gaussian", "orthogonal"):
        found.append(f"init_lora_weights={start}")  # pissa, olora and others change the base
    if found:
        raise BeftError(f"{info.reference}: a LoRA with {', '.join(found)}, which {_OTHER_LORA}")


def _mismatch(info: AdapterInfo) -> str:
    trained = f"it was trained on {info.base}" if info.base else "it does not name its own"
    return f"a base model that does not match the adapter ({trained})"


def _place(model: Any, path: str) -> tuple[str, torch.nn.Module] | None:
    """The model's own name of a parameter and its module; None if it has none.

    The bare model's prefix (``bert.``) may be missing in an adapter, or be too much.
    """
    import torch

    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for name in dict.fromkeys((path, f"{prefix}{path}".lstrip("."), path.removeprefix(prefix))):
        owner, _, leaf = name.rpartition(".")
        try:
            module: torch.nn.Module = model.get_submodule(owner)
        except AttributeError:
            continue
        if isinstance(getattr(module, leaf, None), torch.Tensor):
            return name, module
        if leaf == "bias" and isinstance(module, torch.nn.Linear):
            return name, module  # may be given a bias
    return None


def _check_shapes(model: Any, step: _Step, checkpoint: Checkpoint, info: AdapterInfo) -> None:
    """Refuse a tensor that does not fit its parameter."""
    for name in step.tensors:
        if name not in checkpoint.tensors:
            raise BeftError(f"{info.reference}: {name} is missing; is the adapter damaged?")
        if checkpoint.tensors[name].dtype not in PRECISION:
            raise BeftError(
                f"{info.reference}: {name} is stored as {checkpoint.tensors[name].dtype}; expected "
                f"one of {', '.join(PRECISION)}"
            )
    if step.target is not None and step.target.is_meta:
        raise BeftError(
            f"{info.reference}: {step.parameter} of the model is not in memory (offloaded?); load "
            "the whole model onto a device first"
        )
    shapes = [checkpoint.tensors[name].shape for name in step.tensors]
    given, expected = shapes[0], step.shape
    if step.kind == "low_rank":
        inner, outer = shapes
        if len(inner) != 2 or len(outer) != 2 or outer[1] != inner[0]:
            raise BeftError(
                f"{info.reference}: {step.tensors[0]} {list(inner)} and {step.tensors[1]} "
                f"{list(outer)} are no pair of matrices, which {_OTHER_LORA}"
            )
        given = (inner[1], outer[0]) if step.transposed else (outer[0], inner[1])
    elif step.kind == "add" and given == (1, *expected):
        given = expected
    if given == expected:
        return
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    if step.kind == "replace" and given[1:] == expected[1:] and expected[:1] == (labels,):
        raise BeftError(
            f"{info.reference}: its head has {given[0]} labels, this model's {labels} "
            f"({step.tensors[0]}); load the base with num_labels={given[0]}"
        )
    raise BeftError(
        f"{info.reference}: {step.tensors[0]} is {list(given)}, but {step.parameter} of this "
        f"{type(model).__name__} is {list(expected)}; {_mismatch(info)}"
    )


def _apply(step: _Step, arrays: Sequence[npt.NDArray[np.float64]]) -> None:
    """Do one step; everything has been checked."""
    import torch

    target = step.target
    like: Any = step.module.weight if target is None else target
    dtype = torch.promote_types(like.dtype, torch.float32)
    values = [torch.from_numpy(array).to(like.device, dtype) for array in arrays]
    if step.kind == "low_rank":
        product = values[1] @ values[0]
        change = (product.T if step.transposed else product) * step.scale
    else:
        change = values[0].reshape(step.shape)
        change = change if step.kind == "replace" else change * step.scale
    if target is None:
        made = torch.nn.Parameter(change.to(like.dtype), requires_grad=like.requires_grad)
        step.module.register_parameter("bias", made)
    elif step.kind == "replace":
        target.copy_(change)
    else:
        target.copy_(target.to(dtype) + change)
