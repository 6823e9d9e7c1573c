"""What a run hands over: an adapter, or a whole model where weights inside it trained."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from beftkit.adapters import Tuned, check_format, default_format, write_adapter
from beftkit.errors import BeftError
from beftkit.models import Loaded, quiet
from beftkit.runs.folders import ADAPTER, MODEL
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Data
from beftkit.tuning import Tuner
from beftkit.weights import collect_tuned

TASK_TYPE = "SEQ_CLS"


def write_output(
    folder: Path, loaded: Loaded, tuner: Tuner, settings: TrainSettings, data: Data
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Write what was trained.

    Returns:
        ``adapter`` or ``model`` (None: nothing trained), the adapter's format, notes.
    """
    if not tuner.choice.is_adapter:
        _write_model(folder / MODEL, loaded)
        return MODEL, None, (f"weights inside the model trained: {folder / MODEL} holds all of it",)
    tuned = _tuned(loaded, tuner)
    if not tuned:
        return None, None, ("nothing trained, so there is no adapter",)
    chosen: str = settings.adapter_format
    why = ""
    if chosen == "auto":
        chosen, why = default_format(tuned, TASK_TYPE)
    notes = write_adapter(
        folder / ADAPTER, tuned, format=chosen, base=_base(loaded.reference), task_type=TASK_TYPE,
        metadata=_metadata(settings, data), revision=settings.revision,
    )  # fmt: skip
    return ADAPTER, chosen, (*((why,) if why else ()), *notes)


def check_output(loaded: Loaded, tuner: Tuner, settings: TrainSettings) -> None:
    """Refuse an adapter format that could not hold the result, before the training."""
    if settings.adapter_format != "auto" and tuner.choice.is_adapter:
        check_format(_tuned(loaded, tuner), settings.adapter_format, TASK_TYPE)


def _tuned(loaded: Loaded, tuner: Tuner) -> list[Tuned]:
    """What trained, before and after, and what must travel with it."""
    before = {unit.part.parameter: unit.before for unit in tuner.units if unit.before is not None}
    found = collect_tuned(loaded.model, before, task_type=TASK_TYPE, heads=_fresh_modules(loaded))
    # Trained float32 values, where the model holds them rounded.
    exact = {unit.part.parameter: unit for unit in tuner.units if unit.is_copy}
    return [
        replace(one, post=tuner.after(exact[one.parameter]).numpy())
        if one.parameter in exact else one
        for one in found
    ]  # fmt: skip


def _metadata(settings: TrainSettings, data: Data) -> dict[str, str]:
    """What `beftkit evaluate` wants to find again, as text in the file's header."""
    return {
        "format": "pt",
        "beftkit.task": settings.task or "",
        "beftkit.labels": json.dumps(list(data.labels)),
        "beftkit.metrics": json.dumps(list(settings.metric or data.metrics)),
        "beftkit.bias": settings.bias,
        "beftkit.max_length": str(settings.max_length),
        "beftkit.text_columns": settings.text_columns or "",
        "beftkit.label_column": settings.label_column or "",
    }


def _base(reference: str) -> str:
    """The model as an adapter names it: a folder by its whole path, for use from elsewhere."""
    path = Path(reference)
    return str(path.resolve()) if path.exists() else reference


def _fresh_modules(loaded: Loaded) -> Sequence[str]:
    """Modules with parameters that the checkpoint lacked: without them the result is lost."""
    owners = dict.fromkeys(name.rpartition(".")[0] for name in loaded.fresh)
    heads = ("classifier", "score")  # PEFT saves those whole anyway
    return [
        name for name in owners
        if not any(part in heads for part in name.split("."))
    ]  # fmt: skip


def _write_model(folder: Path, loaded: Loaded) -> None:
    try:
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".beftkit-"))
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    try:
        with quiet():
            loaded.model.save_pretrained(work)
            loaded.tokenizer.save_pretrained(work)
        for file in work.iterdir():
            file.chmod(0o644)  # safetensors' own 0600 would keep other users out
        work.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
