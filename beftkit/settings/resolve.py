"""From a YAML file and flags to a settings object, once, and back to YAML and flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from beftkit.errors import BeftError, UsageError
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.names import renamed
from beftkit.settings.predict import ExportSettings, PredictSettings
from beftkit.settings.select import SelectSettings
from beftkit.settings.sentences import sentence
from beftkit.settings.topics import Part
from beftkit.settings.train import TrainSettings
from beftkit.spelling import flag_of

#: what loads data and a model
Loading = TrainSettings | FisherSettings | EvaluateSettings
#: what loads a model
Opening = Loading | PredictSettings | ExportSettings
#: in the place of a run's rate: a sweep finds it (`beftkit.runs.rate_search`)
FIND = "find"
#: what a YAML file of settings may hold: levels, and values with every alias written out
_DEEPEST, _MOST = 20, 10_000
_Settings = TypeVar("_Settings", bound=Part)


def resolve(kind: type[_Settings], file: str | Path | None, flags: Mapping[str, Any]) -> _Settings:
    """Settings from a YAML file and flags; a flag that was given (is not None) wins.

    Raises:
        UsageError: an unknown key, or a value that does not fit.
    """
    held, given = _both(kind, file, flags)
    return checked(kind, {**held, **given}, file, {*held} - {*given})


def _both(
    kind: type[Part], file: str | Path | None, flags: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file holds and what flags were given, under the names of today."""
    held = renamed(kind, read_yaml(file)) if file else {}
    given = renamed(kind, {key: value for key, value in flags.items() if value is not None})
    return held, given


def asked_to_find(file: str | Path | None, flags: Mapping[str, Any]) -> bool:
    """Whether a run's rate is to be found: flags say ``lr: find``, or else the YAML file."""
    if flags.get("lr") is not None:
        return bool(flags["lr"] == FIND)
    return bool(file) and read_yaml(file or "").get("lr") == FIND


def resolve_train(
    file: str | Path | None, flags: Mapping[str, Any], *, find: bool = False
) -> TrainSettings:
    """A run's settings, which need a model.

    Args:
        file, flags: as of `resolve`.
        find: the rate is to be found (`asked_to_find`), so where they say that they say none.

    Raises:
        UsageError: as `resolve`, or no model.
    """
    held, given = _both(TrainSettings, file, flags)
    for one in (held, given) if find else ():
        if one.get("lr") == FIND:
            del one["lr"]
    found = checked(TrainSettings, {**held, **given}, file, {*held} - {*given})
    return _with_model(found)


def resolve_select(file: str | Path | None, flags: Mapping[str, Any]) -> SelectSettings:
    """A selection's settings; a task without regimes has the low one.

    Raises:
        UsageError: as `resolve`, no model, or a setting that a selection decides cell by cell.
    """
    held, given = _both(SelectSettings, file, flags)
    refused = sorted(key for key in {**held, **given} if key in SelectSettings.CELLWISE)
    if refused:
        why = "is set by the selection itself, cell by cell; leave it out"
        if refused[0] not in given:
            raise BeftError(f"{file}: {refused[0]} {why}")
        raise UsageError(f"{flag_of(refused[0])} {why}")
    found = checked(SelectSettings, {**held, **given}, file, {*held} - {*given})
    if found.train_file is None and found.train_size is None and not found.regimes:
        found = found.model_copy(update={"regimes": ("low",)})
    return found


def cell_settings(select: SelectSettings, changes: Mapping[str, Any]) -> TrainSettings:
    """The settings of one run of a selection: its own, and what the cell decides.

    Raises:
        UsageError: what they share makes no sense for a run, or no model.
    """
    shared = {name: getattr(select, name) for name in SelectSettings.SHARED}
    return _with_model(checked(TrainSettings, {**shared, **changes}))


def select_for_run(run: TrainSettings) -> SelectSettings:
    """The settings of the selection that ``bias: auto`` makes first: a grid of the run's place."""
    names = (*SelectSettings.SHARED, "seeds", "train_size")
    given: dict[str, Any] = {"probe_steps": run.max_steps}
    given |= {name: one for name in names if (one := getattr(run, name)) not in (None, ())}
    if run.task is not None and run.train_size is None:
        given["regimes"] = (run.regime or "all",)
    if run.lr is not None:
        given["lrs"] = (run.lr,)
    if run.epochs is not None:
        given["epochs"] = (run.epochs,)
    return resolve_select(None, given)


def _with_model(settings: TrainSettings) -> TrainSettings:
    if not settings.model:
        raise UsageError("no model was given; expected a model folder, or owner/name on the hub")
    return settings


def checked(
    kind: type[_Settings],
    values: Mapping[str, Any],
    file: str | Path | None = None,
    of_file: Iterable[str] = (),
) -> _Settings:
    """Settings of this kind from plain values, some of which a file gave.

    Raises:
        UsageError: an unknown key, or a value that does not fit, in a sentence.
        BeftError: the same, of the file's values.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        problems = error.errors()
        first = {problem["loc"][:1]: problem for problem in reversed(problems)}  # of each field
        said = "; ".join(sentence(first[place], kind) for place in reversed(first))
    places = {problem["loc"][0] if problem["loc"] else "" for problem in problems}
    if places <= {*of_file}:
        raise BeftError(f"{file}: {UsageError(said)}")
    raise UsageError(said)


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A mapping of settings from a YAML file.

    Raises:
        BeftError: not there, not YAML, nested or repeated without measure, or not a mapping.
    """
    import yaml

    try:
        text = Path(file).read_text(encoding="utf-8")
        if problem := _overgrown(text):
            raise BeftError(f"{file}: {problem}; expected settings such as `lr: 0.001`, one a line")
        found = yaml.safe_load(text)
    except BeftError:
        raise
    except OSError as error:
        raise BeftError(f"{file}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise BeftError(f"{file}: not a YAML file ({reason[:200]})") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BeftError(f"{file}: expected settings such as `lr: 0.001`, one a line")
    return found


def _overgrown(text: str) -> str | None:
    """What is too much in a YAML text, if anything; told from its events, before it is built.

    Aliases cost nothing to write: nine lines of them stand for a thousand million values.
    """
    import yaml

    sizes: dict[str, int] = {}  # of what an alias stands for
    opened: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                return f"the alias *{event.anchor} stands within what it stands for, or for nothing"
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, count))
            count += 1
            if len(opened) > _DEEPEST:
                return f"nested more than {_DEEPEST} deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > _MOST:
            return f"holds more than {_MOST} values, its aliases written out"
    return None


def settings_yaml(settings: TrainSettings) -> str:
    """The settings as YAML that `resolve` reads back to an equal value."""
    import yaml

    return str(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def flags_of(settings: Part, names: Iterable[str]) -> list[str]:
    """The flags of those settings that are not their default, and what trains in any case."""
    words: list[str] = []
    for name in names:
        field, value = type(settings).model_fields[name], getattr(settings, name)
        if value is None or (value == field.default and name != "bias"):
            continue
        flag = flag_of(name)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple) and get_args(field.annotation)[0] is str:
            words += [word for one in value for word in (flag, str(one))]
        elif isinstance(value, tuple):
            words += [flag, ",".join(map(_short, value))]
        else:
            words += [flag, _short(value)]
    return words


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
