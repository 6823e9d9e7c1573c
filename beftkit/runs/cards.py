"""The model card of an adapter: a README.md with the front matter that the hub reads."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from beftkit.registry import TASKS
from beftkit.runs.folders import FREE
from beftkit.runs.results import Run, TrainResult, run_metrics
from beftkit.settings.train import TrainSettings

TAGS = ("beft", "beftkit", "bias-tuning")
#: formats that PEFT reads
PEFT_FORMATS = ("beft", "lora")
#: the hub's names of our metrics, where they differ
_HUB_METRICS = {
    "macro_f1": "f1", "matthews": "matthews_correlation", "pearson": "pearsonr",
    "spearman": "spearmanr",
}  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
#: settings that the card lists even where they are the defaults
_SHOWN = ("bias", "regime", "max_length", "epochs", "lr", "batch_size", "schedule", "precision",
          "keep")  # fmt: skip


def model_card(result: TrainResult, run: Run, labels: Sequence[str]) -> str:
    """The card of one seed's adapter; no path of this machine is in it.

    Args:
        result: of all seeds.
        run: the one whose adapter this is.
        labels: names in the order of their ids; empty for regression.
    """
    s = TrainSettings.model_validate(result.settings)
    base = hub_id(s.model)
    place = s.push_to_hub or "ADAPTER"
    name = (s.push_to_hub or f"{Path(s.model).name}-{result.task}-{s.bias}").rpartition("/")[2]
    lines = [
        f"# {name}", "", *_opening(result, run, s, base, labels), "",
        "## Results", "", *_results(result, run), "",
        "## Settings", "", *_table(["setting", "value"], _settings(s, run)), "",
        "## Use", "", *_use(run, s, base, place, labels), "",
        "## Train it again", "",
        "```sh", *_wrapped(train_command(s, run.seed)), "```", "", *_blanks(s, base),
    ]  # fmt: skip
    if run.notes:
        lines += ["## Notes", "", *(f"- {_without_paths(note, s)}" for note in run.notes), ""]
    front = _front_matter(result, run, s, base, name)
    return "\n".join(["---", front, "---", "", *lines]).rstrip() + "\n"


def hub_id(reference: str) -> str | None:
    """The reference if it is one of the hub's; None for a folder here."""
    return None if Path(reference).exists() or not _HUB_ID.fullmatch(reference) else reference


def train_command(settings: TrainSettings, seed: int) -> list[str]:
    """The words of the command that trains this again; files by their bare names."""
    task = TASKS.get(settings.task or "")
    own = {
        "data_revision": task.hub.revision if task else None,
        "metric": task.metrics if task else (),
    }
    words = ["beftkit", "train", hub_id(settings.model) or "BASE"]
    for name, field in TrainSettings.model_fields.items():
        value = getattr(settings, name)
        if name in ("model", "seeds", *FREE) or value in (field.default, own.get(name)):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [flag, _bare(one)]
    return [*words, "--seed", str(seed), "--output", "out"]


