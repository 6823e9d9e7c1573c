"""What an adapter says of itself: its format, base, task type, head and metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beftkit.adapters.tuned import FORMATS
from beftkit.errors import BeftError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
#: our own format: new values by runtime name; its header says what PEFT keeps in a configuration
BIASES_NAME = "biases.safetensors"
OWN_KEYS = {
    key: f"beftkit_{key}" for key in ("format", "base_model_name_or_path", "revision", "task_type")
}
_WRAPPERS = {"base_layer", "modules_to_save", "default"}
_HEAD = re.compile(r"(?:.*\.)?(?:classifier|score)(?:\.out_proj)?\.weight")


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter says of itself.

    Attributes:
        reference: as given.
        format: ``beft``, ``lora`` or ``biases``.
        base: the model it was trained on, as it names it; None if it does not.
        revision: the base's revision, or None.
        task_type: PEFT's ``SEQ_CLS``, ``CAUSAL_LM``, ..., or None.
        num_labels: rows of its classification head; None if it holds none.
        metadata: what was given to `beftkit.adapters.write_adapter`.
    """

    reference: str
    format: str
    base: str | None
    revision: str | None
    task_type: str | None
    num_labels: int | None
    metadata: Mapping[str, str]

    @classmethod
    def read(
        cls,
        reference: str,
        config: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        metadata: Mapping[str, str],
    ) -> AdapterInfo:
        """Read it from an adapter's configuration, its tensors' shapes and its file's metadata.

        Raises:
            BeftError: it is of a kind that beftkit does not apply.
        """
        kind = str(config.get("peft_type")).lower()
        if kind not in FORMATS:
            raise BeftError(
                f"{reference}: an adapter of type {config.get('peft_type')}; beftkit "
                "applies BEFT and LoRA, so load this one with PEFT"
            )

        def text(key: str) -> str | None:
            return config[key] if isinstance(config.get(key), str) and config[key] else None

        heads = [s for name, s in shapes.items() if _HEAD.fullmatch(plain(name)) and len(s) == 2]
        own = {"format", *OWN_KEYS.values()}
        return cls(
            reference=reference,
            format=kind,
            base=text("base_model_name_or_path"),
            revision=text("revision"),
            task_type=text("task_type"),
            num_labels=heads[0][0] if heads else None,
            metadata={key: value for key, value in metadata.items() if key not in own},
        )

    @property
    def mismatch(self) -> str:
        """What to say where a base is not the adapter's."""
        trained = f"it was trained on {self.base}" if self.base else "it does not name its own"
        return f"a base model that does not match the adapter ({trained})"


def biases_config(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What the header of a `BIASES_NAME` says, under the names of PEFT's configuration.

    Args:
        metadata: the safetensors header's ``__metadata__``.

    Returns:
        None where the header is not that of an adapter.
    """
    if metadata.get(OWN_KEYS["format"]) != "biases":
        return None
    said = {key: metadata.get(own) for key, own in OWN_KEYS.items() if key != "format"}
    return {"peft_type": "biases", **said}


def plain(name: str) -> str:
    """The name as the base model has it: PEFT's prefix and wrappers removed."""
    parts = name.removeprefix("base_model.model.").split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS)
