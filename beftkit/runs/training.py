"""`beftkit.train`: from settings to trained, saved and measured biases."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from beftkit.accelerator import make_accelerator, out_of_memory, told_by_main
from beftkit.objectives import Objective
from beftkit.runs import folders
from beftkit.runs.artifacts import check_output, write_output
from beftkit.runs.inputs import check_runs, inputs_of
from beftkit.runs.loading import class_notes, load_data
from beftkit.runs.prepare import Prepared, check_metrics, choose_parts, prepare
from beftkit.runs.provenance import Chosen, RateSearch, begun, ended, provenance_of
from beftkit.runs.publishing import check_wanted, hand_over
from beftkit.runs.results import Run, TrainResult
from beftkit.runs.trackers import tracked
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Data, higher_is_better
from beftkit.training.course import course_of
from beftkit.training.evaluation import stayed_note
from beftkit.training.job import Job
from beftkit.training.journal import Progress
from beftkit.training.trainer import Trainer
from beftkit.tuning import (
    Choice,
    LoraTuner,
    Tuner,
    checkpoint_activations,
    store_for_autocast,
)
from beftkit.watching import Unwatched, Watcher


def train_with(
    settings: TrainSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    asked_to_stop: Callable[[], int] = lambda: 0,
    chosen: Chosen | None = None,
    rates: RateSearch | None = None,
    standalone: bool = True,
    data: Data | None = None,
) -> TrainResult:
    """`beftkit.train` (see there) under settings that are resolved, of a bias that is named.

    ``chosen``: what named it, ``rates``: what found its rate, if nobody did. ``standalone``:
    whether the adapter is to be handed over, with its tokenizer; that of a selection's run is read
    where it lies. ``data``: in the place of those that the settings name.
    """
    journey = _Journey(settings, watcher or Unwatched(), asked_to_stop, chosen, standalone)
    journey.rates, journey.data = rates, data
    return journey.run(resume, overwrite)


class _Journey:
    """The runs of one call, one a seed."""

    rates: RateSearch | None = None
    data: Data | None = None

    def __init__(
        self,
        settings: TrainSettings,
        watcher: Watcher,
        asked_to_stop: Callable[[], int],
        chosen: Chosen | None,
        standalone: bool,
    ) -> None:
        self.settings, self.watcher, self.asked_to_stop = settings, watcher, asked_to_stop
        self.chosen, self.standalone = chosen, standalone
        self.folder = None if settings.output is None else Path(settings.output)

    def run(self, resume: bool, overwrite: bool) -> TrainResult:
        with ExitStack() as held:
            return self.trained(resume, overwrite, held)

    def trained(self, resume: bool, overwrite: bool, held_folder: ExitStack) -> TrainResult:
        """All of it; the folder is released with what is held."""
        s = self.settings
        self.accelerator = make_accelerator(s.device, s.precision, s.report_to, s.output)
        told_by_main(self.accelerator, lambda: check_wanted(self.settings))
        data = self.data or load_data(s)
        metrics = tuple(s.metric) or data.metrics
        first = self.prepared(data, s.seeds[0])
        # Names of branches move: what was read is kept, for --resume, the adapter and its card.
        known = {
            "metric": metrics,
            "revision": first.loaded.commit or s.revision,
            "data_revision": data.source.get("revision", s.data_revision),
        }
        s = self.settings = first.filled(s).model_copy(update=known)
        self.metrics = check_metrics(metrics, first.objective, data, s.trust_remote_code)
        choice = choose_parts(s, first.model, s.seeds[0])
        if self.folder is not None:
            folder = self.folder
            opened = folders.opened(folder, s, overwrite=overwrite, resume=resume)
            resume = told_by_main(self.accelerator, lambda: held_folder.enter_context(opened))
            if resume and (done := self.finished(folder)) is not None:
                self.check_finished(s.seeds, first)
                self.watcher.note(f"{folder}: this run came to its end before")
                self.hand_over(done, first.objective)
                return done
        self.begin(resume)
        objective = first.objective
        runs = []
        held: Prepared | None = first
        del first
        for number, seed in enumerate(s.seeds):
            ready, held = held or self.prepared(data, seed), None
            if len(s.seeds) > 1:
                trains = bool(choice.parts)
                updates = course_of(s, len(ready.train), trains=trains).updates
                behind, steps = updates * number, updates * len(s.seeds)
                self.watcher.reached(number + 1, len(s.seeds), behind, steps)
            runs.append(self.one(ready, resume))
            del ready  # before the next model is loaded
            self.accelerator.free_memory()
        result = self.result(data, choice, runs)
        if self.folder is not None and self.accelerator.is_main_process:
            folders.write_results(self.folder, result)
        self.hand_over(result, objective)
        return result

    def begin(self, resume: bool) -> None:
        """Write down where this run comes from."""
        now, notes = provenance_of(self.accelerator, self.chosen, self.rates), list[str]()
        if (folder := self.folder) is not None:
            begin = partial(begun, folder, now, resume=resume)
            now, notes = told_by_main(self.accelerator, begin)
        self.provenance = now
        for note in notes:
            self.watcher.note(note)

    def prepared(self, data: Data, seed: int) -> Prepared:
        return prepare(self.settings, seed, accelerator=self.accelerator, data=data)

    def result(self, data: Data, choice: Choice, runs: Sequence[Run]) -> TrainResult:
        s = self.settings
        return TrainResult(
            model=s.model,
            task=data.name,
            bias=s.bias,
            metric=s.metric[0] if s.metric else None,
            scalars=choice.scalars,
            head_scalars=choice.head_scalars,
            total=choice.total,
            settings=s,
            runs=tuple(runs),
            classes=data.counts,
            provenance=ended(self.provenance, self.accelerator),
        )

    def finished(self, folder: Path) -> TrainResult | None:
        """The result of a run that came to its end there, as the main process sees it."""
        done: TrainResult | None = told_by_main(self.accelerator, lambda: folders.finished(folder))
        return done

    def folder_of(self, seed: int) -> Path | None:
        """Where one seed's run lies: a folder of its own where there are several."""
        several = self.folder is not None and len(self.settings.seeds) > 1
        return self.folder / f"seed-{seed}" if several and self.folder else self.folder

    def check_finished(self, seeds: Sequence[int], ready: Prepared) -> None:
        """Refuse to hand out, or to go on beside, what other data or another base gave."""
        runs = [(folder, replace(ready, seed=n)) for n in seeds if (folder := self.folder_of(n))]
        told_by_main(self.accelerator, lambda: check_runs(runs, self.watcher.note))

    def hand_over(self, result: TrainResult, objective: Objective) -> None:
        """Cards beside the adapters, and what is pushed, by the main process."""
        pushed = told_by_main(self.accelerator, lambda: hand_over(result, self.settings, objective))
        if pushed is not None:
            self.watcher.note(f"pushed to {pushed}")

    def one(self, ready: Prepared, resume: bool) -> Run:
        """One seed, in its own folder where there are several."""
        s, seed = self.settings, ready.seed
        folder = self.folder_of(seed)
        if folder is not None and folder != self.folder:
            if self.accelerator.is_main_process:
                folders.make_seed(folder, s)
            if resume and (done := self.finished(folder)) is not None:
                self.check_finished([seed], ready)
                return done.runs[0]
        choice = choose_parts(s, ready.model, seed)
        with out_of_memory(memory_advice(s)):
            tell, inputs = partial(self.notes, ready, choice), dict[str, str]()
            if folder is not None and self.accelerator.is_main_process:
                inputs = inputs_of(ready, tell)
            else:
                tell()
            tuner = make_tuner(ready, choice, s)
            notes = choice.notes + ready.doubts
            if zero := tuner.at_zero():
                told = f"{', '.join(zero)}: zero in PRE, so the projection ratio is 1 whatever"
                notes += (f"{told} changes and means nothing",)
                self.watcher.note(notes[-1])
            if folder is not None:
                check_output(ready, tuner, s)
            trainer = self.trainer(ready, tuner, folder, resume, inputs)
            title = ready.data.name if len(s.seeds) == 1 else f"{ready.data.name}, seed {seed}"
            with tracked(self.accelerator, s, seed, folder):
                progress = trainer.run(f"{title}, {s.tuned}")
        if s.keep == "best" and trainer.best_values:
            tuner.load_state(trainer.best_values)
        run = self.finish(ready, tuner, folder, progress, notes)
        tuner.close()
        return run

    def notes(self, ready: Prepared, choice: Choice) -> None:
        """Say what is to be said beforehand; examples are tokenised here."""
        s, say = self.settings, self.watcher.note
        read = *ready.data.notes, *class_notes(ready.data)
        for note in (*choice.notes, *read, *ready.doubts):
            say(note)
        if ready.loaded.fresh:
            say(f"drawn anew by seed {ready.seed}: {', '.join(ready.loaded.fresh)}")
        if ready.length < (s.max_length or 0):
            say(f"the model holds {ready.length} tokens, so --max-length is lowered to it")
        splits = {"train": ready.train, **ready.validation}
        for note in dict.fromkeys(note for one in splits.values() for note in one.notes):
            say(note)
        for name, split in splits.items():
            for note in ready.cut(split):
                say(f"{name}: {note}")

    def trainer(
        self,
        ready: Prepared,
        tuner: Tuner,
        folder: Path | None,
        resume: bool,
        inputs: Mapping[str, str],
    ) -> Trainer:
        """The loop, at its start or where it was stopped."""
        import torch

        # Dropout of its own; imports have drawn from Python's generator, some more than others.
        torch.manual_seed(ready.seed + 7919 * self.accelerator.process_index)
        random.seed(ready.seed + 7919 * self.accelerator.process_index)
        job = Job(
            settings=self.settings,
            seed=ready.seed,
            model=ready.model,
            tuner=tuner,
            train=ready.train,
            validation=ready.validation,
            objective=ready.objective,
            metrics=self.metrics,
            better=higher_is_better(self.settings.metric[0]),
            accelerator=self.accelerator,
            folder=folder,
            watcher=self.watcher,
            asked_to_stop=self.asked_to_stop,
            inputs=inputs,
        )
        trainer = Trainer(job)
        if resume:
            found = trainer.resume()
            where = f"taken up at update {trainer.progress.step}"
            self.watcher.note(where if found else "no state is saved: begun anew")
        trainer.journal.cut()
        return trainer

    def finish(
        self,
        ready: Prepared,
        tuner: Tuner,
        folder: Path | None,
        progress: Progress,
        notes: tuple[str, ...],
    ) -> Run:
        """Write what was trained, and sum up."""
        s, main = self.settings, self.accelerator.is_main_process
        adapter, form = None, None
        if folder is not None and main:
            adapter, form, more = write_output(folder, ready, tuner, s, standalone=self.standalone)
            notes += more
            for note in more:
                self.watcher.note(note)
            folders.write_history(folder, progress)
        if progress.stayed and progress.last is not None:
            which = f"seed {ready.seed}: " if len(s.seeds) > 1 else ""
            notes += (which + stayed_note(progress.last, every=True),)
            self.watcher.note(notes[-1])
        splits = {"train": ready.train, **ready.validation}
        per_epoch = course_of(s, len(ready.train)).per_epoch
        run = Run(
            seed=ready.seed,
            folder=None if folder is None else str(folder),
            adapter=adapter,
            adapter_format=form,
            best=progress.best,
            last=progress.last,
            kept=s.keep,
            scores=progress.scores,
            steps=progress.step,
            epochs=round(progress.epoch + progress.update / max(1, per_epoch), 4),
            stopped_early=progress.stopped_early,
            train_examples=len(ready.train),
            truncated={name: split.truncated for name, split in splits.items()},
            train_seconds=round(progress.train_seconds, 3),
            eval_seconds=round(progress.eval_seconds, 3),
            notes=notes,
            stayed=progress.stayed,
        )
        if folder is not None and main and folder != self.folder:
            folders.write_results(folder, self.result(ready.data, tuner.choice, [run]))
        return run


def make_tuner(ready: Prepared, choice: Choice, settings: TrainSettings) -> Tuner:
    """Put the model on its device, freeze it but for the choice, make it ready to train."""
    import torch

    ready.place()
    device = ready.accelerator.device
    if settings.peft:
        task_type, fresh = ready.objective.task_type, ready.loaded.fresh
        how: Any = {"task_type": task_type, "fresh": fresh, "seed": ready.seed}
        tuner: Tuner = LoraTuner(ready.model, choice, device, **how)
    else:
        tuner = Tuner(ready.model, choice, device)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)
    if half is not None and choice.is_adapter:
        store_for_autocast(ready.model, half)
    if settings.gradient_checkpointing:
        checkpoint_activations(ready.model)
    return tuner


def memory_advice(settings: TrainSettings) -> str:
    """What to lower where memory does not suffice."""
    return (
        f"with batch_size {settings.batch_size}, max_length {settings.max_length}; lower "
        "--batch-size (and raise --accumulation), --max-length, or use --gradient-checkpointing, "
        "--precision=bf16 or --dtype=bfloat16"
    )
