"""Metrics of a model on labelled examples."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import arithmetic
from beftkit.watching import Unwatched, Watcher, told

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from beftkit.objectives import Objective
    from beftkit.tasks import Encoded
    from beftkit.training.forwards import Forwards, Replays


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: by name; with several splits ``accuracy_matched``, ``accuracy_mismatched``. None:
            not defined here (a correlation of constant predictions).
        loss: mean over all examples; of texts that are learnt or written over their tokens.
        examples: how many there were.
        seconds: wall time.
        baselines: by name, what one prediction for all examples gets (`Objective.baseline`); None:
            not defined. Empty where the task has no such prediction.
        standard_errors: by name, one standard error at this many examples; None: not known; 0: all
            examples are alike (right, or wrong), see `beftkit.tasks.deviations.zero_error_note`.
        constant: every example of a split got the same answer (`Objective.alike`), in all splits.
        baseline_is: in words, what `baselines` are of: ``majority class``, ``always the mean``.
    """

    metrics: Mapping[str, float | None]
    loss: float
    examples: int
    seconds: float
    baselines: Mapping[str, float | None] = field(default_factory=dict)
    standard_errors: Mapping[str, float | None] = field(default_factory=dict)
    constant: bool = False
    baseline_is: str = ""

    @property
    def at_baseline(self) -> bool:
        """Nothing better was predicted than one and the same for every example."""
        name, value = next(iter(self.metrics.items()))
        return self.constant or (value is not None and value == self.baselines.get(name))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        finite = self.loss if math.isfinite(self.loss) else None
        plain = {"metrics": dict(self.metrics), "loss": finite, "seconds": round(self.seconds, 3)}
        plain |= {name: dict(getattr(self, name)) for name in ("baselines", "standard_errors")}
        return {**vars(self), **plain}

    def kept(self, step: int, epoch: float) -> Evaluated:
        """What a run keeps of it."""
        metrics, more = dict(self.metrics), (dict(self.baselines), dict(self.standard_errors))
        return Evaluated(step, epoch, metrics, *more, self.constant, self.baseline_is)


@dataclass(frozen=True)
class Evaluated:
    """What a run keeps of an evaluation.

    Attributes:
        step: updates before it.
        epoch: passes over the data before it, with a fraction.
        metrics, baselines, standard_errors, constant, baseline_is: as in `Evaluation`; nothing is
            known but the metrics in files of before they were written down.
    """

    step: int
    epoch: float
    metrics: Mapping[str, float | None]
    baselines: Mapping[str, float | None] = field(default_factory=dict)
    standard_errors: Mapping[str, float | None] = field(default_factory=dict)
    constant: bool = False
    baseline_is: str = ""


def stayed_note(found: Evaluation | Evaluated, *, every: bool = False) -> str:
    """What to say of an evaluation that found no more than its baseline, or of a run of such."""
    name, value = next(iter(found.metrics.items()))
    got = "is not defined" if value is None else f"{value:.4f}"
    said = [f"{name} {got}"]
    if (same := found.baselines.get(name)) is not None:
        said.append(f"{found.baseline_is} {same:.4f}")
    what = "no better than one answer for all"
    if found.constant:
        what = "every example got the same answer"
    when = "this run never left its baseline: at the last evaluation " if every else ""
    return f"{when}{what} ({', '.join(said)})"


def load_metrics(names: Sequence[str], trust_remote_code: bool = False) -> list[Any]:
    """What `evaluate_model` takes: names of our own metrics, and loaded ones of others.

    Raises:
        BeftError: there is no such metric, or it would be code from the hub.
    """
    from beftkit.tasks import OUR_METRICS, load_metric

    return [
        name if name in OUR_METRICS else load_metric(name, trust_remote_code=trust_remote_code)
        for name in names
    ]


