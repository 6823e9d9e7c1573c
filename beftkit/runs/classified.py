"""What transformers says of the model that an adapter's head makes: class, names, configuration.

The model is made without its weights; they come from the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beftkit.adapters.heads import MULTI_LABEL
from beftkit.edges import markdown
from beftkit.models import Loaded, load_tokenizer
from beftkit.objectives import Objective, objective_told
from beftkit.registry import MAX_LENGTH
from beftkit.runs.adapted import Named, named
from beftkit.runs.merged_card import card_head, card_name, hub_id
from beftkit.runs.said import Said
from beftkit.settings.predict import ExportSettings
from beftkit.weights.plan import HeadFrame


@dataclass(frozen=True)
class Classified:
    """What is known of an adapter by its header, and of the model that it makes.

    Attributes:
        found: the adapter, its base, and what its header says.
        objective: what it answers.
        tokenizer: as the head needs it; a language model's is taken along as it is.
        length: tokens that a text is cut to.
        model: without its weights.
    """

    found: Named[ExportSettings]
    objective: Objective
    tokenizer: Any
    length: int
    model: Any

    @property
    def has_head(self) -> bool:
        """Whether it has a head over a whole text; else a language model's own."""
        return self.objective.task_type == "SEQ_CLS"


def classified(settings: ExportSettings) -> Classified:
    """Find out what an adapter makes of its base.

    Args:
        settings: name both.

    Raises:
        BeftError: an adapter that does not fit, a head of a kind that is not known here, or a base
            that is not the one that it was trained on.
    """
    from beftkit.objectives.fits import most_tokens, settle_padding

    found = named(settings)
    s = found.settings
    objective = objective_told(s, found.standing.kind, found.labels)
    model = objective.skeleton(s)
    tokenizer = load_tokenizer(
        s.tokenizer or s.model,
        revision=None if s.tokenizer else s.revision,
        trust_remote_code=s.trust_remote_code,
    )
    loaded = Loaded(model, tokenizer, (), s.model)
    if objective.task_type == "SEQ_CLS":
        settle_padding(loaded)
    length = most_tokens(loaded, found.had.max_length or MAX_LENGTH)
    return Classified(found, objective, tokenizer, length, model)


def frame_of(known: Classified, config: Mapping[str, Any]) -> HeadFrame:
    """The model's names, and the base's configuration with what the head changes in it."""
    from beftkit.objectives.saved import with_head

    names = frozenset(known.model.state_dict())
    prefix = str(known.model.base_model_prefix)
    parts = frozenset(
        name for name, _ in getattr(known.model, prefix, known.model).named_children()
    )
    said = with_head(config, known.model)
    if known.found.several:
        said["problem_type"] = MULTI_LABEL
    return HeadFrame(names, f"{prefix}.", parts, said)


def card_of(known: Classified) -> str:
    """A short card; no path of this machine is in it."""
    found, objective, length = known.found, known.objective, known.length
    s, task = found.settings, found.standing.task
    base = hub_id(s.model)
    lora = found.info is not None and Said.of(found.info.metadata).peft == "lora"
    lines = card_head(base, objective.pipeline_tag, "lora" if lora else "bias-tuning")
    at = f" at revision `{s.revision}`" if base and s.revision else ""
    named_base = base or card_name(found.standing.base_given or s.model)
    how = "fine-tuned by LoRA" if lora else "bias terms fine-tuned"
    lines += [f"# {markdown(named_base)}, {how}", ""]
    lines += [
        f"{markdown(named_base)}{at} with an adapter of beftkit merged into it. Nothing but "
        "transformers is needed:",
        "",
        "```python",
        *objective.alone(length),
        "```",
        "",
        f"FOLDER: this folder. In training texts were cut to {length} tokens.",
        "",
        f"- {markdown(objective.described())}",
    ]
    if task:
        lines.append(f"- Task: {task.name}")
    return "\n".join([*lines, ""])
