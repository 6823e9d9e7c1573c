"""The parts that settings are made of: each field once, with its flag's help and its topic.

A command's settings inherit the parts they need. Their fields keep the order of the parts, the last
base first: that is how pydantic collects them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from beftkit.registry import ENCODED, MAX_LENGTH, OFFERED
from beftkit.settings.asking import TemplatePart
from beftkit.settings.graphs import GraphsPart
from beftkit.settings.names import check_task
from beftkit.settings.topics import (
    Part,
    metrics_of,
    of_choice,
    of_course,
    of_data,
    of_device,
    of_evaluation,
    of_model,
    of_output,
    seeds_checked,
    words_of,
)

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Regimes = Literal["low", "medium", "high", "all"]
#: examples a batch of training, where neither the user nor the task says otherwise
BATCH = 16
_ASKED = [name for name in OFFERED if name not in ENCODED]
_TASKS = f"{', '.join(ENCODED)}; of causal models also {', '.join(_ASKED)}."


class ModelPart(Part):
    """Which model, and in what dtype."""

    model: str = of_model("", "Model folder, or owner/name on the hub.")
    revision: str | None = of_model(None, "The model's branch, tag or commit on the hub.")
    tokenizer: str | None = of_model(None, "Tokenizer, where it is not the model's own.")
    trust_remote_code: bool = of_model(
        False,
        "Run Python of others: what a model's folder or repository brings (auto_map), or a module "
        "of the hub for --metric. Without it such code is named and refused, never run.",
    )
    dtype: Dtype = of_model(
        "float32",
        "What the weights are kept in; auto: as stored. Biases that train are float32 in any case.",
    )


class HeadPart(Part):
    """What becomes of a head that does not fit."""

    new_head: bool = of_model(
        False, "Replace the model's classifier, if it has one, by a fresh one."
    )

    @property
    def head(self) -> Literal["kept", "fresh"]:
        """What becomes of the checkpoint's head."""
        return "fresh" if self.new_head else "kept"


class ChoicePart(Part):
    """What trains."""

    bias: str = of_choice(
        "v",
        "q, k, v, m1, m2, m3, ln1, ln2 (several with commas), all, none (classifier and pooler "
        "bias alone), head, full, rand or rand:N scalars; auto: what `beftkit select` chooses.",
    )
    layers: str | None = of_choice(None, "Only these layers, such as 0-5,8.")
    freeze_head: bool = of_choice(False, "Train neither classifier nor pooler bias along.")
    allow_partial: bool = of_choice(False, "Accept a role that only some layers have.")


class TaskNamePart(Part):
    """A task of the registry, and how it meets the model."""

    task: str | None = of_data(None, _TASKS)
    as_: Literal["choice", "classes", "language"] | None = of_data(
        None,
        "How the task meets the model. choice: a prompt and its answers, by a causal language "
        "model's own head; classes: a classifier over the text; language: a causal model learns "
        "your own prompts with completions, messages or texts.  [by the model's architecture, and "
        "by your files' columns]",
    )

    @field_validator("task")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value if value is None else check_task(value)


class TaskPart(TaskNamePart):
    """A task of the registry, and where it lies."""

    data_dir: str | None = of_data(
        None, "Folder of GLUE or SuperGLUE in its original layout; without it the hub."
    )
    data_revision: str | None = of_data(None, "The data set's revision on the hub.")


class TrainFilePart(Part):
    """Training examples of the user's own."""

    train_file: str | None = of_data(
        None, "Your own examples instead of a task: .csv, .tsv, .jsonl or .parquet."
    )


class ValidationFilePart(Part):
    """Validation examples of the user's own."""

    validation_file: str | None = of_data(
        None, "Your own examples for evaluation: .csv, .tsv, .jsonl or .parquet."
    )


class TextsPart(Part):
    """Where the texts of the user's own files stand."""

    text_columns: str | None = of_data(None, "One or two columns, such as premise,hypothesis.")
    quotes: bool = of_data(
        True, "Whether quotation marks in csv and tsv files enclose fields, or are letters."
    )


class ColumnsPart(TextsPart):
    """Columns of the user's own files."""

    label_column: str | None = of_data(None, "The column of labels or values.")
    answer_column: str | None = of_data(
        None,
        "Instead of labels: right answers that a causal language model is to write behind the text "
        "of --text-columns, a whole prompt; several with | between them.",
    )
    label_map: str | None = of_data(
        None,
        "LABEL=NAME,...: which class of a classifier that is kept each label of the data is, where "
        "the names do not tell.",
    )


class ValuesPart(Part):
    """What the labels of the user's own files are."""

    regression: bool = of_data(
        False, "Labels of your own files that are whole numbers are values, not classes."
    )


class SamplingPart(Part):
    """How many examples."""

    regime: Regimes | None = of_data(
        None,
        "How many training examples, as the paper has it for each task; of prompts low alone, "
        "1000.  [all; prompts: low]",
    )
    train_size: int | None = of_data(
        None, "So many training examples instead, drawn by the seed.", gt=0
    )


class ValidationSizePart(Part):
    """How many of the examples for evaluation."""

    validation_size: int | None = of_data(
        None, "Evaluate on so many examples, the same for every seed.  [all; prompts: 1000]", gt=0
    )


class ShotsPart(Part):
    """Demonstrations before each example."""

    shots: int = of_data(
        0,
        "So many solved training examples before each prompt (in-context learning; published: 32).",
        ge=0,
    )
    common_shots: bool = of_data(False, "One draw of them for all examples, not one for each.")
    seed: int = of_data(0, "Seed of these draws.", ge=0)


