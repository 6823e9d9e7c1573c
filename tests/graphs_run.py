"""A run of captured updates on any device, in memory or in a folder, for tests on CPUs and GPUs.

``python -m tests.graphs_run FOLDER DEVICE`` begins it or takes it up, a state after each update.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from beftkit.accelerator import make_accelerator
from beftkit.objectives import make_objective
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Encoded
from beftkit.training.captured import CapturedStepper
from beftkit.training.job import Job
from beftkit.training.trainer import Trainer
from beftkit.tuning import Tuner, checkpoint_activations, choose, store_for_autocast
from beftkit.watching import Unwatched

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Told(Unwatched):
    """Keeps notes and lines of the log."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.records: list[Mapping[str, Any]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def logged(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)


def examples(count: int = 200, longest: int = 40) -> Encoded:
    """Random rows of 4 to ``longest`` tokens, most of them short; small tokens make the label."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(count, generator=generator) * 0.5 + 2.6
    lengths = drawn.exp().long().clamp(4, longest)
    rows = [torch.randint(2, 200, (int(n),), generator=generator) for n in lengths]
    shares = torch.tensor([float((row < 100).float().mean()) for row in rows])
    return Encoded(
        ids=torch.cat(rows).to(torch.int32), type_ids=None,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        first_row=torch.arange(count + 1), truncated=0, pad_id=0,
        targets=(shares > 0.5).long(),
    )  # fmt: skip


def bert(dropout: float = 0.0, **options: Any) -> Any:
    """A random BERT of 4 layers of 128, biases not zero."""
    import transformers

    torch.manual_seed(0)
    rest = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, **options}
    size = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = transformers.BertConfig(
        vocab_size=200, intermediate_size=256, max_position_embeddings=64, **{**size, **rest}
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            matrix = parameter.dim() > 1
            parameter.add_((0.05 if matrix else 0.1 * name.endswith("bias")) * noise)
    return model


def run_of(
    net: Any, device: str, graphs: str, *, bias: str = "q,v", folder: Path | None = None,
    watcher: Any = None, data: Encoded | None = None, **settings: Any,
) -> Trainer:  # fmt: skip
    """A trainer at its beginning; settings as in `TrainSettings`."""
    given = {"lr": 1e-3, "epochs": 4, "batch_size": 16, "log_steps": 1, **settings}
    s = TrainSettings(model="m", train_file="none", bias=bias, graphs=graphs, **given)
    accelerator = make_accelerator(device, s.precision)
    net = net.to(accelerator.device)
    tuner = Tuner(net, choose(net, bias), accelerator.device)
    if s.precision in HALF:
        store_for_autocast(net, HALF[s.precision])
    if s.gradient_checkpointing:
        checkpoint_activations(net)
    return Trainer(
        Job(
            settings=s, seed=0, model=net, tuner=tuner, train=data or examples(), validation={},
            objective=make_objective("classes", ("no", "yes")), metrics=("accuracy",), better=True,
            accelerator=accelerator, folder=folder, watcher=watcher or Told(),
        )
    )  # fmt: skip


def run(trainer: Trainer, updates: int | None = None, seed: int = 3) -> Trainer:
    """Run it to its end, or as far as that."""
    torch.manual_seed(seed)
    if updates is not None:
        trainer.total_steps = updates
    trainer.run()
    return trainer


def uncaptured(trainer: Trainer) -> Trainer:
    """Let a captured run do the same without a graph, on the same rounded batches."""
    stepper = trainer.stepper
    assert isinstance(stepper, CapturedStepper), trainer.job.watcher.notes  # type: ignore[attr-defined]
    stepper.eager = {0, *stepper.widths.chosen}
    return trainer


def by_role(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What trained, by role (a head's parameters by name), on the CPU in float64."""
    found: dict[str, list[torch.Tensor]] = {}
    for unit in trainer.job.tuner.units:
        roles = {site.role for site in unit.part.sites} or {unit.part.parameter}
        flat = unit.values.detach().cpu().double().reshape(-1)
        found.setdefault("+".join(sorted(roles)), []).append(flat)
    return {role: torch.cat(parts) for role, parts in found.items()}


def main() -> None:
    """Begin or take up a run in a folder; dropout is on."""
    folder, device = Path(sys.argv[1]), sys.argv[2]
    trainer = run_of(bert(0.1), device, "on", folder=folder, save_steps=1, epochs=2)
    torch.manual_seed(3)
    trainer.resume()
    trainer.run()
    torch.save(by_role(trainer), folder / "end.pt")
    stepper = trainer.stepper
    assert isinstance(stepper, CapturedStepper) and stepper.graphs, trainer.job.watcher.notes  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
