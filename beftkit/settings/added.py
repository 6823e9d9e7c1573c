"""Biases that are added to a model that has none."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from beftkit.errors import option
from beftkit.settings.topics import Part, of_model

#: of ``bias``: what goes with added ones in no run
_APART = {
    "full": "which makes a whole model, without room for them",
    "rand": "which makes a whole model, without room for them",
    "auto": "which chooses; `beftkit select --add-bias` chooses among added ones",
}


class AddedPart(Part):
    """Biases of zeros at the outputs of projections that have none."""

    add_bias: str | None = of_model(
        None,
        "Add a bias, zero at first, where these projections have none: q, k, v, m1 (or o), m2, m3, "
        "several with commas; of a gated MLP m2 is gate and up. Alone it trains alone, with "
        "--bias beside what that trains.",
    )

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, values: Any) -> Any:
        """With nothing said of ``bias``, no bias that there is trains."""
        if not isinstance(values, dict) or values.get("add_bias") is None:
            return values
        return {"bias": "none", **values} if "bias" in cls.model_fields else values

    @model_validator(mode="after")
    def _with_biases(self) -> AddedPart:
        bias = str(getattr(self, "bias", ""))
        why = _APART.get(bias.partition(":")[0])
        if self.add_bias is not None and why:
            raise ValueError(f"--add-bias: goes not with {option('bias', bias)}, {why}")
        return self
