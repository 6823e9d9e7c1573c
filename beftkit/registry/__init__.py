"""The table of tasks: one row each, and nothing but data.

Figures of the bias-only settings are those published with the BEFT paper for BERT-base, BERT-large
and RoBERTa-base; rows with ``published=False`` have none, and a comment says what we took.
Revisions are the commits of ``nyu-mll/glue`` and ``aps/super_glue`` that hold Parquet files and no
loading script.

A row describes the examples as an encoder reads them, and, in `Task.prompt`, what a causal model is
asked. Tasks that no encoder reads are in `beftkit.registry.prompted`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from beftkit.registry import prompts
from beftkit.registry.prompted import ROWS as PROMPTED_ROWS
from beftkit.registry.schema import GLUE as GLUE
from beftkit.registry.schema import MAX_LENGTH as MAX_LENGTH
from beftkit.registry.schema import REGIMES as REGIMES
from beftkit.registry.schema import SUPER_GLUE as SUPER_GLUE
from beftkit.registry.schema import HubSource as HubSource
from beftkit.registry.schema import Kind as Kind
from beftkit.registry.schema import Layout as Layout
from beftkit.registry.schema import Prompt as Prompt
from beftkit.registry.schema import Regime as Regime
from beftkit.registry.schema import Task as Task
from beftkit.registry.schema import columns_of as columns_of

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
        prompt=prompts.SST2,
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
        prompt=prompts.RTE,
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
        prompt=prompts.CB,
    ),
    Task(
        **_super_glue("wic", 1e-3, 16, 30),
        fields=("{word}: {sentence1}", "{sentence2}"),
        labels=("False", "True"),
        metrics=("accuracy",),
        layouts=(_jsonl(folder="WiC"),),
        sizes={"low": 1000},  # the published number of examples is not stated
        prompt=prompts.WIC,
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
        prompt=prompts.BOOLQ,
    ),
)
TASKS: dict[str, Task] = {row.name: row for row in (*_ROWS, *PROMPTED_ROWS)}
#: names of those that an encoder reads; the others are prompts for a causal model
ENCODED = tuple(name for name, task in TASKS.items() if task.fields)
#: names of those that commands take
OFFERED = tuple(TASKS)
