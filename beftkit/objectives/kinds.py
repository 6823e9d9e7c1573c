"""How a task meets a model where both ways are open: by the architecture, or as the user says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.errors import BeftError, UsageError, option
from beftkit.models import load_config
from beftkit.registry import OFFERED, TASKS, Kind, Task
from beftkit.settings.predict import PredictSettings

if TYPE_CHECKING:
    from beftkit.settings.resolve import Loading

#: types that have a causal class and see the whole text all the same, unless ``is_decoder`` is set;
#: as do all that have a class for masked tokens
SEEING_ALL = ("bert-generation", "cpmant", "xlnet")
_WITH_HEAD = "ForSequenceClassification"
_CAUSAL = ("ForCausalLM", "LMHeadModel")


def is_language_model(settings: PredictSettings) -> bool:
    """Whether a prompt is all that a checkpoint can be asked: causal, and without a classifier."""
    s = settings
    config = load_config(s.model, revision=s.revision, trust_remote_code=s.trust_remote_code)
    return is_causal(config) and not has_classifier(config)


def kind_of(settings: Loading | PredictSettings) -> tuple[Kind | None, tuple[str, ...]]:
    """How the examples that settings name meet their model.

    Said by ``as_``, else by the architecture that the checkpoint's configuration names, else by the
    type of the model: a decoder is asked a prompt, all others have a head over the text.

    Returns:
        None for tasks of encoders, and for files of the user's own that are neither language nor
        have a prompt: as the data have it. And notes.

    Raises:
        BeftError: a prompt for a model that is no causal one.
        UsageError: what does not go together.
    """
    s = settings
    task = TASKS.get(s.task or "")
    own = getattr(s, "answer_column", None)
    if own or (task and task.kind == "generation"):
        _check_writes(s, own)
        return "generation", ()
    if s.as_ == "language" and s.task:
        raise UsageError(
            f"{option('as', s.as_)}: is for files of your own (--train-file, --validation-file); "
            f"{option('task', s.task)} has answers of its own"
        )
    if s.task is None and s.template is not None:
        return _own_asked(s)
    if not s.task and s.as_ != "choice":
        return (None, ()) if isinstance(s, PredictSettings) else kind_of_files(s)
    if task is None or task.prompt is None:
        if s.as_ == "choice":
            asked = ", ".join(n for n in OFFERED if TASKS[n].prompt)
            raise UsageError(
                f"{option('as', s.as_)}: there are prompts for {asked}; expected one of these "
                "tasks, or --template"
            )
        return None, ()
    if not task.fields:
        return _only_asked(task, s)
    if s.as_ == "classes" or (s.as_ is None and s.head == "fresh"):
        return "classes", ()
    if s.head == "fresh":
        raise UsageError(
            f"--new-head: with {option('as', s.as_)} there is no classifier; expected one of the "
            "two"
        )
    config = load_config(s.model, revision=s.revision, trust_remote_code=s.trust_remote_code)
    causal = is_causal(config)
    if s.as_ is None:
        return _by_architecture(task, s.model, config, causal)
    if not causal:
        raise BeftError(_no_causal(option("as", s.as_), s.model, config))
    return task.prompt.kind, ()


def _check_writes(settings: Loading | PredictSettings, column: str | None) -> None:
    """Refuse what does not go with answers that are written."""
    s = settings
    names = ("label_column", "label_map", *(["task"] if column else []))
    given = {"as": s.as_, **{one: getattr(s, one, None) for one in names}}
    name = option("answer_column", column) if column else option("task", s.task)
    others = [option(key, value) for key, value in given.items() if value]
    others += ["--new-head"] if s.head == "fresh" else []
    if others:
        raise UsageError(
            f"{others[0]}: {name} has answers that are written; expected one of the two"
        )
    config = load_config(s.model, revision=s.revision, trust_remote_code=s.trust_remote_code)
    if not is_causal(config):
        raise BeftError(
            f"{name}: {s.model} ({config.model_type}) is no causal language model, so it writes no "
            "text; expected a decoder"
        )


def _only_asked(task: Task, settings: Loading | PredictSettings) -> tuple[Kind, tuple[str, ...]]:
    """A task that no model with a head reads."""
    assert task.prompt is not None
    _check_asks(option("task", task.name), settings)
    return task.prompt.kind, ()


def _own_asked(settings: Loading | PredictSettings) -> tuple[Kind, tuple[str, ...]]:
    """Files of the user's own that a template is for."""
    _check_asks("--template", settings)
    return "choice", ()