def evaluate_model(
    model: Any,
    splits: Mapping[str, Encoded],
    objective: Objective,
    metrics: Sequence[Any],
    accelerator: Accelerator,
    batch_size: int,
    watcher: Watcher | None = None,
    *,
    replays: Replays | None = None,
) -> Evaluation:
    """Evaluate a model in memory; every example counts once, however many processes there are.

    Args:
        model: on its device; its mode is put back afterwards.
        splits: tokenised examples by split.
        objective: loss and predictions.
        metrics: from `load_metrics`.
        accelerator: precision and processes.
        batch_size: examples a forward pass.
        watcher: told each batch.
        replays: of this evaluation and of others alike; None: nothing is captured.
    """
    from beftkit.tasks import plan_evaluation

    watcher = watcher or Unwatched()
    started = time.perf_counter()
    was_training = model.training
    model.eval()
    found: dict[str, float | None] = {}
    baselines: dict[str, float | None] = {}
    errors: dict[str, float | None] = {}
    total, weight, count, constant = 0.0, 0.0, 0, True
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    batches = {
        name: plan_evaluation(split.lengths, batch_size, by_length=split.by_length)[share]
        for name, split in splits.items()
    }
    watcher.started("evaluation", sum(map(len, batches.values())), 0)
    try:
        for name, split in splits.items():
            forwards = None
            if replays is not None:
                how = objective, accelerator, objective.evaluated
                forwards = replays.of(name, model, split, batches[name], *how)
            mine = told(watcher, batches[name])
            predictions, loss = _predict(model, split, objective, accelerator, mine, forwards)
            suffix = name.removeprefix("validation") if len(splits) > 1 else ""
            truth = split.targets, split.asked
            measured = objective.measure(metrics, predictions, *truth)
            same = objective.baseline(metrics, *truth)
            spread = objective.standard_errors(metrics, predictions, *truth)
            for held, values in ((found, measured), (baselines, same), (errors, spread)):
                for key, value in values.items():
                    held[f"{key}{suffix}"] = value if math.isfinite(value) else None
            constant = constant and objective.alike(predictions)
            summed, over = objective.total_loss(loss, predictions, split)
            total, weight, count = total + summed, weight + over, count + len(split)
    finally:
        model.train(was_training)
    seconds = time.perf_counter() - started
    more = baselines, errors, constant, objective.constant
    return Evaluation(found, total / weight, count, seconds, *more)


def _predict(
    model: Any,
    split: Encoded,
    objective: Objective,
    accelerator: Accelerator,
    batches: Iterable[Tensor],
    forwards: Forwards | None = None,
) -> tuple[Sequence[Any], float]:
    """Predictions ``[N]`` in the order of the examples, and the summed loss.

    ``batches``: this process's share of them. ``forwards``: passes over them that are captured.
    """
    import torch
    from accelerate.utils import gather_object

    mine, parts, losses = [], [], []
    # Autocast remembers casts to its end, and a graph must not hold what is forgotten then.
    cast = nullcontext() if forwards else accelerator.autocast()
    with arithmetic(accelerator), torch.inference_mode(), cast:
        for number, examples in enumerate(batches):
            if forwards is not None:
                loss, predicted = forwards(number)
            else:
                batch = split.batch(examples, device=accelerator.device)
                loss, predicted = objective.evaluated(model, batch)
            losses.append(loss.sum(dtype=torch.float32).double())
            parts.append(predicted)
            mine.append(examples)
    order = [at for examples in mine for at in examples.tolist()]
    predicted = [one for part in parts for one in _on_cpu(part)]
    shares = [(order, predicted, float(torch.stack(losses).sum()) if losses else 0.0)]
    if accelerator.num_processes > 1:
        shares = gather_object(shares)
    found = {at: one for share in shares for at, one in zip(share[0], share[1], strict=True)}
    return [found[at] for at in range(len(split))], sum(share[2] for share in shares)


def _on_cpu(part: Any) -> Sequence[Any]:
    """Predictions of a batch; tensors are fetched after the last batch, nothing waits before."""
    if not hasattr(part, "is_floating_point"):
        return part  # type: ignore[no-any-return]
    values: Sequence[Any] = (part.float() if part.is_floating_point() else part).cpu().numpy()
    return values
