"""Surveys for tests and benchmarks: rows that were never asked for, and planted families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beftkit.surveys.rows import CHANGES, ROWS, Head, Place, Row, line

Array = npt.NDArray[Any]
WIDTHS = {"q": 16, "k": 16, "v": 16, "m1": 16, "ln1": 16, "m2": 64, "m3": 16, "ln2": 16}
TASKS = ("text-classification", "fill-mask", "token-classification", "question-answering", None)
WITHOUT = ("no biases", "other width", "only bin", "gated", "gone", "damaged", "unreachable")


#: of Qwen2.5-7B, which has 28 layers
QWEN = {"q": 3584, "k": 512, "v": 512}


def head(layers: int = 2, widths: Mapping[str, int] = WIDTHS, **more: Any) -> Head:
    """A base of so many layers, whose k is inert."""
    sites = tuple(
        Place(f"layer.{layer}.{role}.bias", role, layer, "text", "self", widths[role],
              "yes" if role == "k" else "no")
        for layer in range(layers)
        for role in widths
    )  # fmt: skip
    given: dict[str, Any] = {
        "base": "o/base", "commit": "c" * 40, "bias_sha256": "b" * 64, "family": "bert",
        "tower": "text", "begun": "2026-11-27T19:10:00Z", "method": "projection", "asked": {},
    }  # fmt: skip
    return Head(sites=sites, **{**given, **more})


def families(
    count: int, members: int, width: int, alike: float = 0.6, hard: float = 0.3, seed: int = 0
) -> tuple[Array, list[int]]:
    """Changes ``[count x members, width]`` float32 of planted families, and whose each is.

    Within a family the cosine is about ``alike``, across 0, and ``hard`` between the first two.
    """
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(width, count)))[0].T
    share = hard / alike
    centres[1] = share * centres[0] + np.sqrt(1 - share**2) * centres[1]
    own = rng.normal(size=(count * members, width)) / np.sqrt(width)
    whose = [number // members for number in range(count * members)]
    rows = np.sqrt(alike) * centres[whose] + np.sqrt(1 - alike) * own
    return (rows * rng.uniform(0.01, 0.3, size=(len(rows), 1))).astype(np.float32), whose


def rows(
    head: Head, count: int, seed: int = 0, without: int = 0, names: Sequence[str] = ()
) -> list[Row]:
    """Scored models with figures drawn at random, then so many of the other outcomes."""
    rng = np.random.default_rng(seed)
    roles = list(dict.fromkeys(site.role for site in head.sites))
    level = {role: 10.0 ** (-1 - 0.3 * place) for place, role in enumerate(roles)}
    level |= {role: one for role, one in (("k", 1e-6), ("v", 0.13)) if role in level}
    middle = np.array([level[site.role] * (1 + 0.3 * site.layer) for site in head.sites])
    found = []
    for number in range(count):
        far = 10_000 if number == 7 else 1e-4 if number == 11 else 1
        drawn = middle * rng.lognormal(sigma=0.5, size=len(middle)) * far
        ratios = np.minimum(drawn * rng.lognormal(sigma=1), 2)
        some = {"q", "v"} & set(roles)
        target = max(some, key=lambda role: ratios[[s.role == role for s in head.sites]].mean())
        figures = {
            "projection": ratios, "angle": ratios * 40, "norm_change": ratios - 0.1,
            "magnitude_l1": ratios * 3, "norm_pre": np.full(len(middle), 2.5),
        }  # fmt: skip
        found.append(
            Row(
                names[number] if number < len(names) else f"owner-{number % 97}/model-{number}",
                "scored", commit=f"{number:040x}", asked="2026-11-27T19:11:00Z", listed="o/base",
                task=TASKS[int(rng.integers(5) * rng.random())], downloads=int(rng.integers(10**6)),
                last_modified="2025-05-01T00:00:00Z", licence="apache-2.0", change=number,
                compared=len(middle), of=len(middle), bias_sha256=f"{number:064x}", target=target,
                **{name: tuple(map(float, one)) for name, one in figures.items()},
            )
        )  # fmt: skip
    for number in range(without):
        outcome: Any = WITHOUT[number % len(WITHOUT)]
        found.append(Row(f"owner/other-{number}", outcome, f"it is {outcome}", task="fill-mask"))
    return found


def write(
    folder: Path,
    head: Head,
    rows: Sequence[Row],
    changes: Array | Iterable[bytes] | None = None,
) -> Path:
    """A survey's folder with these rows; changes at random unless given, as a table or as rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ROWS).write_bytes(b"".join(map(line, [head, *rows])))
    held = sum(row.change is not None for row in rows)
    if changes is None:
        changes = np.random.default_rng(1).normal(size=(held, head.length))
    with (folder / CHANGES).open("wb") as file:
        for row in changes:
            file.write(row if isinstance(row, bytes) else row.astype("<f4").tobytes())
    return folder
