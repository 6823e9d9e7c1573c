"""What keeps updates from being captured, as far as it can be told beforehand or right after."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from beftkit.graphs import NotCaptured
from beftkit.tasks.resident import rows_each
from beftkit.training.job import Job


def hindrance(job: Job) -> str | None:
    """Why no update of this run can be captured; None: nothing is known."""
    accelerator, model = job.accelerator, job.model
    if accelerator.num_processes > 1:
        return "several processes add up their gradients"
    if accelerator.device.type not in ("cpu", "cuda"):
        return f"there are no such graphs on {accelerator.device.type}"
    if job.settings.precision == "fp16":
        return "float16's gradients have a scale that is found on the host"
    if len({*map(str, getattr(model, "hf_device_map", {}).values())}) > 1:
        return "the model lies on several devices"
    if job.train.by_length:
        return f"{type(model).__name__} reads padding, so a rounded width would change its losses"
    if rows_each(job.train) is None:
        return "examples have different numbers of answers"
    return _of_model(model)


def _of_model(model: Any) -> str | None:
    from torch.nn.modules.batchnorm import _BatchNorm

    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            return f"{name} is a norm over the rows of a batch"
    for name, value in vars(model.config.get_text_config()).items():
        if "layerdrop" in name and isinstance(value, float) and value > 0:
            return f"{name} {value} leaves out layers by lots that are drawn on the host"
    return None


@dataclass
class Chance:
    """Whether the host's generators were drawn from: a graph would hold what came."""

    moved: bool = False

    def check(self) -> None:
        """Refuse what was recorded with such draws.

        Raises:
            NotCaptured: they were.
        """
        if self.moved:
            raise NotCaptured("its forward pass draws lots on the host")


@contextmanager
def read_chance(job: Job) -> Iterator[Chance]:
    """See whether what is recorded draws from Python's or numpy's generator, or on a GPU from the
    CPU's.

    Some models draw for layers to leave out even where none ever is: that is no hindrance
    (`hindrance` looks at the share), and none of their draws has a say.
    """
    import numpy as np
    import torch

    def lots() -> tuple[Any, ...]:
        return random.getstate(), repr(np.random.get_state(legacy=False))

    chance, drawn = Chance(), lots()
    host = job.accelerator.device.type != "cpu"
    before = torch.get_rng_state() if host else None
    drops = any("layerdrop" in name for name in vars(job.model.config.get_text_config()))
    yield chance
    chance.moved = lots() != drawn
    if before is not None and not drops:
        chance.moved = chance.moved or not bool(torch.equal(before, torch.get_rng_state()))
