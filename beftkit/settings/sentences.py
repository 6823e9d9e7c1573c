"""What pydantic finds wrong with a value, in our words."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from beftkit.errors import option
from beftkit.spelling import OF_OTHERS, flag_of, meant, nearest

_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "from",
    "less_than": "below",
    "less_than_equal": "up to",
}


def sentence(problem: Any, kind: type[BaseModel]) -> str:
    """What is wrong with one value, as a message of `beftkit.errors`."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        found = nearest(name, kind.model_fields, OF_OTHERS)
        known = f"expected some of {', '.join(kind.model_fields)}"
        return f"no setting {name!r}; " + (f"did you mean {flag_of(found)}?" if found else known)
    given, facts = problem["input"], problem.get("ctx") or {}
    match problem["type"]:
        case "literal_error":
            field: Any = kind.model_fields[name]
            words = _words(field.annotation)
            message = f"expected one of {', '.join(words)}{meant(str(given), words)}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal" as which:
            bound, how = next(iter(facts.values())), _BOUNDS[which]
            message = f"expected a number {how} {bound:g}"
        case "too_short":
            message = "expected at least one"
        case "int_parsing" | "int_type" | "int_from_float":
            message = "expected a whole number"
        case "float_parsing" | "float_type":
            extra: Any = kind.model_fields[name].json_schema_extra
            message = ", or ".join(["expected a number", *(extra or {}).get("words", ())])
        case "finite_number":
            message = "expected a finite number"
        case "bool_parsing" | "bool_type":
            message = "expected true or false"
        case "string_type":
            message = "expected a text"
            if isinstance(given, list | tuple | dict):  # shown as the text that is wanted
                message += f", several words with commas; given a {type(given).__name__}"
    message = message[:1].lower() + message[1:]
    return f"{option(name, given)}: {message}"


def _words(annotation: Any) -> list[str]:
    """The words that a field of a few takes."""
    found = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(map(str, found))
    return [word for one in found for word in _words(one)]
