"""Language: what a causal model learns to write, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from beftkit.errors import BeftError, UsageError, option
from beftkit.objectives.answers import Answer
from beftkit.objectives.causal import CausalObjective, answer_logits
from beftkit.objectives.objective import Use
from beftkit.objectives.passages import encode_conversations, encode_texts
from beftkit.objectives.prompts import encode_prompts
from beftkit.tasks import Split
from beftkit.tasks.language_metrics import check_language, language_errors, measure_language

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.registry import Task
    from beftkit.tasks import Batch, Encoded, Prompted

#: logits that a pass without gradients makes at once: 256 MiB of float32
_LOGITS = 1 << 26
_NO_ANSWER = (
    "it was trained on language, and what it would answer is a text; expected one that gives "
    "labels or values: `beftkit evaluate` tells its perplexity, `beftkit export` hands it over"
)


@dataclass(frozen=True)
class Language(CausalObjective):
    """Targets say nothing. Outputs, float32 [B, 3]: of each example -log p of its learnt tokens,
    how many of them were the likeliest, and how many they are.

    The loss of an example is the mean over its learnt tokens, that of an evaluation the mean over
    all tokens, the logarithm of perplexity; for the Fisher score -log p is the sum.
    """

    labels: tuple[str, ...] = ()
    own_ids: tuple[int, ...] = ()
    answer_fields = ("value",)

    def settings(self, task: Task | None) -> Mapping[str, Any]:
        """Those published for OPT's prompts."""
        return {
            "lr": 1e-3, "epochs": 5, "batch_size": 8, "schedule": "linear", "max_length": 2048,
        }  # fmt: skip

    def posed(self, texts: Sequence[list[str]], task: Task | None) -> Split:
        raise BeftError(_NO_ANSWER)

    def encode(
        self, split: Split, tokenizer: Any, max_length: int, *, allow_empty: bool = False
    ) -> Encoded:
        how = split.targets, tokenizer, max_length
        if split.asked:
            return encode_prompts(split.asked, *how)
        if split.conversations:
            return encode_conversations(split.conversations, *how)
        return encode_texts(split.texts[0], *how)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        return torch.cat([_counted(model, part) for part in _parts(model, batch.inputs)])

    def answers(self, outputs: Any) -> list[Answer]:
        raise BeftError(_NO_ANSWER)

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        outputs = self.outputs(model, batch)
        return outputs[:, 0] / outputs[:, 2], outputs.detach()

    def negative_log_likelihoods(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.outputs(model, batch)[:, 0]

    def total_loss(
        self, losses: float, predictions: Sequence[Any], encoded: Encoded
    ) -> tuple[float, float]:
        return sum(one[0] for one in predictions), sum(one[2] for one in predictions)

    def predictions(self, outputs: Any) -> list[tuple[float, ...]]:
        """[B], the outputs as numbers."""
        return [tuple(row) for row in outputs.tolist()]

    def check(self, metrics: Sequence[Any], split: Split) -> None:
        check_language(metrics)

    def check_shots(self, count: int) -> None:
        raise UsageError(
            f"{option('shots', count)}: demonstrations stand before a task's prompt, and this is "
            "language; expected --task, or --template"
        )

    def alike(self, predictions: Sequence[Any]) -> bool:
        """Never: they are counts of tokens, no answers."""
        return False

    def measure(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        return measure_language(metrics, predictions)

    def standard_errors(
        self,
        metrics: Sequence[Any],
        predictions: Any,
        targets: Any,
        asked: Sequence[Prompted] = (),
    ) -> Mapping[str, float]:
        return language_errors(metrics, predictions)

    def described(self) -> str:
        return "Text, token by token, as the base writes it"

    def snippet(self, use: Use) -> list[str]:
        return [
            "import beftkit",
            "",
            f"predictor = beftkit.load({use.base}, adapter={use.adapter})",
            "model, tokenizer = predictor.model, predictor.tokenizer",
            "",
            "",
            "def predict(prompt):",
            '    """What the model writes behind a prompt, in the form of its training."""',
            '    given = tokenizer(prompt, return_tensors="pt").to(model.device)',
            "    made = model.generate(**given, max_new_tokens=64, do_sample=False)[0]",
            '    return tokenizer.decode(made[given["input_ids"].shape[1] :])',
        ]


def _counted(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Of each row [R, 3], as `Language` says."""
    there = inputs["answer_at"] >= 0
    logits, tokens = answer_logits(model, inputs)
    lost = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    hits = (logits.detach().argmax(-1) == tokens) & there
    sums = lost.view_as(there).masked_fill(~there, 0.0).sum(1)
    return torch.stack([sums, hits.sum(1).to(sums), there.sum(1).to(sums)], 1)


def _parts(model: Any, inputs: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The rows of a batch; without gradients so many at once that their logits stay small."""
    rows, places = inputs["answer_at"].shape
    most = rows
    if not torch.is_grad_enabled():
        size = getattr(model.config.get_text_config(), "vocab_size", 1)
        most = max(1, _LOGITS // max(1, places * size))
    for begin in range(0, rows, most):
        yield {name: one[begin : begin + most] for name, one in inputs.items()}


#: what `beftkit.objectives.make_objective` calls
make = Language
