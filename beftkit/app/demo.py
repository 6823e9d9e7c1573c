"""`beftkit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beftkit.app.common import put, rendered, say


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path(
        "beftkit-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the language, the model and the run.")] = 0,
) -> None:
    """Train a small model on a made-up language here and now, score its biases, select one.

    Offline and within a minute on two cores. The data is synthetic: it shows what beftkit does,
    not what a real task would choose.
    """
    from beftkit import diff
    from beftkit.demo import make_demo_pair
    from beftkit.files import write_whole
    from beftkit.present import plots
    from beftkit.present import scores as report
    from beftkit.present import selection as select_report

    made = make_demo_pair(output, seed=seed, progress=lambda line: say([line]))
    scores = diff.score(made.pre, made.post)
    write_whole(output / "scores.json", report.scores_text([scores], "json").encode())
    plots.heatmap(scores, output / "scores.png")
    closing = report.demo_text(
        str(output), made.accuracy_before, made.accuracy_after, made.majority,
        made.train_examples, made.eval_examples,
    )  # fmt: skip
    chosen = [*select_report.headline(made.selection), "",
              *select_report.group_parts(made.selection, made.selection.groups[0], "table"), "",
              *select_report.plain_words(made.selection)]  # fmt: skip
    put(rendered([*report.scores_table([scores]), "", *chosen], None) + closing)
