"""The parts that settings are made of: each field once, with its flag's help and its topic.

A command's settings inherit the parts they need. Their fields keep the order of the parts, the last
base first: that is how pydantic collects them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from beftkit.registry import MAX_LENGTH, TASKS

MODEL, WHAT, DATA = "Model", "What trains", "Data"
OPTIMISATION, DEVICE = "Optimisation", "Precision and device"
EVALUATION, OUTPUT = "Evaluation and logging", "Output"

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Precision = Literal["fp32", "bf16", "fp16"]
Regimes = Literal["low", "medium", "high", "all"]
_NAMES = list(TASKS)
_TASKS = f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]}."


def described(default: Any, panel: str, description: str, **rules: Any) -> Any:
    """A field that is a flag as well: its help, its topic, other spellings as ``aliases``."""
    extra = {"panel": panel, "aliases": rules.pop("aliases", ())}
    return Field(default, description=description, json_schema_extra=extra, **rules)


class Part(BaseModel):
    """What all settings have in common: no unknown key, no change afterwards, paths are texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: str(one) if isinstance(one, Path) else one for key, one in values.items()}


def words_of(value: Any) -> Any:
    """``0,1,2``, a single value and a list are lists."""
    if isinstance(value, str):
        return [word for word in value.replace(" ", "").split(",") if word]
    return [value] if isinstance(value, int | float) else value


