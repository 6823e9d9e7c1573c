"""Two runs side by side: states, logs and results, all but the times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

_TIMES = {"seconds", "examples_per_second", "train_seconds", "eval_seconds", "log_bytes"}
#: another folder, the same run
_PLACES = {"folder", "output", "provenance"}


def states(run: Path) -> dict[int, Path]:
    """The state files by update."""
    found = (run / "state").glob("step-*.safetensors")
    return {int(path.stem.removeprefix("step-")): path for path in sorted(found)}


def newest(run: Path) -> int:
    """The update of the newest state; 0: there is none."""
    return max(states(run), default=0)


def same_state(one: Path, other: Path) -> bool:
    """Whether two states agree in every bit but the times."""
    return _read(one) == _read(other)


def _read(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...], bytes]], Any]:
    with safe_open(path, framework="np") as file:
        facts = json.loads(file.metadata()["facts"])
    arrays = load_file(path)
    raw = {k: (str(v.dtype), v.shape, v.tobytes()) for k, v in arrays.items()}
    return raw, _timeless(facts)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in _TIMES | _PLACES}
    return [*map(_timeless, value)] if isinstance(value, list) else value


def log(run: Path) -> list[Any]:
    """The lines of the log."""
    return [_timeless(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]


def logged(run: Path) -> int:
    """The last update of which the log has a whole line."""
    lines = (run / "log.jsonl").read_bytes() if (run / "log.jsonl").exists() else b""
    whole = lines[: lines.rfind(b"\n") + 1].splitlines()
    return max((json.loads(line)["step"] for line in whole), default=0)


def snapshots(run: Path) -> dict[str, dict[str, bytes]]:
    """The biases after each epoch."""
    return {
        path.name: {name: array.tobytes() for name, array in load_file(path).items()}
        for path in sorted((run / "snapshots").iterdir())
    }


def results(run: Path) -> Any:
    """What ``all_results.json`` says."""
    return _timeless(json.loads((run / "all_results.json").read_text()))


def adapter(run: Path) -> dict[str, bytes]:
    """The adapter's tensors as bytes; its header's order is drawn by lot at every writing."""
    arrays = load_file(run / "adapter" / "adapter_model.safetensors")
    return {name: array.tobytes() for name, array in sorted(arrays.items())}


def same_runs(one: Path, other: Path) -> bool:
    """Whether two runs that came to their end agree in everything but times."""
    last = newest(one)
    return (
        last == newest(other)
        and same_state(states(one)[last], states(other)[last])
        and adapter(one) == adapter(other)
        and log(one) == log(other)
        and results(one) == results(other)
    )


def largest_difference(one: Path, other: Path) -> float:
    """Relative, of two adapters' tensors: max |a - b| / max |a| for each, the largest of them."""
    files = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, other)]
    assert files[0].keys() == files[1].keys()
    return max(
        float(np.abs(a - files[1][name]).max() / np.abs(a).max()) for name, a in files[0].items()
    )
