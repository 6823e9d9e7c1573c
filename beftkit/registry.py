"""The table of tasks: one row each, and nothing but data.

Figures of the bias-only settings are those published with the BEFT paper for BERT-base, BERT-large
and RoBERTa-base; rows with ``published=False`` have none, and a comment says what we took.
Revisions are the commits of ``nyu-mll/glue`` and ``aps/super_glue`` that hold Parquet files and no
loading script.

A row describes the examples as an encoder reads them. What a causal model needs besides (a prompt,
the answers to choose from) would be further columns, empty where a task has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from string import Formatter
from typing import Any, Literal

Regime = Literal["low", "medium", "high"]
REGIMES: tuple[Regime, ...] = ("low", "medium", "high")
#: how a task meets a model: a module of `beftkit.objectives` each
Kind = Literal["classes", "values"]
#: tokens per example, special ones included, unless a task or the user says otherwise
MAX_LENGTH = 128

GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SUPER_GLUE = "3de24cf8022e94f4ee4b9d55a6f539891524d646"


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Where a task lies on the hub.

    Attributes:
        repo: owner/name of the dataset.
        config: configuration of that dataset.
        revision: the commit that is read unless another is asked for.
        train: name of the training split.
    """

    repo: str
    config: str
    revision: str
    train: str = "train"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a task's files lie in a folder as GLUE or SuperGLUE ships them.

    Attributes:
        folder: usual name of the task's folder; case and hyphens do not matter.
        train: name of the training file.
        validation: one file for each of the task's validation splits.
        kind: ``tsv`` (nothing is quoted) or ``jsonl``.
        renamed: columns of the hub that have another name in the file.
        label: column of the label.
        header: column names of a file that has no header line.
        raw_labels: how the file writes the labels, in id order; empty: as the hub names them.
        skip_short: leave rows out that lack columns. Only QQP: some of its questions hold a line
            break, and everyone drops these rows.
        held_out: file that lists, as values of the columns ``held_out_by``, which rows of the
            training file are the validation set.
    """

    folder: str
    train: str
    validation: tuple[str, ...]
    kind: Literal["tsv", "jsonl"]
    renamed: Mapping[str, str] = field(default_factory=dict)
    label: str = "label"
    header: tuple[str, ...] = ()
    raw_labels: tuple[str, ...] = ()
    skip_short: bool = False
    held_out: str = ""
    held_out_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        name: what the user types.
        fields: the one or two texts of an example, as templates over the hub's columns. WiC asks
            about a word, which has to reach the encoder too: its first text is
            ``{word}: {sentence1}``.
        kind: how it meets a model.
        labels: names in id order, as in the hub's ``ClassLabel``; empty where there are none.
        metrics: names of `beftkit.tasks.metrics`; the first one picks the best epoch.
        hub: where it lies on the hub.
        layouts: how its files lie in a folder, most usual first.
        validation: names of the validation splits, on the hub and in results.
        sizes: training examples per regime; a task may have ``low`` only.
        lr: learning rate where only biases (and the classifier) are trained.
        epochs: for BERT-base.
        epochs_large: for BERT-large and RoBERTa; None: the same.
        max_length: tokens per example, special ones included.
        published: False where the settings are ours.
    """

    name: str
    kind: Kind = "classes"
    fields: tuple[str, ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...]
    hub: HubSource
    layouts: tuple[Layout, ...]
    sizes: Mapping[Regime, int]
    lr: float
    epochs: int
    epochs_large: int | None = None
    validation: tuple[str, ...] = ("validation",)
    max_length: int = MAX_LENGTH
    published: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The hub's columns that the fields are made of, in the order of their first use."""
        return tuple(dict.fromkeys(chain.from_iterable(map(columns_of, self.fields))))

    def settings(self, *, large: bool) -> tuple[float, int]:
        """Learning rate and epochs; ``large`` for the geometry of BERT-large, and for RoBERTa."""
        return self.lr, (large and self.epochs_large) or self.epochs


def columns_of(template: str) -> tuple[str, ...]:
    """The columns that a template such as ``{word}: {sentence1}`` uses, in order."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))


_tsv = partial(Layout, kind="tsv", train="train.tsv", validation=("dev.tsv",))
_jsonl = partial(Layout, kind="jsonl", train="train.jsonl", validation=("val.jsonl",))


def _published(
    repo: str, revision: str, name: str, lr: float, epochs: int, epochs_large: int | None = None
) -> dict[str, Any]:
    """A row's name, place on the hub, learning rate, and epochs of base and of large models."""
    hub = HubSource(repo=repo, config=name, revision=revision)
    return {"name": name, "hub": hub, "lr": lr, "epochs": epochs, "epochs_large": epochs_large}


_glue = partial(_published, "nyu-mll/glue", GLUE)
_super_glue = partial(_published, "aps/super_glue", SUPER_GLUE)

