"""Pickled checkpoints (.bin, .pt), through torch's restricted loader alone: no code is run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from beftkit.checkpoints.header import TensorInfo
from beftkit.errors import BeftError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TORCH = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
_SAFETENSORS = "F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL".split()
#: torch's names of dtypes -> those of safetensors
DTYPES = {f"torch.{name}": stored for name, stored in zip(_TORCH, _SAFETENSORS, strict=True)}


class PickleFile:
    """One pickled state dict. Tensors are mapped, not read, until their bytes are asked for."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.bytes_read = 0
        self._path = path
        self._tensors: dict[tuple[int, int], Any] = {}

    def header(self, file: int = 0) -> dict[str, TensorInfo]:
        """List its tensors; the offsets in the result count as if they lay one after another."""
        infos: dict[str, TensorInfo] = {}
        position = 0
        for name, tensor in _state_dict(_load(self._path), self.where).items():
            stop = position + tensor.numel() * tensor.element_size()
            dtype = DTYPES.get(str(tensor.dtype), str(tensor.dtype))
            infos[name] = TensorInfo(dtype, tuple(tensor.shape), position, stop, file)
            self._tensors[position, stop] = tensor
            position = stop
        return infos

    def metadata(self) -> dict[str, str]:
        """A pickle carries no text."""
        return {}

    def read(self, spans: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """The bytes of whole tensors, by their places in the header."""
        return {span: self._bytes(span) for span in set(spans)}

    def _bytes(self, span: tuple[int, int]) -> bytes:
        self.bytes_read += span[1] - span[0]
        return raw_bytes(self._tensors[span]) if span[1] > span[0] else b""


def raw_bytes(tensor: Any) -> bytes:
    """A tensor's values as a safetensors file would keep them."""
    import torch

    flat = tensor.detach().reshape(-1).contiguous().cpu()
    return bytes(flat.view(torch.uint8).numpy().tobytes())


def _load(path: Path) -> Any:
    import pickle

    import torch

    if not path.is_file():
        raise BeftError(f"{path}: not a regular file; expected a torch checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"needs {found[1]}" if found else "is not a plain state dict"
        raise BeftError(
            f"{path}: this pickle {what}, which could run code, so it is not loaded; save the "
            "model again with safe serialization (.safetensors)"
        ) from None
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise BeftError(f"{path}: damaged, or not a torch checkpoint; fetch it again") from None
        raise BeftError(
            f"{path}: written in torch's old format; load and save it again, best as .safetensors"
        ) from None
    except (OSError, ValueError, EOFError, KeyError) as error:
        reason = getattr(error, "strerror", None) or "damaged, or not a torch checkpoint"
        raise BeftError(f"{path}: cannot be read ({reason})") from None


def _state_dict(loaded: Any, where: str) -> dict[str, Any]:
    """The tensors by name; trainers wrap them as ``state_dict`` or ``model``."""
    import torch

    for key in ("state_dict", "model", "module"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    tensors = {}
    if isinstance(loaded, dict):
        tensors = {
            name: value
            for name, value in loaded.items()
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }
    if not tensors:
        raise BeftError(f"{where}: holds no tensors by name; expected a state dict")
    return tensors
