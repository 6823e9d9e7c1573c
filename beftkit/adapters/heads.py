"""What a checkpoint says of its task: PEFT's type, and the tensors of its head, by names alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beftkit.adapters.reading import plain
from beftkit.adapters.tuned import HEADS_BY_TASK, SAVED_BY_TASK

#: end of an architecture's name -> PEFT's task type
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}
#: PEFT's task type -> the class that reads its models, and the hub's word for them
_READ_BY = {
    "SEQ_CLS": ("AutoModelForSequenceClassification", "text-classification"),
    "TOKEN_CLS": ("AutoModelForTokenClassification", "token-classification"),
    "QUESTION_ANS": ("AutoModelForQuestionAnswering", "question-answering"),
    "CAUSAL_LM": ("AutoModelForCausalLM", "text-generation"),
}


def pipeline_tag(task: str | None) -> str | None:
    """The hub's word for what models of a task type do; None: not known."""
    return _READ_BY[task][1] if task in _READ_BY else None


def peft_code(task: str | None, base: str, adapter: str, rows: int | None) -> list[str] | None:
    """Lines of Python by which PEFT puts an adapter onto its base; None: no class is known.

    Args:
        task: PEFT's task type.
        base: arguments of ``from_pretrained``, as code.
        adapter: its place, as code.
        rows: of the head that it brings; None: none.
    """
    if task not in _READ_BY:
        return None
    name, _ = _READ_BY[task]
    base += "" if rows is None else f", num_labels={rows}"
    return [
        "from peft import PeftModel",
        f"from transformers import {name}",
        "",
        f"base = {name}.from_pretrained({base})",
        f"model = PeftModel.from_pretrained(base, {adapter})",
    ]


#: transformers' word for labels of which several may be true of one text
MULTI_LABEL = "multi_label_classification"
#: the entry of an adapter's header that says so of its head
PROBLEM_TYPE = "beftkit.problem_type"


def architecture(config: Mapping[str, Any] | None) -> str:
    """The class that a checkpoint was saved from, or nothing."""
    names = (config or {}).get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def task_type(config: Mapping[str, Any] | None) -> str | None:
    """PEFT's task type of a checkpoint; None: a bare model, or one of another task."""
    return task_of_class(architecture(config))


def task_of_class(name: str) -> str | None:
    """PEFT's task type of a model's class; None: a bare model, or one of another task."""
    return next((kind for end, kind in _TASK_TYPES.items() if name.endswith(end)), None)


def problem_type(config: Mapping[str, Any] | None) -> str | None:
    """What a configuration says of its labels; None: nothing."""
    found = (config or {}).get("problem_type")
    return found if isinstance(found, str) else None


def head_modules(names: Iterable[str], task: str | None) -> dict[str, str]:
    """Which tensors belong to a task's head: name -> the module that PEFT saves whole.

    Args:
        names: of a checkpoint's tensors.
        task: PEFT's task type.
    """
    own, more = (which.get(task or "", ()) for which in (SAVED_BY_TASK, HEADS_BY_TASK))
    found = {}
    for name in names:
        parts = plain(name).split(".")
        at = next((n for n, part in enumerate(parts[:-1]) if own and part.endswith(own)), None)
        at = 0 if at is None and len(parts) > 1 and parts[0] in more else at
        if at is not None:
            found[name] = ".".join(parts[: at + 1])
    return found


def labels_of(config: Mapping[str, Any] | None, rows: int) -> tuple[str, ...] | None:
    """Names of a head's classes in the order of their numbers; None: not said; empty: values."""
    if rows == 1:
        return ()
    said = (config or {}).get("id2label")
    if not isinstance(said, dict) or {str(key) for key in said} != {str(n) for n in range(rows)}:
        return None
    found = {int(key): str(name) for key, name in said.items()}
    return tuple(found[n] for n in range(rows))
