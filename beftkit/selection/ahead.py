"""What ``bias="auto"`` would do and take, before its probe has chosen anything."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from beftkit.errors import UsageError
from beftkit.runs import RunPlan, Timing, plan_run, time_run
from beftkit.runs.folders import SELECT
from beftkit.runs.prepare import with_regime
from beftkit.selection.planning import plan_select
from beftkit.selection.timing import time_select
from beftkit.settings.resolve import select_for_run
from beftkit.settings.select import SelectSettings
from beftkit.settings.train import TrainSettings


def plan_auto(settings: TrainSettings, *, resume: bool = False, overwrite: bool = False) -> RunPlan:
    """What `beftkit.runs.plan_run` says of a run whose bias is chosen first.

    The last candidate stands for the target, and a note says what the probe trains and takes.

    Args:
        settings: of the run, ``bias`` is ``auto``.
        resume, overwrite: what would become of a former run in their ``output``.

    Raises:
        BeftError: as probe or run would, but for what weights and tokens alone tell.
    """
    select, stand_in = _probe_and(settings)
    probe = plan_select(select)
    run = plan_run(stand_in, resume=resume, overwrite=overwrite)
    (scalars,), updates = probe.scalars.values(), [cell.updates for cell in probe.cells]
    many = "" if None in updates else f", {sum(one or 0 for one in updates):,} updates"
    batches = [cell.fisher_batches for cell in probe.cells]
    if select.fisher and None not in batches:
        many += f" and {sum(one or 0 for one in batches):,} batches for the Fisher score"
    where = "" if settings.output is None else f", in {Path(settings.output) / SELECT}"
    note = (
        f"a probe of all biases comes first ({scalars:,} scalars{many}{where}) and chooses among "
        f"{', '.join(select.candidates)}; what trains then is shown for {stand_in.bias}"
    )
    shown = run.settings.model_copy(update={"bias": settings.bias})
    return replace(run, settings=shown, notes=(note, *run.notes))


def time_auto(settings: TrainSettings) -> Timing:
    """How long that takes: the probe, and the last candidate in the place of the target.

    Raises:
        BeftError: as probe or run would.
    """
    select, stand_in = _probe_and(settings)
    probe, run = time_select(select), time_run(stand_in)
    note = (
        f"the target is known after the probe alone: {stand_in.bias} was timed in its place, of "
        f"{', '.join(select.candidates)}"
    )
    peaks = [one.peak_bytes for one in (probe, run) if one.peak_bytes is not None]
    return replace(
        run,
        paces=(*probe.paces, *run.paces),
        runs=(*probe.runs, *run.runs),
        peak_bytes=max(peaks, default=None),
        notes=(note, *dict.fromkeys((*probe.notes, *run.notes))),
    )


def _probe_and(settings: TrainSettings) -> tuple[SelectSettings, TrainSettings]:
    """The selection that would choose, and the run as it would be with its last candidate."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--bias=auto: is for one process; leave torchrun out")
    s = with_regime(settings)
    select = select_for_run(s)
    return select, s.model_copy(update={"bias": select.candidates[-1]})
