"""Nearest neighbours by bias change: the right ones, in flat memory, whatever the scale."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from beftkit.surveys import neighbours
from beftkit.surveys.neighbours import NOT_FINITE, UNCHANGED, nearest
from tests.surveys import Array, families


def names(count: int) -> list[str]:
    return [f"o/m{number}" for number in range(count)]


def cosines(changes: Array) -> Array:
    """By scipy in float64, a model's own left out."""
    found = 1 - cdist(changes.astype(np.float64), changes.astype(np.float64), "cosine")
    np.fill_diagonal(found, -np.inf)
    return np.asarray(found)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 7)
    monkeypatch.setattr(neighbours, "COLUMNS", 50)


def test_the_nearest_is_of_the_right_family() -> None:
    """Families at .5 within and .1 across, two of them at .3 to each other."""
    changes, whose = families(6, 10, 2816)
    exact = cosines(changes)
    same = np.equal.outer(whose, whose) & np.isfinite(exact)
    hard = {0, 1}
    pair = np.array([[{a, b} == hard for a in whose] for b in whose])
    apart = np.isfinite(exact) & ~same & ~pair
    assert exact[same].min() >= 0.5 and exact[apart].max() <= 0.1
    assert exact[pair].mean() == pytest.approx(0.3, abs=0.02)
    found = nearest(names(60), changes)
    first = found.first()
    right = [whose[int(one.model[3:])] == whose[int(one.neighbour[3:])] for one in first]
    assert len(right) == 60 and np.mean(right) >= 0.95
    assert sorted(map(len, found.groups)) == [10] * 6
    assert all(len({whose[int(name[3:])] for name in group}) == 1 for group in found.groups)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kept", ["memory", "file"])
def test_neighbours_and_cosines_are_those_of_all_pairs(kept: str, tmp_path: Path) -> None:
    changes, _ = families(5, 9, 203, alike=0.3, hard=0.25, seed=3)
    if kept == "file":
        (tmp_path / "changes").write_bytes(changes.tobytes())
        changes = np.memmap(tmp_path / "changes", "<f4", "r", shape=changes.shape)
    exact = cosines(changes)
    found = nearest(names(45), changes)
    assert len(found.nearest) == 3 * 45
    for one in found.nearest:
        row, other = int(one.model[3:]), int(one.neighbour[3:])
        assert other == np.argsort(-exact[row])[one.rank - 1]
        assert one.cosine == pytest.approx(exact[row, other], rel=1e-12)
    firsts = [one.cosine for one in found.first()]
    assert firsts == sorted(firsts, reverse=True)


@pytest.mark.usefixtures("small_blocks")
def test_groups_are_what_pairs_that_are_alike_link() -> None:
    changes, _ = families(5, 9, 203, alike=0.5, hard=0.3, seed=4)
    for alike in (0.3, 0.45, 0.5, 0.99):
        _, labels = connected_components(cosines(changes) >= alike, directed=False)
        wanted = {frozenset(np.flatnonzero(labels == one)) for one in set(labels)}
        found = nearest(names(45), changes, alike=alike)
        groups = {frozenset(int(name[3:]) for name in group) for group in found.groups}
        assert groups == {one for one in wanted if len(one) > 1}


def test_rows_are_those_that_are_named() -> None:
    changes, _ = families(2, 3, 64)
    found = nearest(["a", "b", "c"], changes, places=[5, 0, 3])
    exact = cosines(changes[[5, 0, 3]])
    best = {one.model: one.neighbour for one in found.first()}
    assert best == {name: "abc"[int(exact[n].argmax())] for n, name in enumerate("abc")}


def test_the_scale_of_a_change_does_not_matter() -> None:
    """Squares of these would be 0 or infinite in float32."""
    changes, _ = families(3, 4, 300)
    scale = np.array([1e-30, 1e30, 1, 1e-22] * 3, np.float32)[:, None]
    plain, scaled = nearest(names(12), changes), nearest(names(12), changes * scale)
    for one, other in zip(plain.nearest, scaled.nearest, strict=True):
        assert (one.model, one.neighbour) == (other.model, other.neighbour)
        assert one.cosine == pytest.approx(other.cosine, rel=1e-6)


def test_float64_decides_where_float32_cannot() -> None:
    """Cosines of 1 - 1e-9 or so, all of which are 1 in float32."""
    rng = np.random.default_rng(8)
    near = rng.normal(size=500) + rng.normal(size=(6, 500)) * np.geomspace(1e-5, 1e-4, 6)[:, None]
    changes = near.astype(np.float32)
    wide = changes.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    apart = np.linalg.norm(
        wide[:, None] - wide, axis=2
    )  # no cancellation: 1 - cos is half its square
    for one in nearest(names(6), changes).nearest:
        row, other = int(one.model[3:]), int(one.neighbour[3:])
        assert other == np.argsort(apart[row])[one.rank]


def test_what_has_no_direction_is_left_out_by_name() -> None:
    changes, _ = families(2, 3, 64)
    changes[1] = 0
    changes[4, 3], changes[5, 2] = np.nan, np.inf
    found = nearest(names(6), changes)
    assert found.left_out == {"o/m1": UNCHANGED, "o/m4": NOT_FINITE, "o/m5": NOT_FINITE}
    assert {one.model for one in found.nearest} == {"o/m0", "o/m2", "o/m3"}
    alone = nearest(names(2), changes[:2])
    assert alone.nearest == () and alone.groups == ()
    nobody = nearest([], np.zeros((0, 64), np.float32))
    assert nobody.nearest == () and nobody.left_out == {}


def test_equal_changes_are_at_one() -> None:
    changes, _ = families(2, 2, 64)
    changes[1] = changes[0]
    first = nearest(names(4), changes).first()[0]
    assert {first.model, first.neighbour} == {"o/m0", "o/m1"} and 1 - 1e-15 <= first.cosine <= 1


def test_memory_does_not_grow_with_the_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 128)
    monkeypatch.setattr(neighbours, "COLUMNS", 256)
    count, width = 1500, 600
    path = tmp_path / "changes"
    path.write_bytes(families(30, 50, width)[0].tobytes())
    changes = np.memmap(path, "<f4", "r", shape=(count, width))
    nearest(names(300), changes)  # imports
    tracemalloc.start()
    found = nearest(names(count), changes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.nearest) == 3 * count
    assert peak < 0.8 * 4 * count**2 and peak < 4 * count * width * 2


def test_nobody_is_a_neighbour_of_himself_nor_of_one_group_with_his_opposite() -> None:
    changes = np.array([[1, 0.1], [-1, 0.1], [-1, -0.2]], np.float32)
    exact = cosines(changes)
    assert (exact[0, 1:] < -0.9).all()
    found = nearest(names(3), changes)
    for one in found.nearest:
        row, other = int(one.model[3:]), int(one.neighbour[3:])
        assert row != other and one.cosine == pytest.approx(exact[row, other], rel=1e-12)
    assert found.groups == (("o/m1", "o/m2"),)
