"""A training run's settings: one definition behind the flags, ``run.yaml`` and Python."""

from __future__ import annotations

from pydantic import model_validator

from beftkit.settings.added import AddedPart
from beftkit.settings.names import check_regime
from beftkit.settings.parts import ChoicePart, CoursePart, DataPart, HeadPart, ModelPart, RunPart
from beftkit.settings.peft import PeftPart


class TrainSettings(
    RunPart, CoursePart, DataPart, PeftPart, ChoicePart, AddedPart, HeadPart, ModelPart
):
    """Everything that decides a run; what is None is filled in from the task's published settings.

    Raises:
        UsageError: by `beftkit.settings.resolve`, for a value that makes no sense or a key that is
            unknown.
    """

    @property
    def tuned(self) -> str:
        """What trains, for a title: ``bias v``, ``added bias v``, ``LoRA``."""
        if self.peft:
            return "LoRA"
        added = f"added bias {self.add_bias}" if self.add_bias else ""
        there = f"bias {self.bias}" if self.bias != "none" or not added else ""
        return ", ".join(filter(None, (there, added)))

    @model_validator(mode="after")
    def _data_of_one_kind(self) -> TrainSettings:
        own = self.train_file is not None or self.validation_file is not None
        if self.task is not None and own:
            file = "--validation-file" if self.train_file is None else "--train-file"
            raise ValueError(f"--task and {file} were both given; expected one of them")
        if self.task is None and self.train_file is None:
            raise ValueError("neither --task nor --train-file was given; expected one of them")
        if self.regression and not own:
            raise ValueError("--regression: is for files of your own; a task knows its kind")
        if own and self.regime not in (None, "all"):
            raise ValueError("--regime: is for tasks; use --train-size with files of your own")
        if self.train_size is not None and self.regime not in (None, "all"):
            raise ValueError("--regime and --train-size were both given; expected one of them")
        check_regime(self.task, self.regime)
        return self
