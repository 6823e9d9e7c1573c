"""Models with a head over a whole text: what classes and values have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from beftkit.errors import BeftError
from beftkit.models import Architecture, Loaded, held_names, load_model, load_skeleton
from beftkit.objectives.fits import settle_padding
from beftkit.objectives.objective import Objective
from beftkit.tasks import Batch, Encoded, Split, compute_metrics, encode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.settings.parts import ModelSettings


class HeadObjective(Objective):
    """One row an example, and a head whose outputs [B, `width`] are compared with the targets."""

    task_type = "SEQ_CLS"
    pipeline_tag = "text-classification"
    own_ids: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Outputs of the head."""
        return max(len(self.labels), 1)

    def load(self, settings: ModelSettings, seed: int) -> Loaded:
        s = settings
        return load_classifier(
            s.model,
            self.labels,
            revision=s.revision,
            tokenizer=s.tokenizer,
            dtype=s.dtype,
            device_map=s.device_map,
            head=s.head,
            seed=seed,
            trust_remote_code=s.trust_remote_code,
        )

    def skeleton(self, settings: ModelSettings) -> Any:
        return load_skeleton(
            settings.model,
            _classifier(self.labels),
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
        )

    def encode(self, split: Split, tokenizer: Any, max_length: int) -> Encoded:
        return encode(split, tokenizer, max_length=max_length)

    def measure(
        self, metrics: Sequence[Any], predictions: Any, targets: Any
    ) -> Mapping[str, float]:
        if self.own_ids:
            own = np.array(self.own_ids)
            predictions, targets = own[np.asarray(predictions)], own[np.asarray(targets)]
        return compute_metrics(metrics, predictions, targets)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """The head's outputs, float32 [B, `width`]."""
        # Labels stay here: given any, a model would choose and average a loss of its own.
        logits: Tensor = model(**batch.inputs).logits
        if logits.shape != (batch.examples, self.width):
            raise BeftError(
                f"the model's outputs have shape {list(logits.shape)}, expected"
                f" {[batch.examples, self.width]}: a classification head of {self.width} outputs"
            )
        # Half-precision logits round the loss; float64 ones stay for those who check gradients.
        return logits if logits.dtype == torch.float64 else logits.float()

    def snippet(self, base: str, adapter: str, by_peft: bool) -> list[str]:
        name = f"Auto{'Peft' * by_peft}ModelForSequenceClassification"
        if by_peft:
            return [
                f"from peft import {name}",
                "from transformers import AutoTokenizer",
                "",
                "# PEFT takes the number of labels from the base: it has to be given.",
                f"model = {name}.from_pretrained(",
                f"    {adapter}, num_labels={self.width}",
                ")",
            ]
        return [
            "from beftkit.weights import apply_adapter",
            f"from transformers import {name}, AutoTokenizer",
            "",
            f"model = {name}.from_pretrained(",
            f"    {base}, num_labels={self.width}",
            ")",
            f"apply_adapter(model, {adapter})",
        ]


def load_classifier(reference: str, labels: Sequence[str], **options: Any) -> Loaded:
    """Load a model with a classification head (regression: no labels, one output).

    Args:
        reference: model folder or ``owner/name``.
        labels: names in the order of their ids; empty for regression.
        options: of `beftkit.models.load_model`.

    Raises:
        BeftError: not there, damaged, no head of this kind, or one of another size.
    """
    loaded = load_model(reference, _classifier(labels), **options)
    settle_padding(loaded)
    return loaded


def held_labels(settings: ModelSettings) -> tuple[str, ...] | None:
    """Names of the classes of a head that the checkpoint holds and that is kept, in id order.

    Returns:
        None where it holds none; empty for a head of one output, which gives values.

    Raises:
        BeftError: not there, or no model with such a head.
    """
    s = settings
    if s.head == "fresh":
        return None
    options: Any = {"revision": s.revision, "trust_remote_code": s.trust_remote_code}
    names = held_names(s.model, _classifier(()), **options)
    return () if names is not None and len(names) == 1 else names


def _classifier(labels: Sequence[str]) -> Architecture:
    named = list(labels) or ["LABEL_0"]

    def configure(config: Any) -> None:
        config.id2label = dict(enumerate(named))
        config.label2id = {label: number for number, label in enumerate(named)}
        config.problem_type = "single_label_classification" if labels else "regression"

    return Architecture(
        auto="AutoModelForSequenceClassification",
        configure=configure,
        what="a classification head",
        expected="a text encoder or decoder",
        outputs=f"{len(labels)} labels" if labels else "values",
    )
