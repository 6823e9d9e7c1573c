"""Files as beftkit wrote them before ``schema_version: 2``, kept as they were."""

from __future__ import annotations

import json
from typing import Any

from beftkit import __version__

_ROLES = {
    "v": {"score": 0.5, "rank": 1, "inert": "no", "width": 4, "norm_pre": 1.0},
    "q": {"score": 0.25, "rank": 2, "inert": "no", "width": 4, "norm_pre": 1.0},
}
_LAYERS = {"v": [0.5, 0.5], "q": [0.25, 0.125]}
_PLACE = {"regime": "low", "train_size": None, "lr": 0.001, "epochs": 2}
_SETTLED = {"target": 2, "ranking": 3, "steps": 4}
_MARGIN = {"runner_up": "q", "value": 0.3125, "low": -0.5, "high": 1.125, "close": True}

#: a cell's ``cell.json``, which had no version
CELL: dict[str, Any] = {
    "cell": {**_PLACE, "seed": 0}, "folder": "cells/c", "examples": 20,
    "methods": {"projection": {
        "target": "v",
        "roles": {role: {**one, "layers": _LAYERS[role]} for role, one in _ROLES.items()},
    }},
    "runs": {"probe": {
        "bias": "all", "folder": "cells/c/probe", "scalars": 10, "percent": 10.0,
        "best": {"accuracy": 0.75}, "last": {"accuracy": 0.5}, "best_epoch": 2.0, "steps": 4,
        "epochs": 2.0, "train_seconds": 1.5, "eval_seconds": 0.5, "family": "bert", "total": 100,
        "metric": "accuracy",
    }},
    "settled": _SETTLED, "track": {"v": [[1, 0.25], [4, 0.5]]}, "failed": {}, "notes": [],
}  # fmt: skip

#: a selection's ``select.json``
SELECT: dict[str, Any] = {
    "schema_version": 1, "beftkit_version": "0.0.9", "model": "m", "task": "sst2",
    "metric": "accuracy", "higher_is_better": True, "candidates": ["q", "v"],
    "targets": {"projection": "v"},
    "groups": [{
        **_PLACE, "seeds": [0], "examples": 20,
        "methods": {"projection": {
            "target": "v", "margin": _MARGIN,
            "roles": {role: {**one, "deviation": None} for role, one in _ROLES.items()},
        }},
        "gap": 0.25, "settled": _SETTLED, "verified": {}, "tau": {}, "winner": {},
    }],
    "cells": [CELL],
    "settings": {
        "regimes": ["low"], "train_size": None, "lrs": [], "epochs": [], "seeds": [0],
        "candidates": ["q", "v"], "allow_inert": False, "probe_steps": None, "verify": False,
        "fisher": True, "task": "sst2", "model": "m",
    },
    "family": "bert", "total": 100, "notes": ["a note"],
}  # fmt: skip

_SEEN = {"step": 4, "epoch": 2.0, "metrics": {"accuracy": 0.75}}
_SPREAD = {"accuracy": {"mean": 0.75, "deviation": None}}
#: a run's ``all_results.json``, which had no version
RESULTS: dict[str, Any] = {
    "model": "m", "task": "sst2", "bias": "v", "metric": "accuracy", "scalars": 8,
    "head_scalars": 2, "total": 100,
    "settings": {"model": "m", "bias": "v", "task": "sst2", "lr": 0.1, "metric": []},
    "runs": [{
        "seed": 0, "folder": "out", "adapter": "adapter", "adapter_format": "beft", "best": _SEEN,
        "last": _SEEN, "kept": "last", "scores": {"v": 0.1}, "steps": 4, "epochs": 2.0,
        "stopped_early": False, "train_examples": 8, "truncated": {"train": 0},
        "train_seconds": 1.0, "eval_seconds": 0.5, "notes": ["a note"],
        "examples_per_second": 16.0,
    }],
    "classes": {}, "percent": 8.0, "summary": {"best": _SPREAD, "last": _SPREAD},
}  # fmt: skip


def stripped(text: str) -> str:
    """A file of today as version 1 had it: what began with a version then says 1, others none."""
    values = json.loads(text)
    assert values.pop("schema_version") == 2 and values.pop("beftkit_version") == __version__
    return json.dumps(values)
