"""Mean squared gradients over encoded examples, shared out among the processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from beftkit.accelerator import arithmetic, out_of_memory, sum_over_processes
from beftkit.gradients.batch_mean import batch_mean_squares
from beftkit.gradients.captured import Graphs, of_gpu
from beftkit.gradients.exact import example_squares
from beftkit.gradients.taps import BUDGET
from beftkit.objectives import Objective
from beftkit.tasks import Encoded, plan_evaluation
from beftkit.tasks.costs import costs_of
from beftkit.tasks.resident import rows_each, widths_of
from beftkit.tasks.widths import Widths, choose_widths
from beftkit.tuning import choose
from beftkit.watching import Unwatched, Watcher, told

if TYPE_CHECKING:
    from accelerate import Accelerator


def example_means(
    model: Any,
    names: Sequence[str],
    encoded: Encoded,
    objective: Objective,
    accelerator: Accelerator,
    *,
    batch_size: int,
    budget: int = BUDGET,
    gradient_checkpointing: bool = False,
    graphs: Graphs = "auto",
    watcher: Watcher | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The exact Fisher of some parameters over all examples, shared out among the processes.

    ``watcher`` is told each batch; ``graphs`` is as in `example_squares`: batches are filled up to
    few widths then, unless the model reads padding.

    Returns:
        Parameter to the mean over examples, float64 ``[D]``; parameters measured one by one.
    """

    def losses(model: Any, batch: Any) -> Any:
        return objective.negative_log_likelihoods(model, batch)

    plans = plan_evaluation(encoded.lengths, batch_size, by_length=encoded.by_length)
    mine = plans[accelerator.process_index :: accelerator.num_processes]
    shortest = torch.cat(plans)[-2:]
    watcher = watcher or Unwatched()
    watcher.started("Fisher", len(mine), 0)
    alone: tuple[str, ...] = ()
    sums = _zeros(model, names)  # kept where there are more processes than batches
    if mine:
        wanted = graphs == "on" or (graphs == "auto" and of_gpu(accelerator.device))
        widths = _widths(model, encoded, mine, accelerator, graphs) if wanted else None
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
        with out_of_memory(_advice(batch_size)), arithmetic(accelerator):
            found = example_squares(
                model,
                names,
                (
                    encoded.batch(one, pad_to=_filled(encoded, one, widths))
                    for one in told(watcher, mine)
                ),
                losses,
                probe=encoded.batch(shortest),
                graphs=graphs,
                recurring=None if widths is None else {(batch_size, w) for w in widths.chosen},
                note=watcher.note,
                autocast=accelerator.autocast,
                half=half,
                budget=budget,
                gradient_checkpointing=gradient_checkpointing,
            )
        sums, alone = found.sums, found.alone
    return _mean(sums, len(encoded), accelerator), alone


def published_means(
    model: Any,
    names: Sequence[str],
    encoded: Encoded,
    objective: Objective,
    accelerator: Accelerator,
    *,
    batch_size: int,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """The published code's quantity: batches in the order of the examples, all biases trained.

    ``watcher`` is told each batch.

    Returns:
        Parameter to the mean over batches, float64 ``[D]``.
    """
    plans = list(torch.arange(len(encoded)).split(batch_size))
    mine = plans[accelerator.process_index :: accelerator.num_processes]
    trained = [part.parameter for part in choose(model, "all").parts]
    sums = _zeros(model, names)
    watcher = watcher or Unwatched()
    watcher.started("Fisher", len(mine), 0)
    shares: list[float] = []

    def batches() -> Iterator[Any]:
        for one in told(watcher, mine):
            # What makes the mean over a batch's examples the loss of an update.
            shares.append(len(one) / objective.units(encoded, one))
            yield encoded.batch(one)

    if mine:
        with out_of_memory(_advice(batch_size)), arithmetic(accelerator):
            sums, _, _ = batch_mean_squares(
                model,
                names,
                trained,
                batches(),
                lambda model, batch: objective.losses(model, batch)[0] * shares[-1],
                autocast=accelerator.autocast,
            )
    return _mean(sums, len(plans), accelerator)


def _widths(
    model: Any, encoded: Encoded, plans: Sequence[Any], accelerator: Accelerator, graphs: Graphs
) -> Widths | None:
    """Which widths are captured; None: those that turn out to recur."""
    if encoded.by_length or rows_each(encoded) != 1:
        return None
    counts = Counter(widths_of(encoded, plans))
    half = accelerator.mixed_precision != "no"
    costs = costs_of(model, half=half)
    # Batches are gone over once: recordings pay late, and padding is all the cheaper for it.
    how: dict[str, Any] = {"everything": graphs == "on", "most": math.inf}
    return choose_widths(counts, len(plans[0]), costs, **how)


def _filled(encoded: Encoded, examples: Any, widths: Widths | None) -> int | None:
    """How wide a batch is made; None: as wide as it is."""
    return None if widths is None else widths.of(widths_of(encoded, [examples])[0])[0]


def _zeros(model: Any, names: Sequence[str]) -> dict[str, Any]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {name: torch.zeros_like(parameters[name], dtype=torch.float64) for name in names}


def _mean(sums: dict[str, Any], count: int, accelerator: Accelerator) -> dict[str, Any]:
    """Sums of all processes, divided by how many there were of what was summed."""
    sums = {name: one.to(accelerator.device) for name, one in sums.items()}
    sum_over_processes(accelerator, list(sums.values()))
    return {name: one / count for name, one in sums.items()}


def _advice(batch_size: int) -> str:
    return (
        f"with batch_size {batch_size}; lower --batch-size or --max-length, or use "
        "--gradient-checkpointing or --dtype=bfloat16"
    )
