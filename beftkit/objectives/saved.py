"""The configuration of a model with a head, from its base's as it lies on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COUNTS = ("num_labels", "_num_labels")


def with_head(config: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """A base's ``config.json`` with what its head changes in it; all else is kept as it is.

    Args:
        config: the base's.
        model: the model with the head, its weights on any device.
    """
    own = model.config
    found = {key: one for key, one in config.items() if key not in _COUNTS}
    found |= {
        "architectures": [type(model).__name__],
        "id2label": {str(number): str(name) for number, name in own.id2label.items()},
        "label2id": {str(name): int(number) for name, number in own.label2id.items()},
        "problem_type": own.problem_type,
    }
    if (pad := getattr(own, "pad_token_id", None)) is not None:
        found["pad_token_id"] = pad
    text = own.get_text_config()
    if text is not own and isinstance(nested := found.get("text_config"), dict):
        found["text_config"] = {**nested, "pad_token_id": text.pad_token_id}
    return found
