"""`beftkit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from beftkit.app.common import Format, say, show

_HERE = Path("beftkit-demo")


def demo(
    output: Annotated[Path, Option("--output", "-o", help="Folder to make.")] = _HERE,
    seed: Annotated[int, Option(help="Seed of the language, the model and the run.")] = 0,
) -> None:
    """Train a small model on a made-up language here and now, score its biases, select one.

    Offline and within a minute on two cores. The data is synthetic: it shows what beftkit does,
    not what a real task would choose.
    """
    from beftkit import diff
    from beftkit.demo import make_demo_pair
    from beftkit.files import write_whole
    from beftkit.present import plots
    from beftkit.present.data import json_text
    from beftkit.present.demo import demo_document

    made = make_demo_pair(output, seed=seed, progress=lambda line: say([line]))
    scores = diff.score(made.pre, made.post)
    accuracy = made.accuracy_before, made.accuracy_after, made.majority
    examples = made.train_examples, made.eval_examples
    document = demo_document(scores, made.selection, str(output), accuracy, *examples)
    write_whole(output / "scores.json", json_text(document.json).encode())
    plots.heatmap(scores, output / "scores.png")
    show(document, Format.table)
