"""Settings of a Fisher measurement: one typed definition behind flags and Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from beftkit.settings.train import DATA, DEVICE, MODEL, described

WHAT = "What is measured"


class FisherSettings(BaseModel):
    """Everything that decides a measurement by `beftkit.fisher_all`."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = described("", MODEL, "Model folder, or owner/name on the hub.")
    revision: str | None = described(None, MODEL, "The model's branch, tag or commit on the hub.")
    tokenizer: str | None = described(None, MODEL, "Tokenizer, where it is not the model's own.")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = described(
        "float32", MODEL, "What the weights are kept in; auto: as stored."
    )
    new_head: bool = described(
        False, MODEL, "Replace a classifier that does not fit the task by a fresh one."
    )
    head_seeds: tuple[int, ...] = described(
        (0,), MODEL, "Seeds of a fresh classifier, such as 0,1,2: the mean over them.",
        min_length=1, aliases=("--seed",),
    )  # fmt: skip

    variant: Literal["exact", "batch-mean"] = described(
        "exact", WHAT, "exact: squares of each example's gradient. batch-mean: of a batch's mean "
        "gradient after clipping, as the published code has it.",
    )  # fmt: skip
    reduce: Literal["mean", "sum"] = described(
        "mean", WHAT, "A bias vector's score: mean or sum over its coordinates."
    )
    candidates: str | None = described(
        None, WHAT, "Roles to choose the target from.  [default: q,k,v]"
    )
    tower: str | None = described(None, WHAT, "Which tower of several: text, text.decoder, ...")
    allow_inert: bool = described(False, WHAT, "Let a bias that softmax ignores be the target.")
    snapshots: tuple[str, ...] = described(
        (), WHAT, "Measure at these states of a run as well: OUT/snapshots, or files in it."
    )

    task: str | None = described(
        None, DATA, "cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, cb, wic or boolq."
    )
    data_dir: str | None = described(
        None, DATA, "Folder of GLUE or SuperGLUE in its original layout; without it the hub."
    )
    data_revision: str | None = described(None, DATA, "The data set's revision on the hub.")
    train_file: str | None = described(
        None, DATA, "Your own examples instead of a task: .csv, .tsv, .jsonl or .parquet."
    )
    text_columns: str | None = described(
        None, DATA, "One or two columns, such as premise,hypothesis."
    )
    label_column: str | None = described(None, DATA, "The column of labels or values.")
    regression: bool = described(
        False, DATA, "Labels of your own file that are whole numbers are values, not classes."
    )
    examples: int | None = described(
        None, DATA, "The first so many training examples.  [all]", gt=0
    )
    max_length: int | None = described(None, DATA, "Tokens a row is cut to.  [by task: 128]", gt=0)

    batch_size: int | None = described(
        None, DEVICE, "Examples a backward pass.  [16; batch-mean: 8]", gt=0
    )
    precision: Literal["fp32", "bf16", "fp16"] = described(
        "fp32", DEVICE, "Arithmetic: bf16 and fp16 by autocast, fp16 on GPUs only."
    )
    device: str | None = described(None, DEVICE, "cpu, cuda, cuda:1, ...  [a GPU if there is one]")
    device_map: Literal["auto"] | None = described(
        None, DEVICE, "auto: spread a model that one GPU cannot hold."
    )
    gradient_checkpointing: bool = described(
        False, DEVICE, "Compute activations twice instead of keeping them."
    )
    buffer_mib: int = described(
        64, DEVICE, "MiB of gradients that may wait to be summed in one launch.", ge=0
    )

    @field_validator("head_seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [word for word in value.replace(" ", "").split(",") if word]
        return [value] if isinstance(value, int) else value

    @field_validator("snapshots", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        listed = value if isinstance(value, (list, tuple)) else [value]
        return [str(one) if isinstance(one, Path) else one for one in listed]

    @field_validator("head_seeds")
    @classmethod
    def _from_nought(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0 or len(set(value)) < len(value):
            raise ValueError("expected different whole numbers from 0 on")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> FisherSettings:
        if (self.task is None) == (self.train_file is None):
            both = self.task is not None
            raise ValueError(
                f"{'both' if both else 'neither'} a task {'and' if both else 'nor'} a train file "
                "were given; expected one of them"
            )
        if self.regression and self.train_file is None:
            raise ValueError("regression is for files of your own; a task knows its kind")
        if self.snapshots and len(self.head_seeds) > 1:
            raise ValueError("snapshots hold the classifier of their run; give one head seed")
        return self
