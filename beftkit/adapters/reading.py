"""What an adapter says of itself: its format, base, task type, head and metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
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
#: parts of names that PEFT puts in, then those of torch's compiler and of sharded training
_WRAPPERS = set("base_layer modules_to_save default".split())
_WRAPPERS |= {"ln_tuning_layers"}  # norms that PEFT's LN Tuning saves whole
_WRAPPERS |= set("_orig_mod _fsdp_wrapped_module _checkpoint_wrapped_module".split())
#: before a whole model's names: PEFT's own, and that of torch's data parallel wrappers
_PREFIXES = ("base_model.model.", "module.")
#: the last matrix of a classifier, a row for each of its outputs
HEAD_WEIGHT = re.compile(
    r"(?:.*\.)?(?:classifier|score|classification_head)(?:\.out_proj)?\.weight|logits_proj\.weight"
)


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

    @property
    def head_labels(self) -> tuple[str, ...] | None:
        """Its head's classes, numbered: PEFT writes no names; empty: values; None: no head."""
        if self.num_labels is None:
            return None
        return tuple(f"LABEL_{i}" for i in range(self.num_labels)) if self.num_labels > 1 else ()

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

        heads = [
            s for name, s in shapes.items() if HEAD_WEIGHT.fullmatch(plain(name)) and len(s) == 2
        ]
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
        return mismatch(self.base)


def mismatch(base: Any) -> str:
    """What to say where a base is not the one that an adapter names."""
    trained = f"it was trained on {base}" if base else "it does not name its own"
    return f"a base model that does not match the adapter ({trained})"


def base_elsewhere(reference: str, base: str, advice: str) -> list[str]:
    """Say where an adapter leads out of this folder to its base: by an absolute or ``..`` path.

    Args:
        reference: the adapter.
        base: the path or name of its base, as it says.
        advice: what to do where nothing is there.

    Raises:
        BeftError: what lies there is no model's folder, so it is not read.
    """
    parts = base.replace("\\", "/").split("/")
    absolute = Path(base).is_absolute() or PureWindowsPath(base).is_absolute() or parts[0] == "~"
    if not absolute and ".." not in parts:
        return []
    try:
        is_model = (Path(base) / "config.json").is_file()
    except (OSError, ValueError):
        is_model = False
    if not is_model:
        raise BeftError(
            f"{reference}: names its base by the path {base!r}, where no model's folder is (one "
            f"with a config.json), so it was not read; {advice}"
        )
    return [f"the adapter names its base by a path: {base}"]


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
    """The name as the base model has it: prefixes and wrappers removed."""
    found = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    while found.startswith(_PREFIXES):
        for prefix in _PREFIXES:
            found = found.removeprefix(prefix)
    return found


def unused(name: str) -> bool:
    """Whether a tensor is of a module that PEFT replaced by what it saved whole: ``bias="all"``."""
    return "original_module" in name.split(".")
