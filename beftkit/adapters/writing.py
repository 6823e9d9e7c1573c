"""Adapters as files: PEFT's BEFT and LoRA written by hand, or our own file of biases."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.adapters.changes import change
from beftkit.adapters.reading import BIASES_NAME, CONFIG_NAME, OWN_KEYS, WEIGHTS_NAME
from beftkit.adapters.tuned import HEADS_BY_TASK, SAVED_BY_TASK, Tuned, check_format
from beftkit.errors import BeftError
from beftkit.files import stable_header

Array = npt.NDArray[np.float32]
_PREFIX = "base_model.model."


def write_adapter(
    folder: str | Path,
    tuned: Sequence[Tuned],
    *,
    format: str,
    base: str,
    task_type: str | None,
    metadata: Mapping[str, str],
    revision: str | None = None,
) -> tuple[str, ...]:
    """Write an adapter's files into a folder, all of them or none.

    Never a ``config.json``: one beside an adapter breaks transformers' ``from_pretrained``.

    Args:
        folder: made if it is not there; an adapter in it is replaced.
        tuned: what training changed; for ``SEQ_CLS`` also every tensor of the head.
        format: ``beft``: changes of Linear biases, as stock PEFT's BEFT; ``lora``: the same as
            biases of rank-1 LoRA matrices that are zero, also for Conv1D; ``biases``: new values
            by runtime name, which PEFT does not read.
        base: the model that was trained, as ``from_pretrained`` takes it.
        task_type: PEFT's ``SEQ_CLS``, ``CAUSAL_LM``, ..., or None.
        metadata: text to find again with `beftkit.weights.adapter_info`.
        revision: the base's revision.

    Returns:
        Notes: what stock PEFT cannot do with this adapter, values that it will not reach exactly.

    Raises:
        BeftError: the format cannot hold a parameter, a value is not finite, or the folder cannot
            be written to; what was there before is then still there.
    """
    check_format(tuned, format, task_type)
    if not tuned:
        raise BeftError(f"{folder}: nothing was trained, so there is no adapter to write")
    for one in tuned:
        if not np.isfinite(one.post).all():
            raise BeftError(f"{one.parameter} holds NaN or infinity; no adapter was written")
    said = {"base_model_name_or_path": base, "revision": revision, "task_type": task_type}
    if format == "biases":
        header = {**metadata, **{OWN_KEYS[key]: text for key, text in said.items() if text}}
        header[OWN_KEYS["format"]] = format
        tensors = {one.parameter: one.post for one in tuned}
        files = {BIASES_NAME: _safetensors(tensors, header)}
        _write_together(Path(folder), files, (CONFIG_NAME, WEIGHTS_NAME))
        return ("PEFT does not read this format: beftkit alone does",)
    _check_head(tuned, task_type)
    tensors, config = (_beft if format == "beft" else _lora)(tuned)
    config = {**config, **said, "inference_mode": True}
    files = {
        WEIGHTS_NAME: _safetensors(tensors, metadata),
        CONFIG_NAME: f"{json.dumps(config, indent=2, sort_keys=True)}\n".encode(),
    }
    _write_together(Path(folder), files, (BIASES_NAME,))
    return tuple(_notes(tuned, format))


def write_biases(
    path: str | Path, values: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write a snapshot of biases, which ``beftkit score BASE SNAPSHOT`` reads: the file or nothing.

    Args:
        path: the ``.safetensors`` file; its folder is made if it is not there.
        values: runtime name to values, any float dtype and shape.
        metadata: text for the file's header.

    Raises:
        BeftError: the file cannot be written.
    """
    path = Path(path)
    _write_together(path.parent, {path.name: _safetensors(values, metadata)}, ())


def _beft(tuned: Sequence[Tuned]) -> tuple[dict[str, Array], dict[str, Any]]:
    tensors, config = _saved_whole(tuned)
    for one in tuned:
        if one.kind == "linear":
            tensors[f"{_PREFIX}{one.module}.beft_bias"] = change(one.pre, one.post).reshape(1, -1)
    return tensors, {"peft_type": "BEFT", "target_modules": _targets(tuned), **config}


