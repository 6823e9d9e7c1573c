"""Describe what training changed in a live model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters import SAVED_BY_TASK, Kind, Tuned
from beftkit.errors import BeftError
from beftkit.tuning import owner_of

if TYPE_CHECKING:
    import torch


def collect_tuned(
    model: torch.nn.Module,
    before: Mapping[str, torch.Tensor],
    *,
    task_type: str | None = None,
    heads: Collection[str] = (),
    added: Collection[str] = (),
) -> list[Tuned]:
    """Describe what training changed in a model, as `beftkit.adapters.write_adapter` takes it.

    Args:
        model: the model after training; its values are read as float32.
        before: the trained parameters by runtime name, as they were before. Parameters of heads
            need not be in it: a head travels whole.
        task_type: PEFT's task type; the heads that it saves whole (``classifier``, ``score``) are
            added if the model has them, DistilBERT's ``pre_classifier`` included, as in PEFT.
        heads: further modules that travel whole, such as a freshly initialised pooler.
        added: those parameters of ``before`` that the base has not, where they are not vectors
            of `beftkit.tuning.added`, which are known by their names.

    Returns:
        One entry for each parameter, in the order of the model; an added vector's has the name
        that a bias of its module would have.

    Raises:
        BeftError: a name that the model has not.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in (*before, *heads):
        if name not in named and name not in modules:
            raise BeftError(f"{name}: no such parameter or module in {type(model).__name__}")
    whole = _saved_whole(modules, task_type, heads)
    found = []
    for name, tensor in {**named, **{name: tensor for name, (_, tensor) in whole.items()}}.items():
        if name not in whole and name not in before:
            continue
        post = _array(tensor)
        pre = _array(before[name]) if name in before else post
        if name in whole:
            found.append(Tuned(name, "head", whole[name][0], 0, pre, post))
        else:
            module = name.rpartition(".")[0]
            new = owner_of(name) is not None
            name = f"{module}.bias" if new else name
            kind, width, weight = _owner(modules[module], name.rpartition(".")[2])
            found.append(Tuned(name, kind, module, width, pre, post, weight, new or name in added))
    return found


def _saved_whole(
    modules: Mapping[str, torch.nn.Module], task_type: str | None, heads: Collection[str]
) -> dict[str, tuple[str, torch.Tensor]]:
    """Every tensor of a module that travels whole: its name -> that module, and the tensor."""
    own = SAVED_BY_TASK.get(task_type or "", ())
    saved: list[str] = []
    for name in modules:
        if own and name.endswith(own) and not _within(name, saved):
            saved.append(name)
    for name in modules:
        # The owners of tensors, not what contains them: PEFT's BEFT cannot unload a container.
        if _within(name, heads) and not _within(name, saved):
            if any(True for _ in modules[name].parameters(recurse=False)):
                saved.append(name)
    return {
        f"{module}.{name}": (module, tensor)
        for module in saved
        for name, tensor in modules[module].state_dict().items()
    }


def _within(name: str, others: Collection[str]) -> bool:
    return any(f"{name}.".startswith(f"{other}.") for other in others)


def _owner(module: Any, leaf: str) -> tuple[Kind, int, npt.NDArray[np.float32] | None]:
    """What kind of module holds a parameter, its in_features, and a norm's weight."""
    import torch

    if leaf != "bias":
        return "free", 0, None
    if isinstance(module, torch.nn.Linear):
        return "linear", module.in_features, None
    if type(module).__name__ == "Conv1D":
        return "conv1d", int(module.nx), None
    if "Norm" in type(module).__name__ and set(module.state_dict()) <= {"weight", "bias"}:
        weight = getattr(module, "weight", None)
        return "norm", 0, None if weight is None else _array(weight)
    return "free", 0, None


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().cpu().numpy().copy()
    return array