def seeds_checked(value: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds as they may be."""
    if min(value) < 0 or len(set(value)) < len(value):
        raise ValueError("expected different whole numbers from 0 on")
    return value


class ModelPart(Part):
    """Which model, and in what dtype."""

    model: str = described("", MODEL, "Model folder, or owner/name on the hub.")
    revision: str | None = described(None, MODEL, "The model's branch, tag or commit on the hub.")
    tokenizer: str | None = described(None, MODEL, "Tokenizer, where it is not the model's own.")
    trust_remote_code: bool = described(
        False,
        MODEL,
        "Run Python of others: what a model's folder or repository brings (auto_map), or a module "
        "of the hub for --metric. Without it such code is named and refused, never run.",
    )
    dtype: Dtype = described(
        "float32",
        MODEL,
        "What the weights are kept in; auto: as stored. Biases that train are float32 in any case.",
    )


class HeadPart(Part):
    """What becomes of a head that does not fit."""

    new_head: bool = described(
        False, MODEL, "Replace the model's classifier, if it has one, by a fresh one."
    )

    @property
    def head(self) -> Literal["kept", "fresh"]:
        """What becomes of the checkpoint's head."""
        return "fresh" if self.new_head else "kept"


class ChoicePart(Part):
    """What trains."""

    bias: str = described(
        "v",
        WHAT,
        "q, k, v, m1, m2, m3, ln1, ln2 (several with commas), all, none (classifier and pooler "
        "bias alone), head, full, rand or rand:N scalars; auto: what `beftkit select` chooses.",
    )
    layers: str | None = described(None, WHAT, "Only these layers, such as 0-5,8.")
    freeze_head: bool = described(False, WHAT, "Train neither classifier nor pooler bias along.")
    allow_partial: bool = described(False, WHAT, "Accept a role that only some layers have.")


class TaskPart(Part):
    """A task of the registry."""

    task: str | None = described(None, DATA, _TASKS)
    data_dir: str | None = described(
        None, DATA, "Folder of GLUE or SuperGLUE in its original layout; without it the hub."
    )
    data_revision: str | None = described(None, DATA, "The data set's revision on the hub.")


class TrainFilePart(Part):
    """Training examples of the user's own."""

    train_file: str | None = described(
        None, DATA, "Your own examples instead of a task: .csv, .tsv, .jsonl or .parquet."
    )


class ValidationFilePart(Part):
    """Validation examples of the user's own."""

    validation_file: str | None = described(
        None, DATA, "Your own examples for evaluation: .csv, .tsv, .jsonl or .parquet."
    )


class ColumnsPart(Part):
    """Columns of the user's own files."""

    text_columns: str | None = described(
        None, DATA, "One or two columns, such as premise,hypothesis."
    )
    label_column: str | None = described(None, DATA, "The column of labels or values.")
    quotes: bool = described(
        True, DATA, "Whether quotation marks in csv and tsv files enclose fields, or are letters."
    )
    label_map: str | None = described(
        None,
        DATA,
        "LABEL=NAME,...: which class of a classifier that is kept each label of the data is, where "
        "the names do not tell.",
    )


class ValuesPart(Part):
    """What the labels of the user's own files are."""

    regression: bool = described(
        False, DATA, "Labels of your own files that are whole numbers are values, not classes."
    )


class SamplingPart(Part):
    """How many examples."""

    regime: Regimes = described(
        "all", DATA, "How many training examples, as the paper has it for each task."
    )
    train_size: int | None = described(
        None, DATA, "So many training examples instead, drawn by the seed.", gt=0
    )
    validation_size: int | None = described(
        None, DATA, "Evaluate on so many examples, the same for every seed.", gt=0
    )


class LengthPart(Part):
    """How long a row may be."""

    max_length: int | None = described(
        None, DATA, f"Tokens a row is cut to.  [by task: {MAX_LENGTH}]", gt=0
    )


class ModelSettings(Protocol):
    """What loading a model reads."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def tokenizer(self) -> str | None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def head(self) -> Literal["kept", "fresh", "any"]: ...
    @property
    def trust_remote_code(self) -> bool: ...
    @property
    def device_map(self) -> str | None: ...


class DataSettings(ModelSettings, Protocol):
    """What loading data reads; settings without training or validation files say None."""

    @property
    def task(self) -> str | None: ...
    @property
    def data_dir(self) -> str | None: ...
    @property
    def data_revision(self) -> str | None: ...
    @property
    def train_file(self) -> str | None: ...
    @property
    def validation_file(self) -> str | None: ...
    @property
    def text_columns(self) -> str | None: ...
    @property
    def label_column(self) -> str | None: ...
    @property
    def quotes(self) -> bool: ...
    @property
    def label_map(self) -> str | None: ...
    @property
    def regression(self) -> bool: ...


class CoursePart(Part):
    """How far a run goes, and how fast."""

    epochs: int | None = described(None, OPTIMISATION, "Passes over the data.  [by task]", ge=0)
    max_steps: int | None = described(None, OPTIMISATION, "Stop after so many updates.", gt=0)
    lr: float | None = described(None, OPTIMISATION, "Learning rate.  [by task; full: 1e-5]", gt=0)


class OptimisationPart(Part):
    """Batches, schedule, AdamW, seeds."""

    batch_size: int = described(
        16, OPTIMISATION, "Examples a batch, over all processes together.", gt=0
    )
    accumulation: int = described(1, OPTIMISATION, "Batches an update.", gt=0)
    schedule: Literal["constant", "linear"] = described(
        "constant", OPTIMISATION, "Course of the learning rate after the warm-up."
    )
    warmup: float = described(
        0.0, OPTIMISATION, "Updates of warm-up; below 1: a share of all updates.", ge=0
    )
    max_grad_norm: float = described(
        1.0, OPTIMISATION, "The gradient's norm is clipped to this; 0: not.", ge=0
    )
    weight_decay: float = described(0.0, OPTIMISATION, "AdamW's decoupled weight decay.", ge=0)
    beta1: float = described(0.9, OPTIMISATION, "AdamW's decay of the first moment.", ge=0, lt=1)
    beta2: float = described(0.999, OPTIMISATION, "AdamW's decay of the second moment.", ge=0, lt=1)
    eps: float = described(1e-6, OPTIMISATION, "AdamW's epsilon.", gt=0)
    seeds: tuple[int, ...] = described(
        (0,),
        OPTIMISATION,
        "Seeds, such as 0,1,2: a run each, then mean and deviation.",
        min_length=1,
        aliases=("--seed",),
    )
    group_by_length: bool = described(
        True, OPTIMISATION, "Batch examples of like length, which saves padding."
    )

    _seed_words = field_validator("seeds", mode="before")(words_of)
    _seeds_fit = field_validator("seeds")(seeds_checked)


class DevicePart(Part):
    """Where and in what arithmetic."""

    precision: Precision = described(
        "fp32", DEVICE, "Arithmetic: bf16 and fp16 by autocast, fp16 on GPUs only."
    )
    device: str | None = described(None, DEVICE, "cpu, cuda, cuda:1, ...  [a GPU if there is one]")
    device_map: Literal["auto"] | None = described(
        None, DEVICE, "auto: spread a model that one GPU cannot hold."
    )


class CheckpointingPart(Part):
    """Memory against time in the backward pass."""

    gradient_checkpointing: bool = described(
        False, DEVICE, "Compute activations twice instead of keeping them."
    )


class EvaluationPart(Part):
    """When and how a run evaluates."""

    eval_steps: int | None = described(
        None, EVALUATION, "Evaluate every so many updates.  [each epoch]", gt=0
    )
    eval_batch_size: int = described(64, EVALUATION, "Examples a batch in evaluation.", gt=0)


class MetricPart(Part):
    """What is measured."""

    metric: tuple[str, ...] = described(
        (),
        EVALUATION,
        "Metrics instead of the task's, the first picks the best epoch: accuracy, f1, macro_f1, "
        "matthews, pearson, spearman, mse, mae, a local script, or a module of the hub (needs "
        "--trust-remote-code).",
    )

    _metric_words = field_validator("metric", mode="before")(words_of)


class LoggingPart(Part):
    """What evaluations decide, and what is logged when."""

    early_stopping: int | None = described(
        None, EVALUATION, "Stop when so many evaluations brought no better metric.", gt=0
    )
    keep: Literal["last", "best"] = described(
        "last", EVALUATION, "Whether the adapter holds the last state or the best one."
    )
    log_steps: int | None = described(
        None, EVALUATION, "A line of log.jsonl every so many updates.  [each epoch]", gt=0
    )
    track_steps: int | None = described(
        None, EVALUATION, "Projection scores every so many updates.  [with each line]", gt=0
    )
    report_to: str = described(
        "none", EVALUATION, "Also log to tensorboard, wandb, ... (whatever Accelerate knows)."
    )


class OutputPart(Part):
    """What a run leaves where."""

    output: str | None = described(None, OUTPUT, "Folder of the run.", aliases=("-o",))
    adapter_format: Literal["auto", "beft", "lora", "biases"] = described(
        "auto", OUTPUT, "How the result is stored; auto: as PEFT's BEFT, where that holds it."
    )
    save_snapshots: bool = described(
        False,
        OUTPUT,
        "The biases and the head after each epoch, for `beftkit score BASE OUT/snapshots` and "
        "`beftkit fisher --snapshots`.",
    )
    save_steps: int | None = described(
        None, OUTPUT, "Save the state every so many updates, beside each epoch's.", gt=0
    )
    push_to_hub: str | None = described(
        None, OUTPUT, "Upload the adapter with a model card to owner/name."
    )
