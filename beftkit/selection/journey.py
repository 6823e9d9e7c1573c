"""`beftkit.select`: probe, three methods, a target, and on request the proof."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError, Refusal
from beftkit.files import from_plain, headed, read_headed, write_whole
from beftkit.objectives import objective_of
from beftkit.progress import displayed
from beftkit.runs import train_with
from beftkit.runs.inputs import check_runs
from beftkit.runs.loading import load_data
from beftkit.runs.locks import occupied
from beftkit.runs.prepare import prepare
from beftkit.runs.results import TrainResult
from beftkit.selection.cells import PROBE, Cell, biases_to_verify, grid, run_settings
from beftkit.selection.free import free_methods
from beftkit.selection.methods import (
    change_methods,
    fisher_method,
    probe_summary,
    read_track,
    run_summary,
    thinned,
    when_settled,
)
from beftkit.selection.opening import (
    CELL,
    CELLS,
    FISHER,
    RESULT,
    list_cells,
    opened,
    settings_of,
)
from beftkit.selection.planning import Whole, check_verifiable, plan_cells
from beftkit.selection.ranks import MethodTable
from beftkit.selection.results import CellResult, CellRun, ProbeRun, Selection
from beftkit.selection.sharing import own_gpu, place, together
from beftkit.selection.summary import overall_targets, summarise
from beftkit.settings.select import SelectSettings
from beftkit.settings.signatures import documented
from beftkit.settings.train import TrainSettings
from beftkit.training.journal import LOG
from beftkit.training.state import FOLDER as STATES
from beftkit.watching import Unwatched, Watcher, never

#: seconds between looks at what other processes have finished
PATIENCE = 0.5


@documented(SelectSettings, left_out=SelectSettings.CELLWISE)
def select(
    model: str | Path | None = None,
    *,
    output: str | Path,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    progress: bool = False,
    asked_to_stop: Callable[[], int] | None = None,
    **settings: Any,
) -> Selection:
    """Choose the bias to fine-tune as the paper does, and show why (paper section 2.1, figure 1).

    A probe fine-tunes all biases; the projection ratio and the magnitude of each bias's change, and
    the empirical Fisher of the pretrained model on the same examples, rank the roles.

    Args:
        model: folder, or ``owner/name`` on the hub.
        output: folder of the selection: a cell of the grid is a folder in ``cells/``, its runs are
            ordinary runs of `beftkit.train`.
        config: a ``select.yaml`` to start from; what is given here wins.
        resume: take up a selection that was stopped; finished cells and runs are not repeated.
        overwrite: replace a former selection in ``output``.
        watcher: told how it goes, update by update (`beftkit.Watcher`).
        progress: show that on stderr instead: a bar on a terminal and in a notebook, else lines.
        asked_to_stop: the number of a signal once one came.
        settings: fields of `beftkit.settings.SelectSettings` (``regimes``, ``lrs``, ``epochs``,
            ``seeds``, ``candidates``, ``verify``, ``probe_steps``, ...) and, for the runs, of
            `beftkit.settings.train.TrainSettings` (``task``, ``data_dir``, ``precision``, ...).

    Returns:
        Tables, targets, margins. ``.target`` is the projection ratio's choice (with ``add_bias``
            Fisher's, for the ratio of a bias that was zero says nothing); ``.recommended``
        what to train: with ``verify`` the candidate that did best, None where none beats ``none``.

    Raises:
        BeftError: anything that is wrong with what was given, or no cell came to its end.

    Example:
        >>> found = beftkit.select("bert-base-cased", task="rte", output="rte")  # doctest: +SKIP
        >>> found.target, found.targets  # doctest: +SKIP
        ('v', {'projection': 'v', 'magnitude': 'q', 'fisher': 'v'})
    """
    wanted = settings_of(model, output, config, resume, settings)
    with displayed(progress, watcher) as looking:
        return select_with(
            wanted,
            output=output,
            resume=resume,
            overwrite=overwrite,
            watcher=looking,
            asked_to_stop=asked_to_stop or never,
        )


def select_with(
    settings: SelectSettings,
    *,
    output: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    asked_to_stop: Callable[[], int] = lambda: 0,
) -> Selection:
    """`select` (see there) under settings that are resolved."""
    journey = _Journey(Path(output), settings, watcher or Unwatched(), asked_to_stop)
    return journey.run(resume, overwrite)


class _Journey:
    """One call, in one process or one of several that share out the cells."""

    def __init__(
        self,
        folder: Path,
        settings: SelectSettings,
        watcher: Watcher,
        asked_to_stop: Callable[[], int],
    ) -> None:
        self.folder, self.watcher, self.asked_to_stop = folder, watcher, asked_to_stop
        self.given = settings.document()
        self.rank, self.world, local = place()
        shared = self.world > 1 and settings.device is None
        own = {"device": own_gpu(local)} if shared else {}
        self.settings = settings.model_copy(update=own)

    def run(self, resume: bool, overwrite: bool) -> Selection:
        biases = biases_to_verify(self.settings)
        cells = grid(self.settings)
        first, *_ = [run_settings(self.settings, cell, PROBE, None) for cell in cells]
        self.data = load_data(first)
        check_verifiable(self.settings, self.data)
        self.todo = plan_cells(self.settings, self.data, objective_of(self.data).skeleton(first))
        with self.begin(cells, biases, resume, overwrite):
            return self.found(first, cells, biases)

    def found(
        self, first: TrainSettings, cells: Sequence[Cell], biases: Sequence[str]
    ) -> Selection:
        """What this process's cells come to, and the others'."""
        mine = cells[self.rank :: self.world]
        self.check_finished(mine)
        self.whole = Whole(self.watcher, [one for one in self.todo if one.cell in mine])
        for number, cell in enumerate(mine, 1):
            where = f"cell {number} of {len(mine)}, {cell.name}"
            self.one(cell, where, biases)
        self.whole.over()
        if self.rank:
            cells = mine
        results = [self.waited(cell) for cell in cells]
        found = self.summed_up(first, results)
        if not self.rank:
            write_whole(self.folder / RESULT, _json(found.to_dict()))
        return found

    def begin(
        self, cells: Sequence[Cell], biases: Sequence[str], resume: bool, overwrite: bool
    ) -> ExitStack:
        """Have the folder made ready by the first process, and all others wait for that."""
        made = opened(self.folder, self.given, resume=resume, overwrite=overwrite)
        held = ExitStack()

        def ready() -> None:
            held.enter_context(made)
            list_cells(self.folder, cells, biases)
            # With several processes an unfinished cell's result would be taken for the new one.
            for cell in cells if self.world > 1 else ():
                path = self.folder / CELLS / cell.name / CELL
                if path.is_file() and not _done(_read(path), biases):
                    path.unlink()

        try:
            if self.world == 1:
                ready()
            else:
                together(ready)
        except BaseException:
            held.close()
            raise
        return held

    def check_finished(self, cells: Sequence[Cell]) -> None:
        """Refuse a grid of which a part was found with other data, or on another base."""
        there = [(self.folder / CELLS / cell.name / PROBE, cell) for cell in cells]
        there = [(folder, cell) for folder, cell in there if (folder / STATES).is_dir()]
        if not there:
            return
        plans = [run_settings(self.settings, cell, PROBE, None) for _, cell in there]
        ready = prepare(plans[0], plans[0].seeds[0], data=self.data)
        runs = [
            (folder, replace(ready, settings=ready.filled(plan), seed=cell.seed))
            for (folder, cell), plan in zip(there, plans, strict=True)
        ]
        notes: list[str] = []
        check_runs(runs, notes.append)
        for note in notes[:1]:
            self.watcher.note(note)

    def one(self, cell: Cell, where: str, biases: Sequence[str]) -> None:
        """Bring a cell to its end, or note why it failed."""
        folder = self.folder / CELLS / cell.name
        former = _read(folder / CELL) if (folder / CELL).is_file() else None
        if former and _done(former, biases):
            self.watcher.note(f"{where}: finished before")
            return
        self.watcher.note(where)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
        # A process that outlived the others of its selection may still be at work there.
        with occupied(folder):
            self.worked_out(cell, folder, where, biases)

    def worked_out(self, cell: Cell, folder: Path, where: str, biases: Sequence[str]) -> None:
        """Probe, methods and verification of a cell."""
        result = CellResult(cell, f"{CELLS}/{cell.name}")
        try:
            result = self.probed(cell, folder, result)
        except Refusal:
            raise
        except BeftError as error:
            self.watcher.note(f"{where}: failed: {error.at_terminal}")
            result = replace(result, failed={PROBE: error.at_terminal})
        else:
            for bias in biases:
                if bias == "all" and self.settings.probe_steps is None:
                    result = replace(result, runs={**result.runs, "all": result.runs[PROBE]})
                    continue
                try:
                    run = self.trained(cell, folder, bias)
                    runs = {**result.runs, bias: run_summary(run, self.folder)}
                    result = replace(result, runs=runs)
                except Refusal:
                    raise
                except BeftError as error:
                    self.watcher.note(f"{where}, bias {bias}: failed: {error.at_terminal}")
                    result = replace(result, failed={**result.failed, bias: error.at_terminal})
        write_whole(folder / CELL, _json(result.to_dict()))

    def probed(self, cell: Cell, folder: Path, result: CellResult) -> CellResult:
        """The probe, and what the methods make of it."""
        found = self.trained(cell, folder, PROBE)
        run = found.runs[0]
        methods, read, notes = change_methods(found, self.settings)
        free = free_methods(read, found, self.data, self.settings)
        resolved = found.settings
        failed: dict[str, str] = {}
        if self.settings.fisher:
            saved = folder / FISHER
            if saved.is_file():
                methods["fisher"] = from_plain(MethodTable, read_headed(saved))
            else:
                try:
                    what = self.data, resolved, self.settings, cell.seed
                    methods["fisher"] = fisher_method(*what, self.watcher)
                    write_whole(saved, _json(headed(asdict(methods["fisher"]))))
                except BeftError as error:
                    self.watcher.note(f"fisher failed: {error.at_terminal}")
                    failed["fisher"] = error.at_terminal
        track = read_track(folder / PROBE / LOG)
        when = when_settled(track, methods["projection"], self.settings)
        place = replace(cell, lr=resolved.lr, epochs=resolved.epochs)
        runs: dict[str, CellRun] = {PROBE: probe_summary(found, self.folder, read.family)}
        told = when, thinned(track), failed, tuple(notes), free
        return CellResult(place, result.folder, run.train_examples, methods, runs, *told)

    def trained(self, cell: Cell, folder: Path, bias: str) -> TrainResult:
        """One run of a cell, taken up where it was stopped, not repeated where it was finished."""
        settings = run_settings(self.settings, cell, bias, str(folder / bias))
        self.whole.reached(cell, bias)
        return train_with(
            settings,
            resume=True,
            watcher=self.watcher,
            asked_to_stop=self.asked_to_stop,
            standalone=False,  # else megabytes of the same tokenizer beside every run
        )

    def waited(self, cell: Cell) -> CellResult:
        """A cell's result, once whichever process has it in hand is done."""
        path = self.folder / CELLS / cell.name / CELL
        while not path.is_file():
            time.sleep(PATIENCE)
        return _read(path)

    def summed_up(self, first: TrainSettings, results: Sequence[CellResult]) -> Selection:
        """All cells together."""
        from beftkit.tasks import higher_is_better

        whole = [one for one in results if one.methods]
        if not whole:
            name, why = next(iter(results[0].failed.items()))
            raise BeftError(f"no cell came to its end; {results[0].folder}, {name}: {why}")
        probe = whole[0].runs[PROBE]
        assert isinstance(probe, ProbeRun)
        metric = probe.metric
        higher = metric is None or higher_is_better(metric)
        groups = summarise(results, self.settings, metric, higher)
        notes = dict.fromkeys(note for one in whole for note in one.notes)
        for one in results:
            for name, why in one.failed.items():
                notes[f"{one.folder}, {name}: failed: {why}"] = None
        fisher = any(group.method == "fisher" for group in groups)
        if fisher:
            notes[
                "the target is Fisher's: a bias that is added is zero before, so its projection "
                "ratio is 1 whatever changed; magnitude stands beside it"
            ] = None
        if len({g.leading.target for g in groups}) > 1:
            whose = "Fisher's" if fisher else "the projection ratio's"
            notes[f"{whose} target differs over the grid"] = None
        what = first.model, self.data.name, metric, higher, self.settings.candidates
        found = overall_targets(groups), groups, tuple(results)
        return Selection(*what, *found, self.given, probe.family, probe.total, tuple(notes))


def _done(former: CellResult, biases: Sequence[str]) -> bool:
    """Whether a cell came to its end, all that is to be verified there as well."""
    return not former.failed and set(biases) <= set(former.runs)


def _read(path: Path) -> CellResult:
    return CellResult.from_dict(read_headed(path))


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
