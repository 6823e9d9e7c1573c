"""The model card of an adapter: a README.md with the front matter that the hub reads."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from beftkit.edges import markdown
from beftkit.objectives import Objective
from beftkit.registry import TASKS, Task
from beftkit.runs.card_use import PEFT_FORMATS, CardUse, bare
from beftkit.runs.folders import FREE
from beftkit.runs.merged_card import without_paths
from beftkit.runs.results import Run, TrainResult, run_evaluated, run_metrics
from beftkit.runs.said import hub_id
from beftkit.settings.train import TrainSettings
from beftkit.spelling import flag_of
from beftkit.tasks.deviations import zero_error_note
from beftkit.training.evaluation import Evaluated
from beftkit.tuning.lora import ALPHA, RANK

TAGS = ("beft", "beftkit", "bias-tuning")
LORA_TAGS = ("beftkit", "lora")
#: the hub's names of our metrics, where they differ
_HUB_METRICS = {"macro_f1": "f1", "matthews": "matthews_correlation"}
_HUB_METRICS |= {"pearson": "pearsonr", "spearman": "spearmanr"}
#: settings that the card lists even where they are the defaults
_SHOWN = "bias regime max_length epochs lr batch_size schedule precision keep".split()


def model_card(
    result: TrainResult, run: Run, objective: Objective, *, own_tokenizer: bool = False
) -> str:
    """The card of one seed's adapter; no path of this machine is in it.

    Args:
        result: of all seeds.
        run: the one whose adapter this is.
        objective: of its task.
        own_tokenizer: whether the run's tokenizer lies beside the adapter.
    """
    return _Card(result, run, objective, own_tokenizer).text()


def train_command(settings: TrainSettings, seed: int) -> list[str]:
    """The words of the command that trains this again; files by their bare names."""
    task = TASKS.get(settings.task or "")
    own = {"data_revision": task.hub.revision, "metric": task.metrics} if task else {}
    words = ["beftkit", "train", hub_id(settings.model) or "BASE"]
    for name, field in TrainSettings.model_fields.items():
        value = getattr(settings, name)
        if name in ("model", "seeds", *FREE) or value in (field.default, own.get(name)):
            continue
        if name == "bias" and settings.peft:  # which says that none trains
            continue
        flag = flag_of(name)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [flag, bare(one)]
    return [*words, "--seed", str(seed), "--output", "out"]


@dataclass(frozen=True)
class _Card:
    """What a card is made of."""

    result: TrainResult
    run: Run
    objective: Objective
    own_tokenizer: bool

    @property
    def settings(self) -> TrainSettings:
        return self.result.settings

    @cached_property
    def base(self) -> str | None:
        return hub_id(self.settings.model)

    @cached_property
    def task(self) -> Task | None:
        return TASKS.get(self.settings.task or "")

    @property
    def place(self) -> str:
        return self.settings.push_to_hub or "ADAPTER"

    @property
    def name(self) -> str:
        s = self.settings
        own = f"{Path(s.model).name}-{self.result.task}-{s.peft or self.trained}"
        return (s.push_to_hub or own).rpartition("/")[2]

    @property
    def trained(self) -> str:
        """What trained, for a name: ``v``, ``added-v``."""
        s = self.settings
        added = f"added-{s.add_bias}" if s.add_bias else ""
        return "-".join(filter(None, ("" if added and s.bias == "none" else s.bias, added)))

    def text(self) -> str:
        use = CardUse(self.settings, self.run, self.objective, self.place, self.own_tokenizer)
        command = _wrapped(train_command(self.settings, self.run.seed))
        sections = {
            f"# {markdown(self.name)}": self.opening(),
            "## Results": self.results(),
            "## Settings": _table(["setting", "value"], self.rows()),
            "## Use": use.lines(),
            "## Train it again": ["```sh", *command, "```", *use.blanks()],
        }
        if made := list(self.made()):
            sections["## Made with"] = made
        if self.run.notes:
            s = self.settings
            given = (s.output, s.model, s.tokenizer, s.data_dir, s.train_file, s.validation_file)
            notes = (without_paths(note, given) for note in self.run.notes)
            sections["## Notes"] = [f"- {markdown(note)}" for note in notes]
        lines = [line for title, body in sections.items() for line in (title, "", *body, "")]
        return "\n".join(["---", self.front_matter(), "---", "", *lines]).rstrip() + "\n"

    def front_matter(self) -> str:
        from huggingface_hub import EvalResult, ModelCardData

        task, tag = self.task, self.objective.pipeline_tag
        splits = task.validation if task else ("validation",)
        about: dict[str, Any] = {"task_type": tag, "task_name": tag.replace("-", " ").capitalize()}
        about |= {"dataset_type": "own-files", "dataset_name": self.result.task}
        if task:
            about |= {"dataset_type": task.hub.repo, "dataset_config": task.hub.config}
            about["dataset_revision"] = self.settings.data_revision
        found, metrics = [], []
        for which in ("best", "last"):
            for key, value in run_metrics(self.run, which).items():
                metric, split = _split_of(key, splits)
                metrics.append(_HUB_METRICS.get(metric, metric))
                if value is None:
                    continue
                name = f"{metric} ({_when(self.run, which)})"
                one: Any = {"metric_type": metrics[-1], "metric_value": value, "metric_name": name}
                found.append(EvalResult(**about, dataset_split=split, **one))
        peft = "peft" if self.run.adapter_format in PEFT_FORMATS else None
        data: dict[str, Any] = {"base_model": self.base, "library_name": peft, "pipeline_tag": tag}
        data |= {
            "tags": list(LORA_TAGS if self.settings.peft else TAGS),
            "datasets": [task.hub.repo] if task else None,
        }
        data |= {"metrics": list(dict.fromkeys(metrics)) or None, "eval_results": found or None}
        data |= {"model_name": self.name if found else None}
        data |= {"base_model_relation": "adapter"} if self.base else {}
        return ModelCardData(**data).to_yaml()

    def opening(self) -> Iterator[str]:
        s, base, result, run = self.settings, self.base, self.result, self.run
        link = f"[{base}](https://huggingface.co/{base})" if base else "a local folder"
        at = f" at revision `{s.revision}`" if base and s.revision else ""
        head = ""
        if result.head_scalars:
            head = f", and {result.head_scalars:,} of the classification head"
        what = f"Bias terms (`--bias {s.bias}`) of"
        if s.add_bias:
            both = "" if s.bias == "none" else f"{what.removesuffix(' of')} and biases"
            what = f"{both or 'Biases'} added at zero (`--add-bias {s.add_bias}`) in"
        if s.peft:
            what = f"A LoRA (rank {RANK}, alpha {ALPHA}, on queries and values) for"
        yield (
            f"{what} {link}{at}, fine-tuned by beftkit: "
            f"{result.scalars:,} scalars, {result.percent:.4f} % of the model{head}. Nothing else "
            "was trained."
        )
        yield ""
        data = "files of our own"
        if self.task:
            data = f"`{self.task.hub.repo}`, configuration `{self.task.hub.config}`"
        yield f"- Task: {markdown(result.task)} ({data}), {run.train_examples:,} training examples"
        yield f"- {markdown(self.objective.described())}"
        reader = "PEFT" if run.adapter_format in PEFT_FORMATS else "beftkit alone"
        yield f"- Format: {run.adapter_format}, read by {reader}"

    def results(self) -> Iterator[str]:
        result, run = self.result, self.run
        both = [run_metrics(run, which) for which in ("best", "last")]
        if both[1]:
            head = ["metric", _when(run, "best"), _when(run, "last")]
            found = [one for which in ("best", "last") if (one := run_evaluated(run, which))]
            rows = [[name, *(_measured(one, name) for one in found)] for name in both[1]]
            same = found[-1].baselines
            if any(value is not None for value in same.values()):
                head.append(found[-1].baseline_is)
                rows = [[*row, _number(same.get(row[0]))] for row in rows]
            yield from _table(head, rows)
            yield ""
            if any(error is not None for error in found[-1].standard_errors.values()):
                yield "± is one standard error at this many validation examples."
            errors = [error for one in found for error in one.standard_errors.values()]
            for note in zero_error_note(errors):
                yield f"{note[0].upper()}{note[1:]}."
            yield (
                "Best is the best evaluation on the validation split itself, and so flatters; last "
                f"is the end of training. The adapter holds the {run.kept} state."
            )
        else:
            yield "There was no validation split."
        if len(result.runs) > 1:
            seeds = ", ".join(str(one.seed) for one in result.runs)
            yield f"Mean ± deviation over the seeds {seeds} (this adapter is of seed {run.seed}): "
            spread = [
                f"{name} {which} {_number(one['mean'])} ± {_number(one['deviation'])}"
                for which, found in result.summary().items()
                for name, one in found.items()
            ]
            yield f"{', '.join(spread)}."
        if run.scores:
            yield ""
            yield "How far the biases moved, at the end of training:"
            yield ""
            rows = [[role, _number(value)] for role, value in run.scores.items()]
            yield from _table(["role", "mean projection ratio"], rows)

    def rows(self) -> list[list[str]]:
        """Settings worth a row."""
        s = self.settings
        rows = [["seed", str(self.run.seed)], ["updates", str(self.run.steps)]]
        for name, field in TrainSettings.model_fields.items():
            value = getattr(s, name)
            sized = self.task and name == "regime" and s.train_size
            if name in ("model", "seeds", *FREE) or sized or (name == "bias" and s.peft):
                continue
            if name in _SHOWN or value != field.default:
                text = ", ".join(map(bare, value)) if isinstance(value, tuple) else bare(value)
                rows.append([name, text])
        return rows

    def made(self) -> Iterator[str]:
        """Where the run comes from, but for what names its machine."""
        whence = self.result.provenance
        if whence is None:
            return
        versions = ", ".join(f"{name} {held}" for name, held in whence.versions.items())
        system = whence.platform.partition("-")[0]
        yield f"- {markdown(f'{versions}, {system}')}"
        day, several = whence.started.partition("T")[0], whence.processes > 1
        by = f", {whence.processes} processes" if several else ""
        yield f"- {markdown(f'{whence.device}, {whence.precision}{by}; {day}')}"
        if (chosen := whence.chosen) is not None:
            score = "" if chosen.score is None else f", {chosen.score:.4g}"
            why = f"its {chosen.method} score{score} was the candidates' highest"
            yield f"- {markdown(f'The bias was chosen by a probe (--bias auto): {why}.')}"


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [[markdown(cell).replace("|", r"\|") for cell in row] for row in (head, *rows)]
    return ["| " + " | ".join(row) + " |" for row in (shown[0], ["---"] * len(head), *shown[1:])]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _measured(found: Evaluated, name: str) -> str:
    value, error = found.metrics.get(name), found.standard_errors.get(name)
    if value is None or error is None:
        return _number(value)
    return _number(value) + (f" ± {error:#.2g}" if error < 10 else f" ± {error:.0f}")


def _wrapped(words: Sequence[str]) -> list[str]:
    """A command over several lines, each as long as it may be."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) > 88 and word.startswith("-"):
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