def _check_asks(place: str, settings: Loading | PredictSettings) -> None:
    """Refuse what no prompt can be asked of, or a classifier beside one.

    Raises:
        BeftError: the model is no causal one.
        UsageError: a classifier is asked for.
    """
    s = settings
    if s.as_ == "classes" or s.head == "fresh":
        flag = "--new-head" if s.head == "fresh" else option("as", s.as_)
        raise UsageError(
            f"{flag}: {place} is a prompt for a causal language model, without a classifier; leave "
            "it out"
        )
    config = load_config(s.model, revision=s.revision, trust_remote_code=s.trust_remote_code)
    if not is_causal(config):
        raise BeftError(_no_causal(place, s.model, config))


def _no_causal(place: str, model: str, config: Any) -> str:
    return (
        f"{place}: {model} ({config.model_type}) is no causal language model, so it sees an answer "
        "before it tells how likely that is; expected a decoder"
    )


def _by_architecture(
    task: Task, model: str, config: Any, causal: bool
) -> tuple[Kind | None, tuple[str, ...]]:
    assert task.prompt is not None
    headed = has_classifier(config)
    if not causal:
        return "classes", ()
    if headed:
        note = f"{model} has a classifier, which {task.name} trains and measures; --as choice"
        return "classes", (f"{note} asks it as a language model",)
    kind = task.prompt.kind
    note = f"{model} is a causal language model: {task.name} is asked as a prompt ({kind})"
    return kind, (f"{note}; --as classes puts a classifier on it",)


def kind_of_files(settings: Loading) -> tuple[Kind | None, tuple[str, ...]]:
    """How files of the user's own meet their model: as language, where nothing in settings or files
    speaks of labels, and the model is a causal one; else, None, as the labels are.

    Raises:
        BeftError: language for a model that is no causal one, or a file that cannot be opened, or
            holds several things that could be learnt.
        UsageError: language, and labels.
    """
    s = settings
    file = s.train_file or s.validation_file
    wanted = s.as_ == "language"
    labels = [n for n in ("label_column", "label_map", "regression") if getattr(s, n)]
    labels += ["new_head"] if s.head == "fresh" else []
    if wanted and labels:
        given = option(labels[0], getattr(s, labels[0]))
        raise UsageError(f"{option('as', s.as_)} and {given}: language has no labels; expected one")
    if s.as_ == "classes" or labels or file is None:
        return None, ()
    config = load_config(s.model, revision=s.revision, trust_remote_code=s.trust_remote_code)
    if not is_causal(config):
        if wanted:
            raise BeftError(
                f"{option('as', s.as_)}: {s.model} ({config.model_type}) is no causal language "
                "model, so it does not write texts; expected a decoder"
            )
        return None, ()
    if wanted:
        return "language", ()
    return (None, ()) if has_classifier(config) else _by_columns(s, Path(file))


def _by_columns(settings: Loading, file: Path) -> tuple[Kind | None, tuple[str, ...]]:
    from beftkit.tasks.own_files import USUAL_LABELS
    from beftkit.tasks.own_language import language_columns, usual_language
    from beftkit.tasks.streams import stream_file

    s = settings
    given = s.text_columns.split(",") if s.text_columns else None
    present = stream_file(file, lambda names: names, quotes=s.quotes).columns
    able = usual_language(present)
    label = next((name for name in USUAL_LABELS if name in present), None)
    if label is not None and (given or not {*able} - {("text",)}):
        note = f"{file}: column {label!r} is taken for the label"
        return None, ((f"{note}; --as language learns the texts instead",) if able else ())
    if not able and given is None:
        return None, ()
    names = ", ".join(map(repr, language_columns(str(file), present, given)))
    note = f"{s.model} is a causal language model and {file} has no label: {names} learnt as"
    return "language", (f"{note} language; --label-column makes classes of it",)


def has_classifier(config: Any) -> bool:
    """Whether a checkpoint says that it has a classifier."""
    return any(name.endswith(_WITH_HEAD) for name in config.architectures or ())


def is_causal(config: Any) -> bool:
    """Whether a language model of this configuration sees of a text only what came before."""
    from transformers.models.auto import modeling_auto as known

    if config.is_encoder_decoder:
        return False
    kind = config.model_type
    seeing = kind in SEEING_ALL or kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if seeing and not getattr(config, "is_decoder", False):
        return False
    own = getattr(config, "auto_map", None) or {}
    named = any(str(one).endswith(_CAUSAL) for one in config.architectures or ())
    return named or kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in own
