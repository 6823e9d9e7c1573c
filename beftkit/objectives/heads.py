"""Models with a head over a whole text: what classes and values have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from beftkit.checkpoints import model_reference, open_checkpoint
from beftkit.checkpoints.reach import cached_commit
from beftkit.errors import BeftError
from beftkit.models import (
    Architecture,
    Loaded,
    head_misfit,
    head_names,
    load_model,
    load_skeleton,
    quiet,
)
from beftkit.objectives.fits import settle_padding
from beftkit.objectives.measured import Measured
from beftkit.objectives.objective import Use
from beftkit.tasks import Batch, Encoded, Split, encode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from beftkit.settings.resolve import Opening


class HeadObjective(Measured):
    """One row an example, and a head whose outputs [B, `width`] are compared with the targets."""

    task_type = "SEQ_CLS"
    pipeline_tag = "text-classification"
    steady = True

    @property
    def width(self) -> int:
        """Outputs of the head."""
        return max(len(self.labels), 1)

    def load(self, settings: Opening, seed: int) -> Loaded:
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

    def skeleton(self, settings: Opening) -> Any:
        s, architecture = settings, _classifier(self.labels)
        options: Any = {"revision": s.revision, "trust_remote_code": s.trust_remote_code}
        model = load_skeleton(s.model, architecture, **options)
        held = _held(s) if s.head == "kept" else None
        for name in sorted(head_names(model)):
            expected = tuple(model.get_parameter(name).shape)
            if held and name in held and (given := tuple(held[name].shape)) != expected:
                raise head_misfit(s.model, architecture, name, given, expected)
        return model

    def encode(
        self, split: Split, tokenizer: Any, max_length: int, *, allow_empty: bool = False
    ) -> Encoded:
        return encode(split, tokenizer, max_length=max_length, allow_empty=allow_empty)

    def pipeline(self, model: Any, tokenizer: Any, max_length: int) -> Any:
        from transformers import pipeline

        # It cuts nothing by itself, and then stops at the first text that is too long.
        options: dict[str, Any] = {"truncation": True, "max_length": max_length}
        if not hasattr(model, "hf_device_map"):  # else it would go to a GPU by itself
            options["device"] = model.device
        with quiet():
            return pipeline("text-classification", model, tokenizer=tokenizer, **options)

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

    def alone(self, length: int) -> list[str]:
        return [
            "from transformers import pipeline",
            "",
            f'cut = {{"truncation": True, "max_length": {length}}}',
            f'answer = pipeline("{self.pipeline_tag}", model="FOLDER", **cut)',
            'answer("a text")',
        ]

    def snippet(self, use: Use) -> list[str]:
        name = "AutoModelForSequenceClassification"
        autocast = f", torch.autocast(model.device.type, {use.half})" if use.half else ""
        answer = "labels[int(outputs.argmax())]" if self.labels else "float(outputs)"
        if use.by_peft:
            reader, loaded = (
                "PeftModel",
                [f"model = PeftModel.from_pretrained(base, {use.adapter})"],
            )
        else:
            reader, loaded = (
                "apply_adapter",
                [f"apply_adapter(base, {use.adapter})", "model = base"],
            )
        return [
            "import torch",
            f"from {'peft' if use.by_peft else 'beftkit.weights'} import {reader}",
            f"from transformers import {name}, AutoTokenizer",
            "",
            *([f"labels = {[*self.labels]!r}"] if self.labels else []),
            "# The number of labels is not the base's: it has to be given.",
            f"base = {name}.from_pretrained(",
            f"    {use.base}, num_labels={self.width}, dtype={use.dtype}",
            ")",
            *loaded,
            "model.eval()",
            f"tokenizer = AutoTokenizer.from_pretrained({use.tokenizer})",
            "# A decoder's head reads the last token that is none of padding.",
            "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token",
            "base.config.pad_token_id = tokenizer.pad_token_id",
            "",
            "",
            "def predict(*texts):",
            '    """The answer for one text, or for the two of a pair."""',
            f"    length = min({use.max_length}, tokenizer.model_max_length)",
            '    cut = {"truncation": True, "max_length": length, "return_tensors": "pt"}',
            f"    with torch.inference_mode(){autocast}:",
            "        outputs = model(**tokenizer(*texts, **cut)).logits[0].float()",
            f"    return {answer}",
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


def held_labels(settings: Opening, *, alone: bool = False) -> tuple[str, ...] | None:
    """Names of the classes of a head that the checkpoint holds and that is kept, in id order.

    Told from the configuration and the names of the tensors: every configuration names classes,
    also that of a model without a head.

    Args:
        settings: name the model.
        alone: refuse a head whose labels may be several at once: no data tell that it is one.

    Returns:
        None where it holds none; empty for a head of one output, which gives values.

    Raises:
        BeftError: not there, or no model with such a head.
    """
    s = settings
    if s.head == "fresh":
        return None
    as_it_is = replace(_classifier(()), configure=lambda config: None)
    options: Any = {"revision": s.revision, "trust_remote_code": s.trust_remote_code}
    model = load_skeleton(s.model, as_it_is, **options)
    width = model.config.num_labels
    held = _held(s)
    if held is None:
        kept = type(model).__name__ in (model.config.architectures or ())
    else:
        head = head_names(model)
        kept = bool(head) and all(name in held for name in head)
        # A configuration may leave a number out that is not its family's usual one (BART).
        shapes = [(model.get_parameter(n).shape, held[n].shape) for n in head if n in held]
        width = next((one[0] for usual, one in shapes if usual[0] == width != one[0]), width)
    if not kept or width == 1:
        return () if kept else None
    if alone and model.config.problem_type == "multi_label_classification":
        raise BeftError(
            f"{s.model}: each of its labels is true or not by itself (multi_label_classification), "
            "which is not predicted here; transformers' own pipeline does"
        )
    named = model.config.id2label if width == model.config.num_labels else {}
    names = tuple(str(named.get(i, f"LABEL_{i}")) for i in range(width))
    return names if len({*names}) == width else tuple(f"LABEL_{i}" for i in range(width))


def _held(settings: Opening) -> Mapping[str, Any] | None:
    """What the checkpoint's header lists; None: it has a form that transformers alone reads."""
    s = settings
    # A model that is being loaded is cached: its commit is asked for, and no newer one.
    commit = cached_commit(s.model, s.revision) or s.revision
    try:
        return open_checkpoint(model_reference(s.model, commit)).tensors
    except BeftError:
        return None


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
