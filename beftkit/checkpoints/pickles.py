"""Pickled checkpoints (.bin, .pt), through torch's restricted loader alone: no code is run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from beftkit.checkpoints.foreign import LOOK, foreign
from beftkit.checkpoints.header import TensorInfo, shorten
from beftkit.errors import BeftError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TORCH = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
_SAFETENSORS = "F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL".split()
#: torch's names of dtypes -> those of safetensors
DTYPES = {f"torch.{name}": stored for name, stored in zip(_TORCH, _SAFETENSORS, strict=True)}
#: under what trainers keep a model's tensors: plain loops, Lightning, DeepSpeed, fairseq
_WRAPPERS = "state_dict model_state_dict model_state model module net network weights".split()
_LEVELS = 3


class PickleFile:
    """One pickled state dict. Tensors are mapped, not read, until their bytes are asked for.

    ``notes`` says, once the header was read, what a reader of the tensors should know.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.notes: list[str] = []
        self.bytes_read = 0
        self._path = path
        self._tensors: dict[tuple[int, int], Any] = {}

    def header(self, file: int = 0) -> dict[str, TensorInfo]:
        """List its tensors; the offsets in the result count as if they lay one after another."""
        infos: dict[str, TensorInfo] = {}
        position = 0
        tensors, self.notes = _state_dict(_load(self._path), self.where)
        for name, tensor in tensors.items():
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
    flat = flat.as_strided((len(flat),), (1,))  # of one scalar or none the stride may be any
    return bytes(flat.view(torch.uint8).numpy().tobytes())


def _load(path: Path) -> Any:
    """What the file holds; of torch's zip archives the tensors are mapped, not read."""
    import pickle
    import warnings

    import torch

    if not path.is_file():
        raise BeftError(f"{path}: not a regular file; expected a torch checkpoint")
    try:
        mapped = check_archive(path)
        with warnings.catch_warnings():  # about unusual pickles: they are read or refused
            warnings.simplefilter("ignore")
            # Files from before torch 1.6 are no archives, and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"needs {found[1]}" if found else "is not a plain state dict"
        raise BeftError(
            f"{path}: this pickle {what}, which could run code, so it is not loaded; save the "
            "model again with safe serialization (.safetensors)"
        ) from None
    except BeftError:
        raise
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "damaged, or not a torch checkpoint"
        raise BeftError(f"{path}: {reason}; fetch it again") from None


def check_archive(path: Path) -> bool:
    """Whether this is a zip archive; anything that would be read wrongly is refused.

    A mapped tensor's bytes are those of its member, as they lie there: what was packed again, to
    save room, holds compressed ones.
    """
    from zipfile import ZIP_STORED, BadZipFile, ZipFile

    with path.open("rb") as file:
        first = file.read(LOOK + 1)
    if told := foreign(first):
        raise BeftError(f"{path}: {told}")
    if first[LOOK:] == b"{":
        raise BeftError(f"{path}: a safetensors file; rename it, so that it ends in .safetensors")
    if not first.startswith(b"PK"):
        return False
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
    except BadZipFile:
        raise BeftError(f"{path}: damaged, or not a torch checkpoint; fetch it again") from None
    for member in members:
        if member.compress_type != ZIP_STORED or member.flag_bits & 1:
            raise BeftError(
                f"{path}: {shorten(member.filename)} in it is compressed or encrypted; torch "
                "writes stored members: load and save it again, best as .safetensors"
            )
    names = [member.filename for member in members]
    if len({*names}) < len(names):
        raise BeftError(f"{path}: two members of this archive have one name; is it damaged?")
    return True


def _state_dict(loaded: Any, where: str) -> tuple[dict[str, Any], list[str]]:
    """The tensors by name, which trainers wrap in a dict with other things; and what to note."""
    notes: list[str] = []
    for _ in range(_LEVELS):
        inner = {key: one for key, one in _items(loaded) if _is_state(key, one) or _wraps(one)}
        usual = [key for key in _WRAPPERS if key in inner]
        if not usual and len(_tensors(loaded)) > len(inner):
            break  # its own tensors, with something beside them
        if len(usual or inner) > 1:
            raise BeftError(
                f"{where}: holds several state dicts ({', '.join(usual or inner)}); save the one "
                "that is meant"
            )
        if not inner:
            break
        [key] = usual or inner
        if others := sorted(set(inner) - {key}):
            notes.append(f"{where}: read what is under {key!r}; also there: {', '.join(others)}")
        loaded = inner[key]
    if tensors := _tensors(loaded):
        return tensors, notes
    raise BeftError(f"{where}: holds no tensors by name; expected a state dict")


def _items(value: Any) -> list[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else ()
    return [(key, one) for key, one in pairs if isinstance(key, str)]


def _tensors(value: Any) -> dict[str, Any]:
    import torch

    return {key: one for key, one in _items(value) if isinstance(one, torch.Tensor)}


def _is_state(key: str, value: Any) -> bool:
    """Whether these are a model's tensors; a generator's state beside them has no dotted names."""
    names = _tensors(value)
    return bool(names) and (key in _WRAPPERS or any("." in name for name in names))


def _wraps(value: Any) -> bool:
    return any(key in _WRAPPERS and _is_state(key, one) for key, one in _items(value))
