"""`beftkit.train` with ``bias="auto"``: select first, then train the target."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beftkit import runs
from beftkit.errors import BeftError, UsageError
from beftkit.runs import folders
from beftkit.runs.results import TrainResult
from beftkit.selection.cells import PROBE
from beftkit.selection.journey import select
from beftkit.selection.results import Selection
from beftkit.settings.select import OWN
from beftkit.settings.train import TrainSettings, read_yaml, resolve_settings
from beftkit.training.journal import Unwatched, Watcher


def train(
    model: str | Path | None = None,
    *,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    asked_to_stop: Callable[[], int] = lambda: 0,
    **settings: Any,
) -> TrainResult:
    """Fine-tune one kind of bias of a model, and say what came of it.

    With ``bias="auto"`` a probe on the same data and settings chooses it first (`beftkit.select`;
    its folder is ``select`` in the run's own), then the target alone is trained.

    Args:
        model: folder, or ``owner/name`` on the hub.
        config: a ``run.yaml`` to start from; what is given here wins.
        resume: take up a run that was stopped in ``output``, to the same result bit by bit.
        overwrite: replace a former run in ``output``.
        watcher: told how it goes.
        asked_to_stop: the number of a signal once one came; the state is saved, then
            `beftkit.training.trainer.Interrupted` raised.
        settings: fields of `beftkit.settings.train.TrainSettings`: ``task``, ``bias``, ``lr``,
            ``seeds``, ``output``, ...

    Returns:
        Metrics (best and last), scores, times, and where the adapter lies.

    Raises:
        BeftError: anything that is wrong with what was given.

    Example:
        >>> result = beftkit.train("bert-base-cased", task="sst2", regime="low", bias="v",
        ...                        output="runs/sst2-v")  # doctest: +SKIP
        >>> result.runs[0].best.metrics["accuracy"]  # doctest: +SKIP
    """
    given = {**settings, "model": None if model is None else str(model)}
    bias = settings.get("bias") or (read_yaml(config).get("bias") if config else None)
    if bias == "auto":
        wanted = resolve_settings(config, given)
        settings = {**settings, "bias": _choose(wanted, resume, overwrite, watcher, asked_to_stop)}
    return runs.train(
        model, config=config, resume=resume, overwrite=overwrite, watcher=watcher,
        asked_to_stop=asked_to_stop, **settings,
    )  # fmt: skip


def _choose(
    s: TrainSettings, resume: bool, overwrite: bool, watcher: Watcher | None,
    asked_to_stop: Callable[[], int],
) -> str:  # fmt: skip
    """The target of a selection with a run's own settings, in its folder."""
    if s.output is None:
        raise UsageError("bias auto keeps its probe in the run's folder; give an output")
    folder = Path(s.output)
    held = folder.is_dir() and any(one.name != folders.SELECT for one in folder.iterdir())
    if held and not (resume or overwrite):
        raise BeftError(f"{folder}: is not empty; --resume takes a run up, --overwrite replaces it")
    if overwrite and (folder / folders.SETTINGS).is_file():
        shutil.rmtree(folder / folders.SELECT, ignore_errors=True)
    plain = s.model_dump(mode="json", exclude_none=True, exclude=set(OWN))
    plain = {key: value for key, value in plain.items() if value not in ((), [])}
    grid: dict[str, Any] = {"seeds": s.seeds, "train_size": s.train_size}
    if s.task is not None and s.train_size is None:
        grid["regimes"] = (s.regime,)
    if s.lr is not None:
        grid["lrs"] = (s.lr,)
    if s.epochs is not None:
        grid["epochs"] = (s.epochs,)
    found: Selection = select(
        output=folder / folders.SELECT, resume=resume, overwrite=overwrite, watcher=watcher,
        asked_to_stop=asked_to_stop, probe_steps=s.max_steps,
        **{key: value for key, value in {**plain, **grid}.items() if value is not None},
    )  # fmt: skip
    if found.target is None:
        raise BeftError(f"{folder / folders.SELECT}: no candidate can be the target")
    score = found.groups[0].projection.roles[found.target].score
    (watcher or Unwatched()).note(
        f"the {PROBE} moved {found.target} most (projection ratio {score:.4g}): training it alone"
    )
    return found.target
