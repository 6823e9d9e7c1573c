"""A command's options from the typed definition of its settings, listed by topic."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from beftkit.app.common import CONVENTIONS
from beftkit.app.help import HelpfulCommand
from beftkit.settings.names import former_names
from beftkit.settings.topics import OUTPUT
from beftkit.spelling import flag_of


def late_command(name: str, function: Callable[..., None], short_help: str, **options: Any) -> Any:
    """A command that is built when it is asked for, under the conventions of all of ours."""
    app = typer.Typer(**CONVENTIONS)
    options = {"cls": HelpfulCommand, "no_args_is_help": True, **options}
    app.command(name, short_help=short_help, **options)(function)
    return typer.main.get_command(app)


def panel(panel: str, help: str, *names: str, **rest: Any) -> Any:
    """An option listed under a topic; its help says what the default is."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **rest)


def flag(help: str, *names: str, **rest: Any) -> Any:
    """An option that is no setting, listed among those of the output."""
    return panel(OUTPUT, help, *names, **rest)


def with_settings(
    function: Callable[..., None], settings: type[BaseModel], names: Iterable[str]
) -> Callable[..., None]:
    """Give a function whose last parameter is ``**flags`` one option for each of some settings.

    The model is an argument, and the function's own.
    Every option's default is None, so that what was given is known; the help shows the field's own.
    """
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    fields = {n: settings.model_fields[n] for n in names if n != "model"}
    as_run = getattr(settings, "AS_RUN", ())
    kinds = {n: _option(n, field, as_run=n in as_run) for n, field in fields.items()}
    formerly = {old: now for old, now in former_names(settings).items() if now in fields}
    kinds |= {old: _option(old, fields[now], hidden=True) for old, now in formerly.items()}
    keyword = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY, default=None)
    options = [keyword(name, annotation=kind) for name, kind in kinds.items()]

    def command(**given: Any) -> None:
        # An option that may come several times and did not is an empty list.
        function(**{key: None if one == [] else one for key, one in given.items()})

    # The argument first, then the fields by topic, then what is no setting of a run.
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
    parameters = [own[0], *options, *own[1:]]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def _option(name: str, field: FieldInfo, *, hidden: bool = False, as_run: bool = False) -> Any:
    extra: Any = field.json_schema_extra or {}
    dashed = flag_of(name)
    kind, metavar = _plain(field.annotation)
    text = field.description or ""
    default = "  [default: as in the run, else {}]" if as_run else "  [default: {}]"
    if kind is bool:
        declarations = [f"{dashed}/--no-{dashed[2:]}"]
        text += default.format("on") if field.default else ""
    else:
        declarations = [dashed, *(() if hidden else extra.get("aliases", ()))]
        shown = _shown(field.default)
        text += default.format(shown) if shown else ""
    rest = {"metavar": metavar, "hidden": hidden}
    return Annotated[kind | None, panel(extra["panel"], text, *declarations, **rest)]


def _plain(annotation: Any) -> tuple[Any, str | None]:
    """What Typer parses a field's flag as, and its metavar."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is tuple:
        (kind, _) = get_args(annotation)
        if kind in (int, float):
            return str, "N,N,..."
        if get_origin(kind) is Literal:
            return str, ",".join(get_args(kind))
        return list[str], None  # given several times: names and paths may hold commas
    if get_origin(annotation) is Literal:
        return annotation, "|".join(get_args(annotation))
    if annotation in (int, float):  # the settings say what is wrong with a number, the same to all
        return str, f"<{annotation.__name__}>"
    return annotation, None


def _shown(default: Any) -> str:
    if default in (None, "", ()) or default is False:
        return ""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