class LengthPart(Part):
    """How long a row may be."""

    max_length: int | None = of_data(
        None, f"Tokens a row is cut to.  [by task: {MAX_LENGTH}; prompts: 2048]", gt=0
    )


class CoursePart(Part):
    """How far a run goes, and how fast."""

    epochs: int | None = of_course(None, "Passes over the data.  [by task]", ge=0)
    max_steps: int | None = of_course(None, "Stop after so many updates.", gt=0)
    lr: float | None = of_course(
        None, "Learning rate; find: by a short sweep.  [by task; full: 1e-5]", gt=0, words=("find",)
    )


class OptimisationPart(Part):
    """Batches, schedule, AdamW, seeds."""

    batch_size: int | None = of_course(
        None, f"Examples a batch, over all processes together.  [{BATCH}; prompts: 8]", gt=0
    )
    accumulation: int = of_course(1, "Batches an update.", gt=0)
    schedule: Literal["constant", "linear"] | None = of_course(
        None, "Course of the learning rate after the warm-up.  [constant; prompts: linear]"
    )
    warmup: float = of_course(0.0, "Updates of warm-up; below 1: a share of all updates.", ge=0)
    max_grad_norm: float = of_course(1.0, "The gradient's norm is clipped to this; 0: not.", ge=0)
    weight_decay: float = of_course(0.0, "AdamW's decoupled weight decay.", ge=0)
    beta1: float = of_course(0.9, "AdamW's decay of the first moment.", ge=0, lt=1)
    beta2: float = of_course(0.999, "AdamW's decay of the second moment.", ge=0, lt=1)
    eps: float = of_course(1e-6, "AdamW's epsilon.", gt=0)
    seeds: tuple[int, ...] = of_course(
        (0,),
        "Seeds, such as 0,1,2: a run each, then mean and deviation.",
        min_length=1,
        aliases=("--seed",),
    )
    group_by_length: bool = of_course(True, "Batch examples of like length, which saves padding.")

    _seed_words = field_validator("seeds", mode="before")(words_of)
    _seeds_fit = field_validator("seeds")(seeds_checked)

    @property
    def examples_a_batch(self) -> int:
        """The batch size that is used."""
        return self.batch_size or BATCH


class DevicePart(Part):
    """Where and in what arithmetic."""

    precision: Precision = of_device(
        "fp32",
        "Arithmetic: bf16 and fp16 by autocast, fp16 on GPUs only; tf32: float32 whose products "
        "keep 10 bits, on NVIDIA's GPUs only.",
    )
    device: str | None = of_device(None, "cpu, cuda, cuda:1, ...  [a GPU if there is one]")
    device_map: Literal["auto"] | None = of_device(
        None, "auto: spread a model that one GPU cannot hold."
    )


class CheckpointingPart(Part):
    """Memory against time in the backward pass."""

    gradient_checkpointing: bool = of_device(
        False, "Compute activations twice instead of keeping them."
    )


class EvaluationPart(Part):
    """When and how a run evaluates."""

    eval_steps: int | None = of_evaluation(
        None, "Evaluate every so many updates.  [each epoch]", gt=0
    )
    eval_batch_size: int = of_evaluation(64, "Examples a batch in evaluation.", gt=0)


class MetricPart(Part):
    """What is measured."""

    metric: tuple[str, ...] = of_evaluation(
        (),
        "Metrics instead of the task's, the first picks the best epoch: accuracy, f1, macro_f1, "
        "matthews, pearson, spearman, mse, mae, perplexity, token_accuracy (several with commas), "
        "a local script, or a module of the hub (needs --trust-remote-code).",
    )

    _metric_words = field_validator("metric", mode="before")(metrics_of)


class LoggingPart(Part):
    """What evaluations decide, and what is logged when."""

    early_stopping: int | None = of_evaluation(
        None, "Stop when so many evaluations brought no better metric.", gt=0
    )
    keep: Literal["last", "best"] = of_evaluation(
        "last", "Whether the adapter holds the last state or the best one."
    )
    log_steps: int | None = of_evaluation(
        None, "A line of log.jsonl every so many updates.  [each epoch]", gt=0
    )
    track_steps: int | None = of_evaluation(
        None, "Projection scores every so many updates.  [with each line]", gt=0
    )
    report_to: str = of_evaluation(
        "none", "Also log to tensorboard, wandb, ... (whatever Accelerate knows)."
    )


class OutputPart(Part):
    """What a run leaves where."""

    output: str | None = of_output(None, "Folder of the run.", aliases=("-o",))
    adapter_format: Literal["auto", "beft", "lora", "biases"] = of_output(
        "auto", "How the result is stored; auto: as PEFT's BEFT, where that holds it."
    )
    save_snapshots: bool = of_output(
        False,
        "The biases and the head after each epoch, for `beftkit score BASE OUT/snapshots` and "
        "`beftkit fisher --snapshots`.",
    )
    save_steps: int | None = of_output(
        None, "Save the state every so many updates, beside each epoch's.", gt=0
    )
    push_to_hub: str | None = of_output(None, "Upload the adapter with a model card to owner/name.")


class DataPart(
    LengthPart,
    ValidationSizePart,
    SamplingPart,
    ValuesPart,
    TemplatePart,
    ColumnsPart,
    ValidationFilePart,
    TrainFilePart,
    TaskPart,
):
    """What a run reads."""


class RunPart(
    OutputPart,
    LoggingPart,
    MetricPart,
    EvaluationPart,
    CheckpointingPart,
    GraphsPart,
    DevicePart,
    OptimisationPart,
):
    """How a run goes."""
