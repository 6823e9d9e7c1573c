"""The runs of `packed.py`: a decoder trained each way; packed ones are checked, then timed."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from beftkit.accelerator import arithmetic, make_accelerator
from beftkit.graphs import capture, detach_from_past
from beftkit.objectives import make_objective
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Encoded, plan
from beftkit.tasks.resident import Resident
from beftkit.training.captured import CapturedStepper
from beftkit.training.course import course_of
from beftkit.training.job import Job
from beftkit.training.trainer import Trainer
from beftkit.tuning import Tuner, choose, store_for_autocast
from bench import packing
from bench.graphs import Notes, epochs_of, synchronize
from bench.material import SEED
from bench.packing import PackedStepper, use_packed_attention

#: of a prompt's published recipe: examples, epochs
EXAMPLES, EPOCHS = 1000, 5
#: a packed update's gradient and a padded one's differ by this share of its norm at most, ...
AGREE = {"fp32": 1e-4, "bf16": 0.1}
#: ... and a pack that leaks is so many times as far off
APART = 5.0
SMOL = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    "max_position_embeddings": 8192, "initializer_range": 0.04,
}  # fmt: skip
TINY = {
    **SMOL, "vocab_size": 300, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 3, "num_key_value_heads": 1, "initializer_range": 0.2,
}  # fmt: skip


class Way(NamedTuple):
    """A contestant.

    Attributes:
        name: in the tables.
        kind: ``eager``, ``widths``, ``one`` or ``budgets``.
        grouped: batches of like lengths, as the product makes them, or a plain shuffle.
    """

    name: str
    kind: str
    grouped: bool = True


#: most telling first; eager last, which takes longest
WAYS = (
    Way("widths", "widths"),
    Way("packed, budgets", "budgets"),
    Way("packed, one budget", "one"),
    Way("packed, budgets, shuffled", "budgets", False),
    Way("packed, one budget, shuffled", "one", False),
    Way("eager, unrounded", "eager"),
)


def encoded(lengths: Tensor, vocabulary: int) -> Encoded:
    """Random prompts of these lengths, each with two answers of one token."""
    random = np.random.default_rng(SEED)
    ids = random.integers(10, vocabulary, int(lengths.sum()))
    count = len(lengths)
    return Encoded(
        ids=torch.from_numpy(ids).to(torch.int32), type_ids=None,
        first_row=torch.arange(count + 1), truncated=0, pad_id=0,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        targets=torch.from_numpy(random.integers(2, size=count)),
        among=torch.tensor([[5, 6]]).repeat(count, 1),
    )  # fmt: skip


def build(device: str, small: bool = False) -> Any:
    """The decoder, drawn on the device."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(SEED)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**(TINY if small else SMOL)))
    return model.train()


def trainer_of(way: Way, lengths: Tensor, batch: int, device: str, small: bool = False) -> Trainer:
    """A run in memory, nothing logged between two epochs: bf16 on a GPU, fp32 on a CPU."""
    precision, captured = ("fp32", "on") if device == "cpu" else ("bf16", "auto")
    model = build(device, small)
    settings = TrainSettings(
        model="m", train_file="none", bias="none", add_bias="v", lr=1e-3, epochs=EPOCHS,
        batch_size=batch, precision=precision, schedule="linear", group_by_length=way.grouped,
        graphs=captured if way.kind != "eager" else "off",
    )  # fmt: skip
    accelerator = make_accelerator(device, precision)
    tuner = Tuner(model, choose(model, "none", add_bias="v"), accelerator.device)
    if precision == "bf16":
        store_for_autocast(model, torch.bfloat16)
    data = encoded(lengths, model.config.vocab_size)
    job = Job(
        settings=settings, seed=SEED, model=model, tuner=tuner, train=data, validation={},
        objective=make_objective("choice", ("no", "yes")), metrics=("accuracy",), better=True,
        accelerator=accelerator, folder=None, watcher=Notes(),
    )  # fmt: skip
    trainer = Trainer(job)
    if way.kind in ("one", "budgets"):
        use_packed_attention(model)
        course = course_of(settings, len(data))
        trainer.stepper = PackedStepper(job, course, trainer.meter, one=way.kind == "one")
    return trainer


class Wrong(Exception):
    """A packed update is not the padded one."""


