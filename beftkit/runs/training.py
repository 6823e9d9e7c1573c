"""`beftkit.train`: from settings to trained, saved and measured biases."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beftkit.accelerator import make_accelerator, out_of_memory, told_by_main
from beftkit.models import Loaded, load_classifier
from beftkit.objectives.kinds import objective_for
from beftkit.runs import folders
from beftkit.runs.artifacts import check_output, write_output
from beftkit.runs.planning import (
    OWN_LENGTH,
    choose_parts,
    draw_train,
    draw_validation,
    fill_settings,
    load_data,
)
from beftkit.runs.publishing import check_wanted, hand_over
from beftkit.runs.results import Run, TrainResult
from beftkit.runs.trackers import tracked
from beftkit.settings.train import TrainSettings, resolve_settings
from beftkit.tasks import Data, Encoded, compute_metrics, encode, higher_is_better
from beftkit.training.evaluation import load_metrics
from beftkit.training.journal import Progress, Unwatched, Watcher
from beftkit.training.trainer import Job, Trainer
from beftkit.tuning import Choice, Tuner, checkpoint_activations, store_for_autocast


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
    """`beftkit.train` (see there) of a bias that is named, not ``auto``."""
    output = settings.get("output")
    if resume and config is None and output is not None:
        config = folders.saved_settings(Path(output))
    given = {**settings, "model": None if model is None else str(model)}
    wanted = resolve_settings(config, given)
    return _Journey(wanted, watcher or Unwatched(), asked_to_stop).run(resume, overwrite)


class _Journey:
    """The runs of one call, one a seed."""

    def __init__(
        self, settings: TrainSettings, watcher: Watcher, asked_to_stop: Callable[[], int]
    ) -> None:
        self.settings, self.watcher, self.asked_to_stop = settings, watcher, asked_to_stop
        self.folder = None if settings.output is None else Path(settings.output)

    def run(self, resume: bool, overwrite: bool) -> TrainResult:
        s = self.settings
        self.accelerator = make_accelerator(s.device, s.precision, s.report_to, s.output)
        told_by_main(self.accelerator, lambda: check_wanted(self.settings))
        data = load_data(s)
        metrics = tuple(s.metric) or data.metrics
        first: Loaded = self.load(data, s.seeds[0])
        # Names of branches move: what was read is kept, for --resume, the adapter and its card.
        s = self.settings = fill_settings(s, first.model.config).model_copy(
            update={"metric": metrics, "revision": first.commit or s.revision,
                    "data_revision": data.source.get("revision", s.data_revision)}
        )  # fmt: skip
        # A typo, or a metric that does not fit the labels, is found out before the training.
        self.metrics = load_metrics(metrics, s.trust_remote_code)
        for split in data.validation.values():
            compute_metrics(self.metrics, split.targets, split.targets)
        choice = choose_parts(s, first.model, s.seeds[0])
        if self.folder is not None:
            folder, wanted = self.folder, resume
            resume = told_by_main(
                self.accelerator,
                lambda: folders.begin(folder, s, overwrite=overwrite, resume=wanted),
            )
            if resume and (done := self.finished(folder)) is not None:
                self.watcher.note(f"{folder}: this run came to its end before")
                self.hand_over(done, data.labels)
                return done
        runs = []
        held: Loaded | None = first
        for seed in s.seeds:
            loaded, held = held or self.load(data, seed), None
            runs.append(self.one(seed, loaded, data, resume))
            self.accelerator.free_memory()
        result = TrainResult(
            model=s.model, task=data.name, bias=s.bias, metric=metrics[0] if metrics else None,
            scalars=choice.scalars, head_scalars=choice.head_scalars, total=choice.total,
            settings=s.model_dump(mode="json"), runs=tuple(runs),
        )  # fmt: skip
        if self.folder is not None and self.accelerator.is_main_process:
            folders.write_results(self.folder, result)
        self.hand_over(result, data.labels)
        return result

    def finished(self, folder: Path) -> TrainResult | None:
        """The result of a run that came to its end there, as the main process sees it."""
        done: TrainResult | None = told_by_main(self.accelerator, lambda: folders.finished(folder))
        return done

    def hand_over(self, result: TrainResult, labels: Sequence[str]) -> None:
        """Cards beside the adapters, and what is pushed, by the main process."""
        pushed = told_by_main(self.accelerator, lambda: hand_over(result, self.settings, labels))
        if pushed is not None:
            self.watcher.note(f"pushed to {pushed}")

    def load(self, data: Data, seed: int) -> Loaded:
        s = self.settings
        return load_classifier(
            s.model, data.labels, revision=s.revision, tokenizer=s.tokenizer, dtype=s.dtype,
            device_map=s.device_map, new_head=s.new_head, seed=seed,
        )  # fmt: skip

    def one(self, seed: int, loaded: Loaded, data: Data, resume: bool) -> Run:
        """One seed, in its own folder where there are several."""
        import torch

        s = self.settings
        folder = self.folder
        if folder is not None and len(s.seeds) > 1:
            folder = folder / f"seed-{seed}"
            if self.accelerator.is_main_process:
                folders.make(folder)
            if resume and (done := self.finished(folder)) is not None:
                return done.runs[0]
        accelerator = self.accelerator
        choice = choose_parts(s, loaded.model, seed)
        for note in (*choice.notes, *data.notes):
            self.watcher.note(note)
        if loaded.fresh:
            self.watcher.note(f"drawn anew by seed {seed}: {', '.join(loaded.fresh)}")
        with out_of_memory(_sizes(s)):
            train, validation = self.encoded(data, loaded, seed)
            tuner = self.place(loaded, choice)
            if folder is not None:
                check_output(loaded, tuner, s)
            # Dropout of its own; imports have drawn from Python's generator, some more than others.
            torch.manual_seed(seed + 7919 * accelerator.process_index)
            random.seed(seed + 7919 * accelerator.process_index)
            job = Job(
                settings=s, seed=seed, model=loaded.model, tuner=tuner, train=train,
                validation=validation, objective=objective_for(data.labels),
                metrics=self.metrics,
                better=higher_is_better(s.metric[0]), accelerator=accelerator, folder=folder,
                watcher=self.watcher, asked_to_stop=self.asked_to_stop,
            )  # fmt: skip
            trainer = Trainer(job)
            if resume:
                found = trainer.resume()
                where = f"taken up at update {trainer.progress.step}"
                self.watcher.note(where if found else "no state is saved: begun anew")
            trainer.journal.cut()
            title = data.name if len(s.seeds) == 1 else f"{data.name}, seed {seed}"
            with tracked(accelerator, s, seed, folder):
                progress = trainer.run(f"{title}, bias {s.bias}")
        if s.keep == "best" and trainer.best_values:
            tuner.load_state(trainer.best_values)
        run = self.finish(seed, loaded, tuner, data, folder, progress, train, validation)
        tuner.close()
        return run

    def encoded(self, data: Data, loaded: Loaded, seed: int) -> tuple[Encoded, dict[str, Encoded]]:
        """Tokenise what this seed trains and is evaluated on, once."""
        s = self.settings
        length = loaded.fit_length(s.max_length or OWN_LENGTH)
        if length < (s.max_length or 0):
            self.watcher.note(f"the model holds {length} tokens, so --max-length is lowered to it")
        train = encode(draw_train(s, data, seed), loaded.tokenizer, max_length=length)
        validation = {
            name: encode(split, loaded.tokenizer, max_length=length)
            for name, split in draw_validation(data.validation, s.validation_size).items()
        }
        for note in dict.fromkeys(
            note for one in (train, *validation.values()) for note in one.notes
        ):
            self.watcher.note(note)
        for name, split in {"train": train, **validation}.items():
            if split.truncated:
                self.watcher.note(
                    f"{name}: {split.truncated} of {len(split)} examples cut to {length} tokens "
                    "(--max-length)"
                )
        return train, validation

    def place(self, loaded: Loaded, choice: Choice) -> Tuner:
        """Put the model on its device, freeze it but for the choice, make it ready to train."""
        import torch

        s, accelerator = self.settings, self.accelerator
        if s.device_map is None:
            loaded.model.to(accelerator.device)
        tuner = Tuner(loaded.model, choice, accelerator.device)
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(s.precision)
        if half is not None and choice.is_adapter:
            store_for_autocast(loaded.model, half)
        if s.gradient_checkpointing:
            checkpoint_activations(loaded.model)
        return tuner

    def finish(
        self,
        seed: int,
        loaded: Loaded,
        tuner: Tuner,
        data: Data,
        folder: Path | None,
        progress: Progress,
        train: Encoded,
        validation: dict[str, Encoded],
    ) -> Run:
        """Write what was trained, and sum up."""
        s, main = self.settings, self.accelerator.is_main_process
        adapter, form, notes = None, None, tuple(tuner.choice.notes)
        if folder is not None and main:
            adapter, form, more = write_output(folder, loaded, tuner, s, data)
            notes += more
            for note in more:
                self.watcher.note(note)
            facts = {
                "global_step": progress.step, "epoch": progress.epoch,
                "best": progress.best and asdict(progress.best),
                "last": progress.last and asdict(progress.last),
                "stopped_early": progress.stopped_early,
            }  # fmt: skip
            folders.write_history(folder, facts)
        run = Run(
            seed=seed, folder=None if folder is None else str(folder), adapter=adapter,
            adapter_format=form, best=progress.best, last=progress.last, kept=s.keep,
            scores=progress.scores, steps=progress.step,
            epochs=round(progress.epoch + progress.update / max(1, _updates(s, train)), 4),
            stopped_early=progress.stopped_early, train_examples=len(train),
            truncated={name: split.truncated for name, split in
                       {"train": train, **validation}.items()},
            train_seconds=round(progress.train_seconds, 3),
            eval_seconds=round(progress.eval_seconds, 3), notes=notes,
        )  # fmt: skip
        if folder is not None and main and folder != self.folder:
            choice = tuner.choice
            folders.write_results(folder, TrainResult(
                s.model, data.name, s.bias, s.metric[0] if s.metric else None, choice.scalars,
                choice.head_scalars, choice.total, s.model_dump(mode="json"), (run,),
            ))  # fmt: skip
        return run


def _updates(settings: TrainSettings, train: Encoded) -> int:
    batches = -(-len(train) // settings.batch_size)
    return -(-batches // settings.accumulation)


def _sizes(settings: TrainSettings) -> str:
    return (
        f"with batch_size {settings.batch_size}, max_length {settings.max_length}; lower "
        "--batch-size (and raise --accumulation), --max-length, or use --gradient-checkpointing, "
        "--precision bf16 or --dtype bfloat16"
    )
