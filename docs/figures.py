"""Draw the documentation's figures: ``python docs/figures.py`` writes ``docs/geometry.svg``.

The geometry is that of the BEFT paper's Figures 2 and 3: fine-tuned biases on one rhombus around
the pretrained one have the same Magnitude (l1 norm of the change), those on one circle the same l2
norm, and yet their projection ratios run from nearly nothing to about a half.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from beftkit.scores.statistics import metrics, pair_stats

Array = npt.NDArray[np.float64]
PRE = np.array([2.0, 1.0])
CHANGE = 1.2  # of every fine-tuned bias drawn, in its panel's norm


def same_change(norm: int, count: int = 240) -> tuple[Array, dict[str, Array]]:
    """Fine-tuned biases all equally far from `PRE`, and the figures of each.

    Args:
        norm: 1 (a rhombus) or 2 (a circle).
        count: how many.

    Returns:
        The biases ``[count, 2]`` and `metrics` of each.
    """
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    lengths = np.linalg.norm(directions, ord=norm, axis=1, keepdims=True)
    post = PRE + CHANGE * directions / lengths
    return post, metrics(pair_stats(np.tile(PRE, (count, 1)), post))


def draw(path: Path) -> None:
    """Both panels: each fine-tuned bias in the colour of its projection ratio."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "beftkit"}):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, norm, shape in zip(panels, (1, 2), ("l1", "l2"), strict=True):
            post, found = same_change(norm)
            ratios = found["projection"]
            dots = panel.scatter(*post.T, c=ratios, cmap="cividis", s=14, vmin=0, vmax=0.55)
            for index in (int(ratios.argmin()), int(ratios.argmax())):
                panel.annotate(
                    "", post[index], PRE, arrowprops={"arrowstyle": "->", "color": "0.35"}
                )
                panel.annotate(
                    f"{ratios[index]:.2f}", post[index], (-16, 6),
                    textcoords="offset points", ha="center", va="center",
                )  # fmt: skip
            panel.annotate("", PRE, (0, 0), arrowprops={"arrowstyle": "->", "color": "black"})
            panel.annotate("pre", PRE / 6, (2, -12), textcoords="offset points")
            panel.set_title(f"every change has {shape} norm {CHANGE}", fontsize=10)
            panel.set_aspect("equal")
            panel.set_xlim(-0.2, 3.8)
            panel.set_ylim(-0.6, 2.6)
            panel.spines[["top", "right"]].set_visible(False)
        figure.colorbar(dots, ax=list(panels), label="projection ratio", shrink=0.85)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("geometry.svg")
    draw(target)
    print(f"wrote {target}")
