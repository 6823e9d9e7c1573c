"""Rows of the tasks that only a causal model is asked; their settings are those of the prompt."""

from __future__ import annotations

from typing import Any

from beftkit.registry import prompts
from beftkit.registry.schema import SUPER_GLUE, HubSource, Layout, Prompt, Task

SQUAD = "7b6d24c440a36b6815f21b70d25016731768db1f"

_FALSE_TRUE = ("False", "True")


def _asked(prompt: Prompt, examples: int | None = None) -> dict[str, Any]:
    """A row's prompt, and what follows from it.

    Args:
        examples: for training, where there are fewer than the prompt's.
    """
    return {
        "kind": prompt.kind, "fields": (), "prompt": prompt, "metrics": prompt.metrics,
        "lr": prompt.lr, "epochs": prompt.epochs, "max_length": prompt.max_length,
        "sizes": {"low": examples or prompt.examples},
    }  # fmt: skip


def _super_glue(
    name: str, folder: str, *, config: str = "", nested: str = "", hub_nested: str = ""
) -> dict[str, Any]:
    """A row's name, place on the hub, and folder as SuperGLUE ships it."""
    config = config or name
    files: dict[str, Any] = {"train": "train.jsonl", "validation": ("val.jsonl",), "kind": "jsonl"}
    hub = HubSource(repo="aps/super_glue", config=config, revision=SUPER_GLUE, nested=hub_nested)
    return {"name": name, "hub": hub, "layouts": (Layout(folder=folder, nested=nested, **files),)}


ROWS = (
    Task(
        # "fixed", as published: spans that are no part of their sentence are mended; the reader of
        # the original files does the same.
        **_super_glue("wsc", "WSC", config="wsc.fixed", nested="wsc"),
        **_asked(prompts.WSC, 554),
        labels=_FALSE_TRUE,
    ),
    Task(
        **_super_glue("multirc", "MultiRC", nested="multirc", hub_nested="multirc_hub"),
        **_asked(prompts.MULTIRC),
        labels=_FALSE_TRUE,
    ),
    Task(
        **_super_glue("copa", "COPA"),
        **_asked(prompts.COPA, 400),
        labels=("choice1", "choice2"),
    ),
    Task(
        **_super_glue("record", "ReCoRD", nested="record", hub_nested="record_hub"),
        **_asked(prompts.RECORD),
    ),
    Task(
        name="squad",
        hub=HubSource(
            repo="rajpurkar/squad", config="plain_text", revision=SQUAD, nested="squad_hub"
        ),
        layouts=(
            Layout(
                folder="SQuAD",
                train="train-v1.1.json",
                validation=("dev-v1.1.json",),
                kind="json",
                nested="squad",
            ),
        ),
        **_asked(prompts.SQUAD),
    ),
    Task(
        name="drop",
        # Keeps apart the spans of an answer, which ucinlp/drop does not; no commit is known to us.
        hub=HubSource(repo="EleutherAI/drop", config="", revision="main", nested="drop_hub"),
        layouts=(
            Layout(
                folder="DROP",
                train="drop_dataset_train.json",
                validation=("drop_dataset_dev.json",),
                kind="json",
                nested="drop",
            ),
        ),
        **_asked(prompts.DROP),
    ),
)
