"""An adapter and its base, or a whole model: which are meant, and one put on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from beftkit.adapters import SAVED_BY_TASK, base_elsewhere, is_adapter, meant
from beftkit.adapters.heads import MULTI_LABEL, PROBLEM_TYPE, labels_of, problem_type
from beftkit.checkpoints import model_reference, open_checkpoint
from beftkit.errors import BeftError, UsageError
from beftkit.models import Loaded
from beftkit.runs.based import BaseSaid, compared
from beftkit.runs.bases import check_revision
from beftkit.runs.said import Said
from beftkit.runs.standing import Standing
from beftkit.settings.evaluate import EvaluateSettings
from beftkit.settings.predict import ExportSettings, PredictSettings
from beftkit.weights import AdapterInfo, adapter_info, apply_adapter

#: PEFT's word for adapters whose head is one over a whole text
_TASK_TYPES = (None, "SEQ_CLS")

Settings = TypeVar("Settings", EvaluateSettings, PredictSettings, ExportSettings)


@dataclass(frozen=True)
class Named(Generic[Settings]):
    """What settings name, looked at.

    Attributes:
        settings: with the base, its revision and the tokenizer that the adapter names, where
            nothing else was given; of a run's folder what it made.
        info: of the adapter; None: a whole model.
        standing: what the adapter says beside.
        had: how the run evaluated, as far as the adapter says so.
        labels: of its head, in id order, where it brings one; empty: values.
        notes: where the adapter led us, and whether its base is the one it was trained on.
        several: whether each of the labels is true or not by itself.
    """

    settings: Settings
    info: AdapterInfo | None
    standing: Standing
    had: EvaluateSettings
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]
    several: bool = False

    def refuse_several(self) -> None:
        """Refuse labels of which several may be true.

        Raises:
            BeftError: they are such.
        """
        if self.several:
            raise BeftError(
                f"{self.settings.adapter}: each of its labels is true or not by itself "
                f"({MULTI_LABEL}), which is not predicted here; `beftkit merge` makes a model of "
                "it, and transformers' own pipeline answers"
            )


def named(settings: Settings) -> Named[Settings]:
    """Find out what the settings of a model with or without an adapter mean.

    A ``model`` that is an adapter, or the folder of a run that made one, is an adapter without a
    base.

    Raises:
        BeftError: an adapter that names no base, or whose base has changed since.
        UsageError: neither a model nor an adapter.
    """
    s = settings
    given: dict[str, Any] = {"model": meant(s.model), "adapter": meant(s.adapter)}
    s = s.model_copy(update=given)
    if s.adapter is None and s.model and (is_adapter(s.model) or _far_adapter(s.model, s.revision)):
        s = s.model_copy(update={"adapter": s.model, "model": ""})
    elif s.adapter is not None and not is_adapter(s.adapter) and Path(s.adapter).exists():
        # A run that made a whole model, say; `adapter_info` has the words for all the rest.
        if (Path(s.adapter) / "config.json").is_file():
            raise UsageError(
                f"{s.adapter}: is a whole model; give it as the model, not as --adapter"
            )
    check_revision(s.model, s.revision)  # with an adapter alone it is the revision of its base
    if s.adapter is None:
        if not s.model:
            raise UsageError("neither a model nor --adapter was given; expected one of them")
        return Named(s, None, Standing(), EvaluateSettings(), None, ())
    info = adapter_info(s.adapter)
    _check_head(info)
    standing = Standing.of(info)
    notes: list[str] = []
    own = not s.model  # the base is the adapter's word alone
    if own:
        if info.base is None:
            raise BeftError(f"{s.adapter}: does not name its base; {_base_advice(s)}")
        notes += _led(s, info, standing)
        found = {"model": info.base, "revision": s.revision or info.revision}
        s = s.model_copy(update=found)
    said_base = BaseSaid(standing.base_given, standing.base_digest, standing.base_is)
    notes += compared(said_base, s.adapter, s.model, s.revision, own=own)
    said = Said.of(info.metadata)
    if s.tokenizer is None and standing.tokenizer_files:
        if _has(info.reference, standing.tokenizer_files):
            s = s.model_copy(update={"tokenizer": info.reference})
        else:
            notes.append(f"{s.adapter}: its tokenizer's files are gone; the base's own is used")
    elif s.tokenizer is None and not isinstance(s, EvaluateSettings):  # that asks its run as well
        had = said.evaluation
        s = s.model_copy(update={"tokenizer": had.tokenizer})
        if "precision" in had.model_fields_set and "tokenizer" not in had.model_fields_set:
            notes.append(
                f"{s.adapter}: was trained with a tokenizer of its own, which does not lie beside "
                "it; the base's is used unless --tokenizer is given"
            )
    labels = info.head_labels if said.labels is None else said.labels
    several = info.metadata.get(PROBLEM_TYPE) == MULTI_LABEL
    if said.labels is None and labels:  # PEFT writes no names: the base has them
        config = _config(s.model, s.revision)
        called = labels_of(config, len(labels))
        several = several or (called is not None and problem_type(config) == MULTI_LABEL)
        if called is not None and called != labels:
            labels = called
            notes.append(f"{s.adapter}: names no labels, so they are called as in {s.model}")
    return Named(s, info, standing, said.evaluation, labels, tuple(notes), several)


def _check_head(info: AdapterInfo) -> None:
    """Refuse a head over tokens or spans, whose rows would be taken for classes of a text."""
    if info.task_type in _TASK_TYPES:
        return
    if info.task_type in SAVED_BY_TASK or info.head_labels is not None:
        raise BeftError(
            f"{info.reference}: brings a head for PEFT's task type {info.task_type}; expected "
            "SEQ_CLS, a head over a whole text; load or merge this one with PEFT"
        )


def _config(reference: str, revision: str | None) -> Mapping[str, Any] | None:
    """A base's configuration as it is written; None: it has none, or a form not read here."""
    try:
        return open_checkpoint(model_reference(reference, revision)).config
    except BeftError:
        return None


