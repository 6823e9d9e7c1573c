"""How long a selection will take, from two updates of each kind of its runs."""

from __future__ import annotations

import time

from beftkit.accelerator import make_accelerator
from beftkit.errors import UsageError
from beftkit.gradients import sites_of
from beftkit.runs.loading import load_data
from beftkit.runs.pace import fisher_pace, reset_peak, run_pace
from beftkit.runs.prepare import prepare
from beftkit.runs.timing import RunTime, Timing, filled, run_time, timing
from beftkit.selection.cells import PROBE, grid, run_settings
from beftkit.selection.planning import check_verifiable, plan_cells
from beftkit.selection.sharing import place
from beftkit.settings.select import SelectSettings
from beftkit.tuning import adding


def time_select(settings: SelectSettings) -> Timing:
    """Say how long `beftkit.select` will take in one process, for each run and altogether.

    Each kind of run (the probe, each candidate alone, the controls) is timed once, on the first
    cell's examples; the cells differ in how many updates they make.

    Raises:
        BeftError: as a selection would.
        UsageError: several processes were started.
    """
    s = settings
    if place()[1] > 1:
        raise UsageError("a selection is timed in one process; leave torchrun out")
    first = grid(s)[0]
    probe = run_settings(s, first, PROBE, None)
    accelerator = make_accelerator(s.device, s.precision)
    data = load_data(probe)
    check_verifiable(s, data)
    began = time.perf_counter()
    ready = prepare(probe, first.seed, accelerator=accelerator, data=data)
    ready.place()
    _ = ready.train, ready.validation  # tokenised now, as each run does it
    loading = time.perf_counter() - began
    cells = plan_cells(s, data, ready.model)
    size = filled(ready, probe).examples_a_batch
    reset_peak(accelerator.device)
    paces = {
        run: run_pace(ready, filled(ready, run_settings(s, first, run, None)), run)
        for run in cells[0].runs
    }
    if s.fisher:
        with adding(ready.model, s.add_bias):
            paces["fisher"] = fisher_pace(
                ready, sites_of(ready.model, reference=ready.settings.model).names, size
            )
    runs = []
    for cell in cells:
        for run, course in cell.runs.items():
            assert course is not None  # the data were read
            runs.append(run_time(f"{cell.name}, {run}", course, paces[run], loading))
        if s.fisher:
            steps, pace = cell.fisher_batches or 0, paces["fisher"].pace
            seconds = steps * pace.step_seconds
            runs.append(RunTime(f"{cell.name}, fisher", "fisher", steps, seconds, 0, 0.0, loading))
    return timing("select", ready, s, size, [one.pace for one in paces.values()], runs)