def check(trainer: Trainer) -> dict[str, Any]:
    """Captured packed updates against padded ones, for the least, a middle and the largest batch.

    Raises:
        Wrong: they differ, or so much as a leaking pack does.
    """
    job, stepper = trainer.job, trainer.stepper
    assert isinstance(stepper, PackedStepper)
    resident = Resident(job.train, stepper.device)
    batches = plan(
        job.train.lengths, stepper.rows, seed=SEED, epoch=0, grouped=job.settings.group_by_length
    )
    stepper.planned(batches, 0)
    order = np.argsort(stepper.upcoming).tolist()
    worst, graphs, leaks = 0.0, dict[int, Any](), list[float]()
    stepper.stride.zero_()
    with arithmetic(job.accelerator):
        for place in (order[0], order[len(order) // 2], order[-1]):
            budget, _ = stepper.widths.of(stepper.upcoming[place])
            if budget not in graphs:
                # Recorded with the least batch: whatever it held of that would show in others.
                stepper.at.fill_(order[0])
                detach_from_past(stepper.values)
                work = partial(stepper._batch, budget)
                graphs[budget] = capture(work, device=stepper.device, pool=stepper.pool)
            stepper.at.fill_(place)
            _zero(stepper)
            graphs[budget].replay()
            packed = [stepper.loss.clone(), *(one.clone() for one in stepper.grads)]
            shares = stepper.shares[place]
            examples = stepper.plan[place]
            width = int(job.train.lengths[batches[place]].max())
            padded, leaky = _padded(stepper, resident, examples, shares, width, budget)
            worst = max(worst, _apart(packed, padded))
            leaks.append(_apart(leaky, padded))
    _zero(stepper)
    stepper.stride.fill_(1)
    found = {"differs": worst, "leaking differs": min(leaks)}
    if not worst <= AGREE[job.settings.precision] or not min(leaks) > APART * worst:
        raise Wrong(f"packed differs from padded by {worst:.1e}, leaking by {min(leaks):.1e}")
    return found


def _zero(stepper: CapturedStepper) -> None:
    torch._foreach_zero_(stepper.grads)
    stepper.loss.zero_()


def _padded(
    stepper: PackedStepper, resident: Resident, examples: Tensor, shares: Tensor, width: int,
    budget: int,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Loss and gradients of a padded batch, and of a pack whose examples see those before."""
    job, found = stepper.job, []
    batch = resident.batch(examples, width)
    for way in ("sdpa", packing.NAME):
        job.model.set_attn_implementation(way)
        with job.accelerator.autocast():
            if way == "sdpa":
                losses, _ = job.objective.losses(job.model, batch)
            else:
                pack = stepper.packs.cut(examples, shares > 0, budget)
                ends = pack.bounds[[0, -1]]
                pack = pack._replace(bounds=ends, longest=budget)
                logs = packing.scores(job.model, pack, batch.inputs["among"])
                losses = torch.nn.functional.cross_entropy(logs, batch.targets, reduction="none")
        loss = (losses * shares).sum()
        found.append([loss.detach(), *torch.autograd.grad(loss, stepper.values)])
    return found[0], found[1]


def _apart(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The larger relative difference, of losses and of gradients by norm."""
    loss = float((found[0] - wanted[0]).abs() / wanted[0].abs())
    one, other = (torch.cat([*map(torch.flatten, each[1:])]).double() for each in (found, wanted))
    return max(loss, float((one - other).norm() / other.norm()))


def warm(device: str, small: bool) -> None:
    """What happens once in a process, before anything is timed."""
    trainer_of(WAYS[-1], torch.arange(8, 40), 16, device, small).run()


def time_way(
    way: Way, lengths: Tensor, batch: int, device: str, small: bool = False
) -> dict[str, Any]:
    """One row."""
    if device == "cuda":
        gc.collect()  # of the row before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = trainer_of(way, lengths, batch, device, small)
    stepper, where = trainer.stepper, trainer.job.accelerator.device
    found: dict[str, Any] = check(trainer) if isinstance(stepper, PackedStepper) else {}
    if isinstance(stepper, CapturedStepper):
        first, later = epochs_of(trainer, 2)
        packed = isinstance(stepper, PackedStepper)
        used = [stepper.widths.of(one)[0] for one in stepper.upcoming]
        found |= {
            "tokens an update": sum(used) / len(used) * (1 if packed else stepper.rows),
            "update ms": later / trainer.steps_per_epoch * 1e3,
            "first epoch s": first,
            "run s": first + (EPOCHS - 1) * later,
            "graphs": sum(name == "update" for name, _ in stepper.graphs),
            "recording s": sum(stepper.recording),
            "eager widths": len({*used} - {width for _, width in stepper.graphs}),
        }
    else:
        each = list[float]()
        for until in (10, 40):  # the first ones warm up
            synchronize(where)
            trainer.total_steps, begun = until, time.perf_counter()
            trainer.run()
            synchronize(where)
            each.append(time.perf_counter() - begun)
        found["update ms"] = each[1] / 30 * 1e3
    if device == "cuda":
        found["reserved MiB"] = torch.cuda.max_memory_reserved() / 2**20
    return found
