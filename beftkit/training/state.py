"""A run's state on disk: all that a killed run needs to go on to the very same result.

One safetensors file a state, as large as what trains: values, both moments of the optimiser, random
generators, and as JSON in the header where the run was. It is renamed into place whole, carries
its own checksum, and the one before it is kept.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.errors import BeftError
from beftkit.files import write_whole

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

FOLDER = "state"
KEPT = 2
_NAMES = "step-*.safetensors"


def save_state(run: Path, step: int, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
    """Write one state and drop all but the newest two.

    Args:
        run: the run's folder.
        step: updates so far.
        tensors: by name, on any device.
        facts: plain JSON.

    Raises:
        BeftError: the disk is full or not writable; the states before it are untouched.
    """
    from safetensors.torch import save

    folder = run / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = json.dumps(facts, allow_nan=False)
    path = folder / f"step-{step:08d}.safetensors"
    write_whole(path, save(held, metadata={"facts": said, "crc32": _checksum(held, said)}))
    # Later ones were damaged, or this run would have gone on from them.
    others = sorted(folder.glob(_NAMES), reverse=True)
    former = [other for other in others if other < path]
    for old in {*others} - {path, *former[: KEPT - 1]}:
        old.unlink(missing_ok=True)
    return path


def load_state(
    run: Path, say: Callable[[str], None]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The newest state that is whole, or None; damaged ones are skipped, and that is said."""
    from safetensors import SafetensorError, safe_open

    paths = sorted((run / FOLDER).glob(_NAMES), reverse=True)
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if metadata["crc32"] != _checksum(tensors, metadata["facts"]):
                raise ValueError("its checksum differs")
            return tensors, json.loads(metadata["facts"])
        except (OSError, ValueError, KeyError, RecursionError, SafetensorError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            last = path == paths[-1]
            then = "no other is left: begun anew" if last else "the state before it is taken"
            say(f"{path}: damaged ({reason}); {then}")
    return None


def newest_facts(run: Path) -> dict[str, Any] | None:
    """What the newest state that can be read says, its tensors left alone; None: there is none."""
    from safetensors import SafetensorError, safe_open

    for path in sorted((run / FOLDER).glob(_NAMES), reverse=True):
        try:
            with safe_open(path, framework="pt") as file:
                found: dict[str, Any] = json.loads((file.metadata() or {})["facts"])
            return found
        except (OSError, ValueError, KeyError, RecursionError, SafetensorError):
            continue
    return None


def _checksum(tensors: Mapping[str, torch.Tensor], facts: str) -> str:
    """Of all that is read back: names, dtypes, shapes, bytes and facts."""
    import torch

    total = zlib.crc32(facts.encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return str(total)


def random_states(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """The generators of every process (dropout draws from them), as tensors by process."""
    import torch
    from accelerate.utils import gather_object

    mine = {"cpu": torch.get_rng_state().tolist(), "python": repr(random.getstate())}
    for kind, device in _cuda_devices(accelerator).items():
        mine[kind] = torch.cuda.get_rng_state(device).tolist()
    shares = [mine] if accelerator.num_processes == 1 else gather_object([mine])
    found = {}
    for process, share in enumerate(shares):
        for kind, value in share.items():
            raw = list(value.encode()) if isinstance(value, str) else value
            found[f"random.{process}.{kind}"] = torch.tensor(raw, dtype=torch.uint8)
    return found


def restore_random(accelerator: Accelerator, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put this process's generators where `random_states` found them."""
    import ast

    import torch

    prefix = f"random.{accelerator.process_index}."
    torch.set_rng_state(tensors[f"{prefix}cpu"])
    random.setstate(ast.literal_eval(bytes(tensors[f"{prefix}python"].tolist()).decode()))
    for kind, device in _cuda_devices(accelerator).items():
        if f"{prefix}{kind}" in tensors:
            torch.cuda.set_rng_state(tensors[f"{prefix}{kind}"], device)


def _cuda_devices(accelerator: Accelerator) -> dict[str, Any]:
    """GPUs that dropout may draw on: the process's own; the rest too if they may share a model."""
    import torch

    own = accelerator.device
    if own.type != "cuda":
        return {}
    shared = range(torch.cuda.device_count()) if accelerator.num_processes == 1 else ()
    others = [index for index in shared if index != (own.index or 0)]
    return {"cuda": own} | {f"cuda.{index}": torch.device("cuda", index) for index in others}


def optimizer_state(
    optimizer: Any, scheduler: Any, values: list[torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Moments of an accelerated AdamW by place of the value, and the course of its schedule."""
    adam = optimizer.optimizer
    tensors = {
        f"adam.{index}.{key}": moment
        for index, value in enumerate(values)
        for key, moment in adam.state[value].items()
    }
    course = {"schedule": scheduler.state_dict(), "lrs": [g["lr"] for g in adam.param_groups]}
    if optimizer.scaler is not None:
        course["scaler"] = optimizer.scaler.state_dict()
    return tensors, course


def restore_optimizer(
    optimizer: Any,
    scheduler: Any,
    values: list[torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    course: Mapping[str, Any],
) -> None:
    """Put back what `optimizer_state` took."""
    adam = optimizer.optimizer
    for index, value in enumerate(values):
        # A fused AdamW counts steps where the values are.
        moments = under(f"adam.{index}.", tensors)
        adam.state[value] = {key: moment.to(value.device) for key, moment in moments.items()}
    for group, lr in zip(adam.param_groups, course["lrs"], strict=True):
        group["lr"] = lr
    scheduler.load_state_dict(course["schedule"])
    if optimizer.scaler is not None:
        optimizer.scaler.load_state_dict(course["scaler"])


def under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, without that."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
