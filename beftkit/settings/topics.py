"""What every part of settings is made with: topics, described fields, and a common base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beftkit.settings.names import renamed

MODEL, WHAT, DATA = "Model", "What trains", "Data"
OPTIMISATION, DEVICE = "Optimisation", "Precision and device"
EVALUATION, OUTPUT = "Evaluation and logging", "Output"


def described(default: Any, panel: str, description: str, **rules: Any) -> Any:
    """A field that is a flag as well: its help, its topic, other spellings as ``aliases``.

    ``former``: names of fields that are taken for it and shown nowhere.
    """
    extra = {name: rules.pop(name, ()) for name in ("aliases", "former")} | {"panel": panel}
    return Field(default, description=description, json_schema_extra=extra, **rules)


def topic(panel: str) -> Callable[..., Any]:
    """A field of this topic: its default, its description, its rules."""
    return lambda default, text, **rules: described(default, panel, text, **rules)


of_model, of_choice, of_data, of_course, of_device, of_evaluation, of_output = map(
    topic, (MODEL, WHAT, DATA, OPTIMISATION, DEVICE, EVALUATION, OUTPUT)
)


class Part(BaseModel):
    """What all settings have in common: no unknown key, no change afterwards, paths are texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = renamed(cls, values)
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
