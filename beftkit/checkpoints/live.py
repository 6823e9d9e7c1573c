"""A model or state dict in memory, seen as a checkpoint: names, shapes, bytes when asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from beftkit.checkpoints.checkpoint import Checkpoint
from beftkit.checkpoints.header import TensorInfo
from beftkit.checkpoints.pickles import DTYPES, raw_bytes
from beftkit.errors import BeftError

if TYPE_CHECKING:
    import torch


class LiveCheckpoint(Checkpoint):
    """Tensors that lie in memory, on any device.

    Args:
        source: a `torch.nn.Module`, whose ``config`` is used if it has one, or a state dict.
        reference: what it was loaded from, as the user gave it; None: it was given as it is.
    """

    def __init__(self, source: Any, reference: str | None = None) -> None:
        state = source.state_dict() if hasattr(source, "state_dict") else source
        if not isinstance(state, Mapping) or not all(hasattr(t, "detach") for t in state.values()):
            raise BeftError(
                f"a {type(source).__name__} was given; expected a path, a module or a state dict"
            )
        config: Any = getattr(source, "config", None)
        said = config.to_dict() if hasattr(config, "to_dict") else None
        tensors = {name: _info(tensor) for name, tensor in state.items()}
        super().__init__(reference or f"<{type(source).__name__} in memory>", [], tensors, said)
        self.state: Mapping[str, torch.Tensor] = state

    @property
    def bytes_read(self) -> int:
        """Nothing is read from anywhere."""
        return 0

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The tensors' bytes, copied from their device.

        Raises:
            BeftError: one has no values.
        """
        wanted = list(names)
        for name in wanted:
            if self.state[name].is_meta:
                raise BeftError(
                    f"{self.reference}: {name} is on the meta device, where nothing has values; "
                    "expected a model whose weights are loaded, and not offloaded by a device map"
                )
        return {name: raw_bytes(self.state[name]) for name in wanted}

    @property
    def on_gpu(self) -> bool:
        """Whether its tensors lie on an accelerator that Triton serves (CUDA or ROCm)."""
        return any(tensor.is_cuda for tensor in self.state.values())


def _info(tensor: torch.Tensor) -> TensorInfo:
    return TensorInfo(DTYPES.get(str(tensor.dtype), str(tensor.dtype)), tuple(tensor.shape), 0, 0)
