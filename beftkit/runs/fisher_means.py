"""Mean squared gradients over a task's examples, shared out among the processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import out_of_memory, sum_over_processes
from beftkit.objectives.kinds import objective_for
from beftkit.tasks import Encoded

if TYPE_CHECKING:
    from accelerate import Accelerator

#: examples a pass by default, and as the published code has it
BATCH, BATCH_PUBLISHED = 16, 8


def example_means(
    model: Any,
    names: Sequence[str],
    encoded: Encoded,
    labels: Sequence[str],
    accelerator: Accelerator,
    *,
    batch_size: int = BATCH,
    budget: int | None = None,
    gradient_checkpointing: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The exact Fisher of some parameters over all examples, shared out among the processes.

    Returns:
        Parameter to the mean over examples, float64 ``[D]``; parameters measured one by one.
    """
    import torch

    from beftkit.gradients import example_squares
    from beftkit.gradients.taps import BUDGET
    from beftkit.tasks import plan_evaluation

    objective = objective_for(labels)

    def losses(model: Any, batch: Any) -> Any:
        return objective.losses(model, batch)[0] * objective.nll_factor

    plans = plan_evaluation(encoded.lengths, batch_size)
    mine = plans[accelerator.process_index :: accelerator.num_processes]
    shortest = torch.cat(plans)[-2:]
    alone: tuple[str, ...] = ()
    device = next(model.parameters()).device
    if mine:
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
        with out_of_memory(_advice(batch_size)):
            found = example_squares(
                model, names, (encoded.batch(one, device=device) for one in mine), losses,
                probe=encoded.batch(shortest), autocast=accelerator.autocast, half=half,
                budget=BUDGET if budget is None else budget,
                gradient_checkpointing=gradient_checkpointing,
            )  # fmt: skip
        sums, alone = found.sums, found.alone
    else:  # more processes than batches
        parameters = dict(model.named_parameters(remove_duplicate=False))
        sums = {name: torch.zeros_like(parameters[name], dtype=torch.float64) for name in names}
    sums = {name: one.to(accelerator.device) for name, one in sums.items()}
    sum_over_processes(accelerator, list(sums.values()))
    return {name: one / len(encoded) for name, one in sums.items()}, alone


def published_means(
    model: Any,
    names: Sequence[str],
    encoded: Encoded,
    labels: Sequence[str],
    accelerator: Accelerator,
    *,
    batch_size: int = BATCH_PUBLISHED,
) -> dict[str, Any]:
    """The published code's quantity: batches in the order of the examples, all biases trained.

    Returns:
        Parameter to the mean over batches, float64 ``[D]``.
    """
    import torch

    from beftkit.gradients import batch_mean_squares
    from beftkit.tuning import choose

    objective = objective_for(labels)
    plans = list(torch.arange(len(encoded)).split(batch_size))
    mine = plans[accelerator.process_index :: accelerator.num_processes]
    device = next(model.parameters()).device
    trained = [part.parameter for part in choose(model, "all").parts]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    sums = {name: torch.zeros_like(parameters[name], dtype=torch.float64) for name in names}
    if mine:
        with out_of_memory(_advice(batch_size)):
            sums, _, _ = batch_mean_squares(
                model, names, trained, (encoded.batch(one, device=device) for one in mine),
                lambda model, batch: objective.losses(model, batch)[0],
                autocast=accelerator.autocast,
            )  # fmt: skip
    sums = {name: one.to(accelerator.device) for name, one in sums.items()}
    sum_over_processes(accelerator, list(sums.values()))
    return {name: one / len(plans) for name, one in sums.items()}


def _advice(batch_size: int) -> str:
    return (
        f"with batch_size {batch_size}; lower --batch-size or --max-length, or use "
        "--gradient-checkpointing or --dtype bfloat16"
    )
