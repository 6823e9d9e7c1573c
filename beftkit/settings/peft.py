"""What trains instead of biases: a baseline of another library, PEFT."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from beftkit.errors import option
from beftkit.settings.topics import Part, of_choice

#: settings of biases alone, and what they are where none trains
_OF_BIASES: dict[str, Any] = {
    "add_bias": None,
    "layers": None,
    "allow_partial": False,
    "adapter_format": "auto",
    "save_snapshots": False,
    "track_steps": None,
}


class PeftPart(Part):
    """A baseline of PEFT's that trains in place of biases."""

    peft: Literal["lora"] | None = of_choice(
        None,
        "Train a baseline of PEFT's instead of biases, to compare with. lora: rank 8, alpha 16, on "
        "q and v. Needs `beftkit[baselines]`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_bias(cls, values: Any) -> Any:
        """No bias trains then, and ``bias`` says so."""
        if not isinstance(values, dict) or values.get("peft") is None:
            return values
        if (bias := values.get("bias", "none")) != "none":
            raise ValueError(f"--peft and {option('bias', bias)} were both given; expected one")
        return {**values, "bias": "none"}

    @model_validator(mode="after")
    def _biases_alone(self) -> PeftPart:
        for name, default in _OF_BIASES.items() if self.peft else ():
            if getattr(self, name, default) != default:
                flag = option(name, "").partition("=")[0]
                raise ValueError(f"{flag}: is of biases, and --peft trains none; leave it out")
        return self