def put_on(loaded: Loaded, found: Named[Any]) -> tuple[str, ...]:
    """Put the adapter onto its base, and make sure that the model's head is a trained one.

    Returns:
        Notes.

    Raises:
        BeftError: the adapter does not fit, or nothing brings a trained head.
    """
    s = found.settings
    held, notes = set[str](), tuple[str, ...]()
    if s.adapter is not None:
        applied = apply_adapter(loaded.model, s.adapter)
        held, notes = {*applied.parameters}, applied.notes
        coarse = [str(loaded.model.dtype).removeprefix("torch."), getattr(s, "precision", "fp32")]
        coarse = [name for name in coarse if name not in ("float32", "float64", "fp32")]
        if applied.merged and coarse:
            notes += (
                f"the LoRA is merged into its base, which {coarse[0]} rounds; as trained, its "
                "products are added to the outputs, so figures may differ a little",
            )
    lacking = sorted({*loaded.fresh} - held)
    if lacking:
        raise BeftError(
            f"{s.model}: holds no trained {lacking[0]}, so its answers would be drawn by lot; "
            "give a fine-tuned model, or its --adapter"
        )
    return notes


def _far_adapter(reference: str, revision: str | None) -> bool:
    """Whether this is an adapter on the hub: a few requests, and no weights."""
    if Path(reference).exists():
        return False
    bare = reference.removeprefix("hf://")
    try:
        at = f"hf://{bare}" if revision is None else f"hf://{bare}@{revision}"
        return open_checkpoint(at).adapter is not None
    except BeftError:  # loading has the words for it
        return False


def _led(settings: Any, info: AdapterInfo, standing: Standing) -> list[str]:
    """What to say of where an adapter leads; where nothing is, what should be there."""
    try:
        return base_elsewhere(settings.adapter, info.base or "", _base_advice(settings))
    except BeftError as error:
        said = [f"it was given as {standing.base_given}" if standing.base_given else ""]
        said.append(f"is {standing.base_is}" if standing.base_is else "")
        more = " and ".join(filter(None, said))
        raise BeftError(f"{error}" + (f" ({more})" if more else "")) from None


def _base_advice(settings: Any) -> str:
    if isinstance(settings, EvaluateSettings):
        return "give the base as well: `beftkit evaluate BASE --adapter ADAPTER`"
    return "give the base as well: `--base BASE`, in Python the model beside the adapter"


def _has(adapter: str, names: tuple[str, ...]) -> bool:
    """Whether these files lie beside an adapter; on the hub its word counts."""
    folder = Path(adapter)
    return not folder.exists() or all((folder / name).is_file() for name in names)
