"""The paper's geometry (Figures 2 and 3): equal magnitudes, unequal projection ratios."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "figures.py"


@pytest.fixture(scope="module")
def figures() -> Any:
    spec = spec_from_file_location("figures", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("norm", "figure"), [(1, "magnitude_l1"), (2, "magnitude_l2")])
def test_equal_changes_have_different_ratios(figures: Any, norm: int, figure: str) -> None:
    post, found = figures.same_change(norm)
    np.testing.assert_allclose(found[figure], figures.CHANGE, rtol=1e-12)
    assert found["projection"].min() < 0.15 < 0.45 < found["projection"].max()
    # By hand, from the definition, at the ends: along pre and against it.
    direction = figures.PRE / np.linalg.norm(figures.PRE)
    for index in (int(found["projection"].argmin()), int(found["projection"].argmax())):
        a, b = figures.PRE, post[index]
        want = 1 - a @ b / max(a @ a, b @ b)
        assert found["projection"][index] == pytest.approx(want, rel=1e-9)
    farthest = post[int(found["projection"].argmax())] - figures.PRE
    assert farthest @ direction < 0, "shrinking against pre scores highest"


def test_both_panels_of_figure_2(figures: Any) -> None:
    """(a) a shorter bias is projected onto pre, (b) a longer one has pre projected onto it."""
    post, found = figures.same_change(2)
    shorter = np.linalg.norm(post, axis=1) < np.linalg.norm(figures.PRE)
    inner = post @ figures.PRE
    squares = np.where(shorter, figures.PRE @ figures.PRE, np.square(post).sum(1))
    assert 10 < shorter.sum() < len(post) - 10
    np.testing.assert_allclose(found["projection"], 1 - inner / squares, rtol=1e-9, atol=1e-12)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    target = tmp_path / "geometry.svg"
    subprocess.run([sys.executable, SCRIPT, target], check=True, capture_output=True)
    assert ">projection ratio</text>" in target.read_text()