def _front_matter(
    result: TrainResult, run: Run, s: TrainSettings, base: str | None, name: str
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    task = TASKS.get(s.task or "")
    splits = task.validation if task else ("validation",)
    found, metrics = [], []
    for which in ("best", "last"):
        for key, value in run_metrics(run, which).items():
            metric, split = _split_of(key, splits)
            metrics.append(_HUB_METRICS.get(metric, metric))
            if value is None:
                continue
            found.append(EvalResult(
                task_type="text-classification", task_name="Text classification",
                dataset_type=task.hub.repo if task else "own-files",
                dataset_name=result.task, dataset_config=task.hub.config if task else None,
                dataset_split=split,
                dataset_revision=s.data_revision if task else None,
                metric_type=_HUB_METRICS.get(metric, metric), metric_value=value,
                metric_name=f"{metric} ({_when(run, which)})",
            ))  # fmt: skip
    relation: dict[str, Any] = {"base_model_relation": "adapter"} if base else {}
    data = ModelCardData(
        base_model=base, library_name="peft" if run.adapter_format in PEFT_FORMATS else None,
        pipeline_tag="text-classification", tags=list(TAGS),
        datasets=[task.hub.repo] if task else None, metrics=list(dict.fromkeys(metrics)) or None,
        model_name=name if found else None, eval_results=found or None,
        **relation,
    )  # fmt: skip
    return data.to_yaml()


def _split_of(key: str, splits: Sequence[str]) -> tuple[str, str]:
    """``accuracy_matched`` -> ``accuracy``, ``validation_matched``."""
    for split in splits if len(splits) > 1 else ():
        suffix = split.removeprefix("validation")
        if key.endswith(suffix):
            return key.removesuffix(suffix), split
    return key, splits[0]


def _when(run: Run, which: str) -> str:
    found = run.best if which == "best" else run.last
    return f"{which}, epoch {found.epoch if found else 0:g}"


def _opening(
    result: TrainResult, run: Run, s: TrainSettings, base: str | None, labels: Sequence[str]
) -> Iterator[str]:
    link = f"[{base}](https://huggingface.co/{base})" if base else "a local folder"
    at = f" at revision `{s.revision}`" if base and s.revision else ""
    yield (
        f"Bias terms (`--bias {s.bias}`) of {link}{at}, fine-tuned by beftkit: "
        f"{result.scalars:,} scalars, {result.percent:.4f} % of the model, and "
        f"{result.head_scalars:,} of the classification head. Nothing else was trained."
    )
    yield ""
    task = TASKS.get(s.task or "")
    data = f"`{task.hub.repo}`, configuration `{task.hub.config}`" if task else "files of our own"
    yield f"- Task: {result.task} ({data}), {run.train_examples:,} training examples"
    named = ", ".join(f"{number} {label}" for number, label in enumerate(labels))
    yield f"- Labels: {named}" if labels else "- One output: a value, not a class"
    yield f"- Format: {run.adapter_format}" + (
        ", read by PEFT" if run.adapter_format in PEFT_FORMATS else ", read by beftkit alone"
    )


def _results(result: TrainResult, run: Run) -> Iterator[str]:
    names = [*run_metrics(run, "last")]
    if names:
        head = ["metric", _when(run, "best"), _when(run, "last")]
        yield from _table(head, [
            [name, *(_number(run_metrics(run, which).get(name)) for which in ("best", "last"))]
            for name in names
        ])  # fmt: skip
        yield ""
        yield (
            "Best is the best evaluation on the validation split itself, and so flatters; last is "
            f"the end of training. The adapter holds the {run.kept} state."
        )
    else:
        yield "There was no validation split."
    if len(result.runs) > 1:
        seeds = ", ".join(str(one.seed) for one in result.runs)
        yield f"Mean ± deviation over the seeds {seeds} (this adapter is of seed {run.seed}): "
        yield ", ".join(
            f"{name} {which} {_number(one['mean'])} ± {_number(one['deviation'])}"
            for which, found in result.summary().items()
            for name, one in found.items()
        ) + "."  # fmt: skip
    if run.scores:
        yield ""
        yield "How far the biases moved, at the end of training:"
        yield ""
        yield from _table(
            ["role", "mean projection ratio"],
            [[role, _number(value)] for role, value in run.scores.items()],
        )


def _settings(s: TrainSettings, run: Run) -> list[list[str]]:
    task = TASKS.get(s.task or "")
    rows = [["seed", str(run.seed)], ["updates", str(run.steps)]]
    for name, field in TrainSettings.model_fields.items():
        value = getattr(s, name)
        if name in ("model", "seeds", *FREE) or (task and name == "regime" and s.train_size):
            continue
        if name in _SHOWN or value != field.default:
            text = ", ".join(map(_bare, value)) if isinstance(value, tuple) else _bare(value)
            rows.append([name, text])
    return rows


def _use(
    run: Run, s: TrainSettings, base: str | None, place: str, labels: Sequence[str]
) -> Iterator[str]:
    given = [] if base else ["BASE"]
    own = [] if s.task else ["--validation-file", _bare(s.validation_file or "dev.jsonl")]
    yield "```sh"
    yield shlex.join(["beftkit", "evaluate", *given, "--adapter", place, *own])
    yield shlex.join(["beftkit", "score", *(given or [_at(base, s)]), place])
    yield "```"
    yield ""
    count = max(len(labels), 1)
    start = json.dumps(base or "BASE")
    where = f"{start}, revision={json.dumps(s.revision)}" if base and s.revision else start
    yield "```python"
    if run.adapter_format in PEFT_FORMATS:
        yield "from peft import AutoPeftModelForSequenceClassification"
        yield "from transformers import AutoTokenizer"
        yield ""
        yield "# PEFT takes the number of labels from the base: it has to be given."
        yield "model = AutoPeftModelForSequenceClassification.from_pretrained("
        yield f"    {json.dumps(place)}, num_labels={count}"
        yield ")"
    else:
        yield "from beftkit.weights import apply_adapter"
        yield "from transformers import AutoModelForSequenceClassification, AutoTokenizer"
        yield ""
        yield "model = AutoModelForSequenceClassification.from_pretrained("
        yield f"    {where}, num_labels={count}"
        yield ")"
        yield f"apply_adapter(model, {json.dumps(place)})"
    yield f"tokenizer = AutoTokenizer.from_pretrained({where})"
    yield "model.eval()"
    yield "```"


def _at(base: str | None, s: TrainSettings) -> str:
    return f"{base}@{s.revision}" if s.revision else str(base)


def _blanks(s: TrainSettings, base: str | None) -> list[str]:
    """What the words in capitals stand for."""
    said = []
    if base is None:
        said.append("BASE: the base model's folder.")
    if s.push_to_hub is None:
        said.append("ADAPTER: this folder, or its owner/name on the hub.")
    return [" ".join(said), ""] if said else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _wrapped(words: Sequence[str]) -> list[str]:
    """A command over several lines, each as long as it may be."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > 88 and word.startswith("-"):
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _bare(value: Any) -> str:
    """A setting as text, a path without its folders."""
    path = Path(str(value))
    local = path.is_absolute() or (os.sep in str(value) and path.exists())
    return path.name if local else str(value)


def _without_paths(text: str, s: TrainSettings) -> str:
    """A note without the folders of what the run was given."""
    given = (s.output, s.model, s.tokenizer, s.data_dir, s.train_file, s.validation_file)
    for value in filter(None, given):
        path = Path(value)
        if path.is_absolute() or path.exists():
            for form in (str(path.resolve()), str(path)):
                text = text.replace(form, path.name or ".")
    return text.replace(str(Path.home()), "~") if len(Path.home().parts) > 1 else text
