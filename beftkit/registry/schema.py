"""What a row of the table of tasks holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from string import Formatter
from typing import Literal

Regime = Literal["low", "medium", "high"]
REGIMES: tuple[Regime, ...] = ("low", "medium", "high")
#: how a task meets a model: a module of `beftkit.objectives` each
Kind = Literal["classes", "values", "choice", "generation", "language"]
#: tokens per example, special ones included, unless a task or the user says otherwise
MAX_LENGTH = 128

GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SUPER_GLUE = "3de24cf8022e94f4ee4b9d55a6f539891524d646"


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Where a task lies on the hub.

    Attributes:
        repo: owner/name of the dataset.
        config: configuration of that dataset; empty: the only one.
        revision: the commit that is read unless another is asked for.
        train: name of the training split.
        nested: as in `Layout`.
    """

    repo: str
    config: str
    revision: str
    train: str = "train"
    nested: str = ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a task's files lie in a folder as GLUE or SuperGLUE ships them.

    Attributes:
        folder: usual name of the task's folder; case and hyphens do not matter.
        train: name of the training file.
        validation: one file for each of the task's validation splits.
        kind: ``tsv`` (nothing is quoted), ``jsonl``, or one ``json`` document.
        renamed: columns of the hub that have another name in the file.
        label: column of the label.
        header: column names of a file that has no header line.
        raw_labels: how the file writes the labels, in id order; empty: as the hub names them.
        skip_short: leave rows out that lack columns. Only QQP: some of its questions hold a line
            break, and everyone drops these rows.
        held_out: file that lists, as values of the columns ``held_out_by``, which rows of the
            training file are the validation set.
        nested: which of `beftkit.tasks.nested` makes a prompt's rows, where the records are no rows
            of texts; empty: they are.
    """

    folder: str
    train: str
    validation: tuple[str, ...]
    kind: Literal["tsv", "jsonl", "json"]
    renamed: Mapping[str, str] = field(default_factory=dict)
    label: str = "label"
    header: tuple[str, ...] = ()
    raw_labels: tuple[str, ...] = ()
    skip_short: bool = False
    held_out: str = ""
    held_out_by: tuple[str, ...] = ()
    nested: str = ""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a causal model is asked, and how it is trained then: figures published for OPT.

    Attributes:
        text: template of the prompt, over the example's columns as ``rule`` leaves them; blanks at
            its end are taken off.
        answers: templates of the answers, each with the blank or line feed that parts it from the
            prompt. One for each label in id order; or a single one over ``{option}``, filled with
            each of an example's own options; or over ``{answer}``, with the first right answer.
        rule: function of `beftkit.tasks.prompts` that changes the columns first; empty: none.
        columns: what an example must have, where that is more than what the templates use.
        kind: ``choice`` among the answers, or ``generation`` of one.
        metrics: names of `beftkit.tasks`' metrics; the first one picks the best epoch.
        loss: of a choice: cross entropy over the ``answers``' mean log-likelihoods, or the token
            loss of the ``right`` answer.
        lr: learning rate, decayed linearly.
        epochs: times over the training examples.
        batch_size: examples a step.
        examples: for training, and as many for evaluation, where the task has them.
        max_length: tokens of prompt and answer.
    """

    text: str
    answers: tuple[str, ...]
    rule: str = ""
    columns: tuple[str, ...] = ()
    kind: Literal["choice", "generation"] = "choice"
    metrics: tuple[str, ...] = ("accuracy",)
    loss: Literal["answers", "right"] = "answers"
    lr: float = 1e-3
    epochs: int = 5
    batch_size: int = 8
    examples: int = 1000
    max_length: int = 2048

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that an example must have."""
        used = (columns_of(template) for template in (self.text, *self.answers))
        return self.columns or tuple(dict.fromkeys(chain.from_iterable(used)))


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        name: what the user types.
        fields: the one or two texts of an example, as templates over the hub's columns. WiC asks
            about a word, which has to reach the encoder too: its first text is
            ``{word}: {sentence1}``. Empty where no encoder reads the task.
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
        prompt: what a causal model is asked; None: nothing.
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
    prompt: Prompt | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The hub's columns that the fields are made of, in the order of their first use."""
        return tuple(dict.fromkeys(chain.from_iterable(map(columns_of, self.fields))))

    def asked(self, kind: Kind) -> bool:
        """Whether a model that meets the task in this manner is asked its prompt."""
        return self.prompt is not None and kind == self.prompt.kind

    def columns_as(self, kind: Kind) -> tuple[str, ...]:
        """The hub's columns of an example's texts, as a model that meets it so is given them."""
        if self.prompt is None or not self.asked(kind):
            return self.columns
        needs = self.columns or self.prompt.needs  # the same, in the order of the fields
        written = self.prompt.kind == "generation"  # then answers are what is asked for
        return tuple(name for name in needs if not (written and name == "answers"))

    def texts_as(self, kind: Kind) -> tuple[str, ...]:
        """An example's texts, as templates over `columns_as`; a prompt is made of columns."""
        if not self.asked(kind):
            return self.fields
        return tuple(f"{{{name}}}" for name in self.columns_as(kind))

    def sizes_as(self, kind: Kind) -> Mapping[Regime, int]:
        """Training examples per regime; of prompts one size is published."""
        if self.prompt is None or not self.asked(kind) or not self.fields:
            return self.sizes
        return {"low": self.prompt.examples}

    def metrics_as(self, kind: Kind) -> tuple[str, ...]:
        """Metrics, the first of which picks the best epoch."""
        return self.prompt.metrics if self.prompt and self.asked(kind) else self.metrics

    @property
    def labelled(self) -> bool:
        """Whether an example has a label; else its answers are among its columns."""
        return bool(self.labels) or self.kind == "values"

    def settings(self, *, large: bool) -> tuple[float, int]:
        """Learning rate and epochs; ``large`` for the geometry of BERT-large, and for RoBERTa."""
        return self.lr, (large and self.epochs_large) or self.epochs


def columns_of(template: str) -> tuple[str, ...]:
    """The columns that a template such as ``{word}: {sentence1}`` uses, in order."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))