def _lora(tuned: Sequence[Tuned]) -> tuple[dict[str, Array], dict[str, Any]]:
    tensors, config = _saved_whole(tuned)
    for one in tuned:
        if one.kind in ("linear", "conv1d"):
            if not one.shape_in:
                raise ValueError(f"{one.parameter}: shape_in is needed")
            name = f"{_PREFIX}{one.module}"
            tensors[f"{name}.lora_A.weight"] = np.zeros((1, one.shape_in), np.float32)
            tensors[f"{name}.lora_B.weight"] = np.zeros((one.post.size, 1), np.float32)
            tensors[f"{name}.lora_B.bias"] = change(one.pre, one.post).reshape(-1)
    config |= {"peft_type": "LORA", "target_modules": _targets(tuned)}
    config |= {"r": 1, "lora_alpha": 1, "lora_dropout": 0.0, "lora_bias": True, "bias": "none"}
    config["fan_in_fan_out"] = any(one.kind == "conv1d" for one in tuned)
    return tensors, config


def _targets(tuned: Sequence[Tuned]) -> list[str] | str:
    found = [one.module for one in tuned if one.kind in ("linear", "conv1d")]
    return found or "dummy-target-modules"  # PEFT's own word for none; it refuses an empty list


def _saved_whole(tuned: Sequence[Tuned]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors of heads and norms, and the modules that PEFT shall save whole."""
    tensors = {}
    for one in tuned:
        if one.kind in ("head", "norm"):
            tensors[f"{_PREFIX}{one.parameter}"] = one.post
        if one.kind == "norm" and one.weight is not None:
            tensors[f"{_PREFIX}{one.module}.weight"] = one.weight
    modules = dict.fromkeys(one.module for one in tuned if one.kind in ("head", "norm"))
    return tensors, {"modules_to_save": list(modules) or None}


def _check_head(tuned: Sequence[Tuned], task_type: str | None) -> None:
    """PEFT stops with a KeyError if a head that its task type saves is not in the file."""
    wanted = SAVED_BY_TASK.get(task_type or "")
    heads = [one.module for one in tuned if one.kind == "head"]
    others = HEADS_BY_TASK.get(task_type or "", ())  # of models that have none of PEFT's names
    if wanted and not any(one.endswith(wanted) or one in others for one in heads):
        raise BeftError(
            f"task type {task_type}: PEFT needs the head's tensors ({' or '.join(wanted)}) in the "
            "adapter, and none are among what was trained"
        )


def _notes(tuned: Sequence[Tuned], format: str) -> list[str]:
    notes = []
    added = [one.parameter for one in tuned if one.added]
    if added:
        notes.append(
            f"the base has no bias at {len(added)} of these modules (e.g. {added[0]}): PEFT loads "
            "this adapter, but cannot merge it; `beftkit merge` can, where the family allows"
        )
    heads = [one for one in tuned if one.kind == "head"]
    nested = [one.module for one in heads if "." in one.parameter.removeprefix(f"{one.module}.")]
    if format == "beft" and nested:
        notes.append(
            f"PEFT's merge_and_unload fails on {nested[0]}, a head of several layers; its "
            "merge_adapter() works, and so does --adapter-format lora"
        )
    return notes


def _safetensors(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return stable_header(save(arrays, metadata={**metadata, "format": "pt"}))


def _write_together(folder: Path, files: Mapping[str, bytes], stale: Iterable[str]) -> None:
    """Write files (the last is what readers look for first) and drop those of another format.

    All are complete under temporary names before the first is renamed.
    """
    import tempfile

    made: list[Path] = []
    new_folder = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        umask = os.umask(0)
        os.umask(umask)
        try:
            for data in files.values():
                descriptor, name = tempfile.mkstemp(dir=folder, prefix=".beftkit-")
                made.append(Path(name))
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).chmod(0o666 & ~umask)  # mkstemp's 0600 would surprise
            _put_in_place(folder, dict(zip(files, made, strict=True)), files, stale)
        except BaseException:
            for path in made:
                path.unlink(missing_ok=True)
            if new_folder:
                folder.rmdir()
            raise
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None


def _put_in_place(
    folder: Path, made: Mapping[str, Path], files: Mapping[str, bytes], stale: Iterable[str]
) -> None:
    last = list(made)[-1]
    old = folder / last
    # New weights must never be seen with another run's configuration.
    if len(made) > 1 and old.exists() and old.read_bytes() != files[last]:
        old.unlink()
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    for name, path in made.items():
        path.replace(folder / name)
