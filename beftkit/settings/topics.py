"""What every part of settings is made with: topics, described fields, and a common base."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beftkit.errors import option
from beftkit.settings.names import renamed

MODEL, WHAT, DATA = "Model", "What trains", "Data"
OPTIMISATION, DEVICE = "Optimisation", "Precision and device"
#: fields that name a file or folder
_PATHS = ("output", "train_file", "validation_file", "data_dir", "adapter")
#: the generators' own limit (numpy's, which transformers seeds as well)
LAST_SEED = 2**32 - 1
EVALUATION, OUTPUT = "Evaluation and logging", "Output"


def described(default: Any, panel: str, description: str, **rules: Any) -> Any:
    """A field that is a flag as well: its help, its topic, other spellings as ``aliases``.

    ``former``: names of fields that are taken for it and shown nowhere. ``words``: that a command
    takes in the place of a number.
    """
    known = "aliases", "former", "words"
    extra = {name: rules.pop(name, ()) for name in known} | {"panel": panel}
    return Field(default, description=description, json_schema_extra=extra, **rules)


def topic(panel: str) -> Callable[..., Any]:
    """A field of this topic: its default, its description, its rules."""
    return lambda default, text, **rules: described(default, panel, text, **rules)


of_model, of_choice, of_data, of_course, of_device, of_evaluation, of_output = map(
    topic, (MODEL, WHAT, DATA, OPTIMISATION, DEVICE, EVALUATION, OUTPUT)
)


class Part(BaseModel):
    """What all settings have in common: no unknown key, no change afterwards, paths are texts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = renamed(cls, values)
        for name in (one for one in _PATHS if values.get(one) == ""):  # not the place one is in
            raise ValueError(f"{option(name, '')}: empty; expected a path, or leave it out")
        return {key: str(one) if isinstance(one, Path) else one for key, one in values.items()}


def words_of(value: Any) -> Any:
    """``0,1,2``, a single value and a list are lists."""
    if isinstance(value, str):
        return [word for word in value.replace(" ", "").split(",") if word]
    return [value] if isinstance(value, int | float) else value


def metrics_of(value: Any) -> Any:
    """The same of metrics one by one, whose paths may hold a comma: names alone are parted."""
    if not isinstance(value, list | tuple):
        return words_of(value)
    words: list[Any] = []
    for one in value:
        listed = isinstance(one, str) and re.fullmatch(r"\w+(, *\w+)+", one)
        words += words_of(one) if listed else [one]
    return words


def seeds_checked(value: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds as they may be."""
    if min(value) < 0 or max(value) > LAST_SEED or len(set(value)) < len(value):
        raise ValueError(f"expected different whole numbers from 0 to {LAST_SEED}")
    return value
