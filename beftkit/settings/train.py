"""A training run's settings: one typed definition behind the flags, ``run.yaml`` and Python.

A field's description is its flag's help; ``panel`` is the topic it is listed under.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from beftkit.errors import BeftError, UsageError

MODEL, WHAT, DATA = "Model", "What trains", "Data"
OPTIMISATION, DEVICE = "Optimisation", "Precision and device"
EVALUATION, OUTPUT = "Evaluation and logging", "Output"
_Settings = TypeVar("_Settings", bound=BaseModel)


def described(default: Any, panel: str, description: str, **rules: Any) -> Any:
    """A field that is a flag as well: its help, its topic, other spellings as ``aliases``."""
    extra = {"panel": panel, "aliases": rules.pop("aliases", ())}
    return Field(default, description=description, json_schema_extra=extra, **rules)


class TrainSettings(BaseModel):
    """Everything that decides a run; what is None is filled in from the task's published settings.

    Raises:
        BeftError: by `resolve_settings`, for a value that makes no sense or a key that is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = described("", MODEL, "Model folder, or owner/name on the hub.")
    revision: str | None = described(None, MODEL, "The model's branch, tag or commit on the hub.")
    tokenizer: str | None = described(None, MODEL, "Tokenizer, where it is not the model's own.")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = described(
        "float32", MODEL, "What the frozen weights are kept in; auto: as stored. Biases that "
        "train are float32 in any case.",
    )  # fmt: skip
    new_head: bool = described(
        False, MODEL, "Replace a classifier that does not fit the task by a fresh one."
    )

    bias: str = described(
        "v", WHAT, "q, k, v, m1, m2, m3, ln1, ln2 (several with commas), all, none (classifier "
        "and pooler bias alone), head, full, rand or rand:N scalars; auto: what `beftkit select` "
        "chooses.",
    )  # fmt: skip
    layers: str | None = described(None, WHAT, "Only these layers, such as 0-5,8.")
    freeze_head: bool = described(False, WHAT, "Train neither classifier nor pooler bias along.")
    allow_partial: bool = described(False, WHAT, "Accept a role that only some layers have.")

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
    validation_file: str | None = described(None, DATA, "The same for evaluation.")
    text_columns: str | None = described(
        None, DATA, "One or two columns, such as premise,hypothesis."
    )
    label_column: str | None = described(None, DATA, "The column of labels or values.")
    regression: bool = described(
        False, DATA, "Labels of your own files that are whole numbers are values, not classes."
    )
    regime: Literal["low", "medium", "high", "all"] = described(
        "all", DATA, "How many training examples, as the paper has it for each task."
    )
    train_size: int | None = described(
        None, DATA, "So many training examples instead, drawn by the seed.", gt=0
    )
    validation_size: int | None = described(
        None, DATA, "Evaluate on so many examples, the same for every seed.", gt=0
    )
    max_length: int | None = described(None, DATA, "Tokens a row is cut to.  [by task: 128]", gt=0)

    epochs: int | None = described(None, OPTIMISATION, "Passes over the data.  [by task]", ge=0)
    max_steps: int | None = described(None, OPTIMISATION, "Stop after so many updates.", gt=0)
    lr: float | None = described(None, OPTIMISATION, "Learning rate.  [by task; full: 1e-5]", gt=0)
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
        (0,), OPTIMISATION, "Seeds, such as 0,1,2: a run each, then mean and deviation.",
        min_length=1, aliases=("--seed",),
    )  # fmt: skip
    group_by_length: bool = described(
        True, OPTIMISATION, "Batch examples of like length, which saves padding."
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

    eval_steps: int | None = described(
        None, EVALUATION, "Evaluate every so many updates.  [each epoch]", gt=0
    )
    eval_batch_size: int = described(64, EVALUATION, "Examples a batch in evaluation.", gt=0)
    metric: tuple[str, ...] = described(
        (), EVALUATION, "Metrics instead of the task's, the first picks the best epoch: accuracy, "
        "f1, macro_f1, matthews, pearson, spearman, mse, mae, a local script, or a module of the "
        "hub (needs --trust-remote-code).",
    )  # fmt: skip
    trust_remote_code: bool = described(
        False, EVALUATION, "Let --metric fetch a module from the hub and run it."
    )
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

    @field_validator("seeds", "metric", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """``0,1,2`` and a single value are lists too."""
        if isinstance(value, str):
            return [word for word in value.replace(" ", "").split(",") if word]
        return [value] if isinstance(value, int) else value

    @field_validator("seeds")
    @classmethod
    def _from_nought(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0 or len(set(value)) < len(value):
            raise ValueError("expected different whole numbers from 0 on")
        return value

    @model_validator(mode="after")
    def _data_of_one_kind(self) -> TrainSettings:
        own = self.train_file is not None or self.validation_file is not None
        if self.task is not None and own:
            raise ValueError("a task and files of your own were given; expected one of them")
        if self.task is None and self.train_file is None:
            raise ValueError("neither a task nor a train file was given; expected one of them")
        if self.regression and not own:
            raise ValueError("regression is for files of your own; a task knows its kind")
        if own and self.regime != "all":
            raise ValueError("regime is for tasks; use train_size with files of your own")
        if self.train_size is not None and self.regime != "all":
            raise ValueError("regime and train_size were both given; expected one of them")
        return self


def resolve_settings(file: str | Path | None, flags: Mapping[str, Any]) -> TrainSettings:
    """Settings from a YAML file and flags; a flag that was given (is not None) wins.

    Raises:
        UsageError: an unknown key, a value that does not fit, or no model.
    """
    values = {**(read_yaml(file) if file else {})}
    values |= {key: value for key, value in flags.items() if value is not None}
    settings = checked(TrainSettings, values)
    if not settings.model:
        raise UsageError("no model was given; expected a model folder, or owner/name on the hub")
    return settings


def checked(kind: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    """Settings of this kind from plain values.

    Raises:
        UsageError: an unknown key, or a value that does not fit, in a sentence.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        said = [_sentence(problem, kind) for problem in error.errors()]
        raise UsageError("; ".join(said)) from None


def _sentence(problem: Any, kind: type[BaseModel]) -> str:
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return f"unknown setting {where!r}; expected some of {known}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"{where}: {message} (given {problem['input']!r})" if where else message


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A mapping of settings from a YAML file.

    Raises:
        BeftError: not there, not YAML, or not a mapping.
    """
    import yaml

    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise BeftError(f"{file}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise BeftError(f"{file}: not a YAML file ({reason})") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BeftError(f"{file}: expected settings such as `lr: 0.001`, one a line")
    return found


def settings_yaml(settings: TrainSettings) -> str:
    """The settings as YAML that `resolve_settings` reads back to an equal value."""
    import yaml

    return str(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def flags_of(kind: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """The flags of what is not a setting's default, and what trains in any case."""
    words: list[str] = []
    for name, field in kind.model_fields.items():
        value = values.get(name)
        value = tuple(value) if isinstance(value, list) else value
        if value is None or (value == field.default and name != "bias"):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple) and get_args(field.annotation)[0] is str:
            words += [word for one in value for word in (flag, str(one))]
        elif isinstance(value, tuple):
            words += [flag, ",".join(map(_short, value))]
        else:
            words += [flag, _short(value)]
    return words


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