_DIGITS = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("{sentence1}", "{sentence2}")
_mrpc = partial(
    _tsv,
    folder="MRPC",
    label="Quality",
    renamed={"sentence1": "#1 String", "sentence2": "#2 String"},
    raw_labels=_DIGITS,
)

_ROWS = (
    Task(
        **_glue("cola", 7e-4, 16),
        fields=("{sentence}",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews",),
        layouts=(
            _tsv(folder="CoLA", header=("source", "label", "mark", "sentence"), raw_labels=_DIGITS),
        ),
        sizes={"low": 1710, "medium": 3420, "high": 4275},
    ),
    Task(
        **_glue("sst2", 4e-4, 16, 30),
        fields=("{sentence}",),
        labels=("negative", "positive"),
        metrics=("accuracy",),
        layouts=(_tsv(folder="SST-2", raw_labels=_DIGITS),),
        sizes={"low": 1000, "medium": 5000, "high": 11000},
    ),
    Task(
        **_glue("mrpc", 7e-4, 60),
        fields=_PAIR,
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        layouts=(
            _mrpc(),
            # As Microsoft ships it: GLUE's validation set is part of the training file.
            _mrpc(
                train="msr_paraphrase_train.txt",
                validation=("msr_paraphrase_train.txt",),
                held_out="dev_ids.tsv",
                held_out_by=("#1 ID", "#2 ID"),
            ),
        ),
        sizes={"low": 367, "medium": 1191, "high": 1835},
    ),
    Task(
        **_glue("stsb", 1e-4, 60),
        kind="values",
        fields=_PAIR,
        metrics=("spearman", "pearson"),
        layouts=(_tsv(folder="STS-B", label="score"),),
        sizes={"low": 287, "medium": 1150, "high": 2300},
    ),
    Task(
        **_glue("qqp", 4e-4, 30),
        fields=("{question1}", "{question2}"),
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        layouts=(_tsv(folder="QQP", label="is_duplicate", raw_labels=_DIGITS, skip_short=True),),
        sizes={"low": 1000, "medium": 5000, "high": 9000},
    ),
    Task(
        **_glue("mnli", 1e-4, 30),
        fields=("{premise}", "{hypothesis}"),
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        validation=("validation_matched", "validation_mismatched"),
        layouts=(
            _tsv(
                folder="MNLI",
                validation=("dev_matched.tsv", "dev_mismatched.tsv"),
                label="gold_label",
                renamed={"premise": "sentence1", "hypothesis": "sentence2"},
            ),
        ),
        sizes={"low": 1000, "medium": 5000, "high": 9000},
    ),
    Task(
        **_glue("qnli", 1e-4, 30),
        fields=("{question}", "{sentence}"),
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        layouts=(_tsv(folder="QNLI"),),
        sizes={"low": 1000, "medium": 5000, "high": 9000},
    ),
    Task(
        **_glue("rte", 1e-3, 30),
        fields=_PAIR,
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        layouts=(
            _tsv(folder="RTE"),
            _jsonl(folder="RTE", renamed={"sentence1": "premise", "sentence2": "hypothesis"}),
        ),
        sizes={"low": 300, "medium": 900, "high": 1200},
    ),
    Task(
        **_glue("wnli", 1e-3, 30),
        fields=_PAIR,
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
        layouts=(_tsv(folder="WNLI", raw_labels=_DIGITS),),
        # Ours: shares of the 635 examples as MRPC's of its own, the rest as RTE.
        sizes={"low": 64, "medium": 200, "high": 320},
        published=False,
    ),
    Task(
        **_super_glue("cb", 1e-3, 60),
        fields=("{premise}", "{hypothesis}"),
        labels=("entailment", "contradiction", "neutral"),
        # Macro F1 first: accuracy hardly moves where a class has 16 of 250 examples.
        metrics=("macro_f1", "accuracy"),
        layouts=(_jsonl(folder="CB"),),
        sizes={"low": 250},
    ),
    Task(
        **_super_glue("wic", 1e-3, 16, 30),
        fields=("{word}: {sentence1}", "{sentence2}"),
        labels=("False", "True"),
        metrics=("accuracy",),
        layouts=(_jsonl(folder="WiC"),),
        sizes={"low": 1000},  # the published number of examples is not stated
    ),
    Task(
        **_super_glue("boolq", 1e-3, 16, 30),
        fields=("{question}", "{passage}"),
        labels=("False", "True"),
        metrics=("accuracy",),
        layouts=(_jsonl(folder="BoolQ"),),
        # Ours: QNLI's sizes (there are 9427 examples), the rest as WiC.
        sizes={"low": 1000, "medium": 5000, "high": 9000},
        published=False,
    ),
)
TASKS: dict[str, Task] = {row.name: row for row in _ROWS}
