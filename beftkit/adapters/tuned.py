"""What training changed, and which adapter format can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from beftkit.errors import BeftError, UsageError, option

Kind = Literal["linear", "conv1d", "norm", "head", "free"]
#: adapter formats, the one that fits fewest first
FORMATS = ("beft", "lora", "biases")
_HOLDS = {
    "beft": ("linear", "norm", "head"),
    "lora": ("linear", "conv1d", "norm", "head"),
    "biases": ("linear", "conv1d", "norm", "head", "free"),
}
_WHAT = {
    "linear": "a Linear's bias",
    "conv1d": "a Conv1D's bias",
    "norm": "a LayerNorm's bias",
    "head": "part of a module saved whole",
    "free": "a bias that no Linear has as its own",
}
#: modules that PEFT saves whole by itself, by task type; it compares the ends of names
SAVED_BY_TASK = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}

#: further modules of task models' heads, whole names at the top: BART, T5; XLNet, XLM; ModernBERT
HEADS_BY_TASK = {
    "SEQ_CLS": ("classification_head", "sequence_summary", "logits_proj", "head"),
    "TOKEN_CLS": ("head",),
    "QUESTION_ANS": ("classifier", "head"),
}


@dataclass(frozen=True, eq=False)
class Tuned:
    """One parameter that training changed, or that must travel with the adapter unchanged.

    Attributes:
        parameter: its name in the task model at runtime, ``bert...self.value.bias``.
        kind: what owns it: ``linear`` (torch's Linear), ``conv1d`` (transformers' Conv1D),
            ``norm`` (LayerNorm and the like), ``head`` (part of a module that PEFT saves whole: a
            head, a freshly initialised pooler), ``free`` (anything else, as DeBERTa's ``q_bias``).
        module: path of the owning module; for ``head`` of the module that is saved whole.
        shape_in: in_features of a ``linear`` or ``conv1d``, else 0.
        pre: float32 before training, the parameter's full shape; a fused bias is not cut.
        post: float32 after training, the same shape.
        weight: the weight of a ``norm``, which PEFT saves along with its bias.
        added: whether the base has no such bias, so that ``pre`` is zeros.
    """

    parameter: str
    kind: Kind
    module: str
    shape_in: int
    pre: npt.NDArray[np.float32]
    post: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32] | None = None
    added: bool = False


def default_format(tuned: Sequence[Tuned], task_type: str | None = None) -> tuple[str, str]:
    """The first of `FORMATS` that holds everything.

    Args:
        tuned: what training changed.
        task_type: PEFT's task type, as for `write_adapter`.

    Returns:
        The format, and why it is not ``beft``: a sentence to show, empty if it is.
    """
    note = ""
    for format in FORMATS:
        problem = _misfit(tuned, format, task_type)
        if problem is None:
            return format, note and f"adapter format {format}: {note}"
        note = problem
    raise BeftError(note)


def check_format(tuned: Sequence[Tuned], format: str, task_type: str | None = None) -> None:
    """Refuse a format that cannot hold everything; values are not looked at.

    Raises:
        BeftError: the format is unknown, or one that holds everything is named instead.
    """
    if format not in FORMATS:
        raise UsageError(
            f"{option('adapter_format', format)}: expected one of {', '.join(FORMATS)}"
        )
    problem = _misfit(tuned, format, task_type)
    if problem is not None:
        raise BeftError(f"{problem}; --adapter-format={default_format(tuned, task_type)[0]} can")


def _misfit(tuned: Sequence[Tuned], format: str, task_type: str | None) -> str | None:
    """Why a format cannot hold everything, or None."""
    if format == "biases":
        return None
    for one in tuned:
        if one.kind not in _HOLDS[format]:
            return (
                f"PEFT's {format.upper()} cannot hold {one.parameter}, {_WHAT[one.kind]} "
                f"(module {one.module or 'of the model itself'})"
            )
    saved = saved_modules(tuned, task_type)
    for one in tuned:
        if one.kind in ("linear", "conv1d"):
            for name in saved:
                if one.module.endswith(name) or f".{name}." in f".{one.module}.":
                    return (
                        f"PEFT saves {one.module} whole, as it does {name}, so {one.parameter} "
                        "cannot be a change of its own"
                    )
    return None


def saved_modules(tuned: Sequence[Tuned], task_type: str | None) -> tuple[str, ...]:
    """The modules that PEFT saves whole: those of heads and norms, and the task type's own."""
    named = [one.module for one in tuned if one.kind in ("head", "norm")]
    return tuple(dict.fromkeys([*named, *SAVED_BY_TASK.get(task_type or "", ())]))
