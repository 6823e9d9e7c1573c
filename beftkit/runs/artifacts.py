"""What a run hands over: an adapter, or a whole model where weights inside it trained."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from beftkit.adapters import (
    BIASES_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    Tuned,
    check_format,
    default_format,
    write_adapter,
)
from beftkit.errors import BeftError
from beftkit.models import Loaded, quiet
from beftkit.runs import manifest, standing
from beftkit.runs.folders import ADAPTER, MODEL
from beftkit.runs.inputs import validation_digest
from beftkit.runs.manifest import HALF, move_files
from beftkit.runs.prepare import Prepared
from beftkit.runs.said import words_of_run
from beftkit.settings.train import TrainSettings
from beftkit.tuning import LoraTuner, Tuner, stored_name
from beftkit.weights import collect_tuned


def write_output(
    folder: Path, ready: Prepared, tuner: Tuner, settings: TrainSettings, *, standalone: bool = True
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Write what was trained.

    Args:
        folder: of the run.
        ready: the run.
        tuner: what trained.
        settings: the run's.
        standalone: whether the adapter has its tokenizer beside it, even where that is the base's.

    Returns:
        ``adapter`` or ``model`` (None: nothing trained), the adapter's format, notes.
    """
    if not tuner.choice.is_adapter:
        _write_model(folder / MODEL, ready.loaded)
        return MODEL, None, (f"weights inside the model trained: {folder / MODEL} holds all of it",)
    if isinstance(tuner, LoraTuner):
        return ADAPTER, "lora", _write_lora(folder, ready, tuner, settings)
    tuned, task_type = _tuned(ready, tuner), ready.objective.task_type
    if not tuned:
        return None, None, ("nothing trained, so there is no adapter",)
    chosen: str = settings.adapter_format
    why = ""
    if chosen == "auto":
        chosen, why = default_format(tuned, task_type)
    names = (BIASES_NAME,) if chosen == "biases" else (WEIGHTS_NAME, CONFIG_NAME)
    manifest.add(folder, *(f"{ADAPTER}/{name}" for name in names))
    beside = standalone or settings.tokenizer is not None
    nothing: AbstractContextManager[tuple[Path | None, str | None]] = nullcontext((None, None))
    with standing.tokenizer_saved(ready, folder) if beside else nothing as (work, lacking):
        said = standing.header(ready, settings, standing.names_in(work))
        notes = write_adapter(
            folder / ADAPTER,
            tuned,
            format=chosen,
            base=_base(ready.loaded.reference),
            task_type=task_type,
            metadata={**_metadata(settings, ready), **said},
            revision=settings.revision,
        )
        if work is not None:  # the adapter first: whatever befalls the tokenizer, it is there
            lacking = standing.put_beside(work, folder, ADAPTER)
    return ADAPTER, chosen, (*((why,) if why else ()), *notes, *((lacking,) if lacking else ()))


def _write_lora(
    folder: Path, ready: Prepared, tuner: LoraTuner, settings: TrainSettings
) -> tuple[str, ...]:
    """Have PEFT write its adapter, with our words in its header and the tokenizer beside it."""
    base = _base(ready.loaded.reference)
    try:
        work = Path(tempfile.mkdtemp(dir=folder, prefix=HALF))
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        with standing.tokenizer_saved(ready, folder) as (beside, lacking):
            metadata = _metadata(settings, ready)
            said = standing.header(ready, settings, standing.names_in(beside))
            tuner.save(work, base, settings.revision, {**metadata, **said})
            move_files(work, folder, f"{ADAPTER}/")
            if beside is not None:
                lacking = standing.put_beside(beside, folder, ADAPTER)
    except OSError as error:
        raise BeftError(f"{folder / ADAPTER}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return (lacking,) if lacking else ()


def check_output(ready: Prepared, tuner: Tuner, settings: TrainSettings) -> None:
    """Refuse an adapter format that could not hold the result, before the training."""
    if settings.adapter_format != "auto" and tuner.choice.is_adapter:
        tuned = _tuned(ready, tuner)
        check_format(tuned, settings.adapter_format, ready.objective.task_type)


def _tuned(ready: Prepared, tuner: Tuner) -> list[Tuned]:
    """What trained, before and after, and what must travel with it."""
    before = {unit.part.parameter: unit.before for unit in tuner.units if unit.before is not None}
    task_type, heads = ready.objective.task_type, _fresh_modules(ready)
    found = collect_tuned(ready.model, before, task_type=task_type, heads=heads)
    # Trained float32 values, where the model holds them rounded.
    exact = {stored_name(unit.part.parameter): unit for unit in tuner.units if unit.is_copy}
    return [
        replace(one, post=tuner.after(unit).numpy()) if (unit := exact.get(one.parameter)) else one
        for one in found
    ]


def _metadata(settings: TrainSettings, ready: Prepared) -> dict[str, str]:
    """What `beftkit evaluate` wants to find again, as text in the file's header."""
    return {
        "format": "pt",
        **words_of_run(settings),
        "beftkit.as": ready.data.kind,
        "beftkit.labels": json.dumps(list(ready.data.labels)),
        "beftkit.examples": validation_digest(ready),
    }


def _base(reference: str) -> str:
    """The model as an adapter names it: a folder by its whole path, for use from elsewhere."""
    path = Path(reference)
    return str(path.resolve()) if path.exists() else reference


def _fresh_modules(ready: Prepared) -> Sequence[str]:
    """Modules with parameters that the checkpoint lacked: without them the result is lost."""
    owners = dict.fromkeys(name.rpartition(".")[0] for name in ready.loaded.fresh)
    whole = {*ready.objective.heads}  # PEFT saves those anyway
    return [name for name in owners if not whole & {*name.split(".")}]


def _write_model(folder: Path, loaded: Loaded) -> None:
    try:
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=HALF))
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    try:
        with quiet():
            loaded.model.save_pretrained(work)
            loaded.tokenizer.save_pretrained(work)
        move_files(work, folder.parent, f"{folder.name}/")
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
