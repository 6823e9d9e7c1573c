"""docs/results.md is what its script makes of the committed runs, and the script counts rightly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from bench.rates import Table
from bench.rates_cells import CELLS, PROBES, Cell

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/results.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    for name in ("results", "results_added", "results_answers", "results_data"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delitem(sys.modules, "results_selection", raising=False)
    import results

    return results


def test_the_page_is_what_its_script_writes(script: Any) -> None:
    held = (DOCS / "results.md").read_text(encoding="utf-8")
    made = script.page(DOCS / "results")
    assert made.splitlines() == held.splitlines(), "run .venv/bin/python docs/results.py"


def write(folder: Path, reached: dict[tuple[str, str, float, int], float]) -> None:
    """Runs of a grid with such metrics."""
    rows = []
    for (task, role, rate, seed), best in reached.items():
        more = {"best": best, "metric": "accuracy", "baseline": 0.5, "standard_error": 0.02}
        more |= {"evaluations": f"[{best}]", "seconds": 1, "device": "cpu", "versions": "torch 2"}
        rows.append({**vars(Cell("grid", task, role, rate, seed)), **more})
    Table(folder / CELLS).add(rows)


def test_own_rates_intervals_and_regret(script: Any, tmp_path: Path) -> None:
    tops = {"sst2": (0.80, 0.78), "rte": (0.60, 0.66), "cb": (0.70, 0.60)}
    reached = {}
    for task, (v, q) in tops.items():
        for rate in script.RATES:
            for seed in (0, 1):
                more = 0.01 * seed
                reached[task, "v", rate, seed] = (v if rate == 4e-3 else v - 0.1) + more
                reached[task, "q", rate, seed] = (q if rate == 2e-2 else q - 0.2) + more
                reached[task, "none", rate, seed] = 0.5
        reached[task, "k", 1e-2, 0] = 0.5
    write(tmp_path, reached)
    rows = [
        {"protocol": "published", "task": task, "rate": 1e-3, "seed": 0, "method": "projection",
         "role": role, "score": score, "steps": 100, "settled_target": 5, "settled_ranking": 20}
        for task in tops for role, score in {"v": 0.5, "q": 0.1, "k": 0.9, "m1": 0.2}.items()
    ]  # fmt: skip
    Table(tmp_path / PROBES).add(rows)
    runs = script.Runs(tmp_path)
    assert runs.own("sst2", "q", 1) == pytest.approx((0.79, 2e-2))
    assert runs.own("sst2", "k", 0) is None, "two rates are no grid"
    text = script.page(tmp_path)
    assert "No. k minus `none`: +0.0000" in text
    differences = [v - q for v, q in tops.values()]
    low, high = stats.t.interval(0.95, 2, sum(differences) / 3, stats.sem(differences))
    mean = sum(differences) / 3
    assert f"| own | {mean:+.4f} | {low:+.4f} to {high:+.4f} | 2 of 3 | 4 of 6 |" in text
    found = script.regrets(runs, ("q", "v"), "own")
    assert found["projection"].value == found["always-v"].value == pytest.approx(0.06 / 3)
    assert "no selection has less than always v (0.0200): it does not pay here" in text
    assert "| SST-2 | 5 % | 5 % | 20 % | 20 % |" in text
    assert "at 0.02, 0.02 (edge)" in text
    assert "Its winner wins against the other of q and v in 2 of 3 runs" in text
    # Two seeds that agree, each with standard errors of .02: the examples' share is all of it.
    from results_data import difference

    apart = difference(runs, "cb", "v", "q", "own")
    assert (apart.value, apart.error) == pytest.approx((0.10, 0.02 * 2**0.5)) and apart.beyond
    assert not difference(runs, "sst2", "v", "q", "own").beyond
    assert "Each at its own best rate v leads in CB, q in RTE; 1 of 3 tasks do not tell" in text
    assert "| RTE | own | +0.126 | -0.060 ± 0.028* | disagree, beyond noise |" in text
    assert "- grid, SST-2, RTE, CB: seed 0: k 0.0004, m1 0.0004" in text
    assert "| published | 45 | 45 |" in text, "nothing of it is there"


def test_a_selection_pays_only_beyond_its_interval(script: Any, tmp_path: Path) -> None:
    reached = {}
    for number, task in enumerate(("sst2", "rte", "cb")):
        for rate in script.RATES:
            reached[task, "v", rate, 0] = 0.6
            reached[task, "q", rate, 0] = 0.7 + 0.01 * number
    write(tmp_path, reached)
    rows = [
        {"protocol": "published", "task": task, "rate": 1e-3, "seed": 0, "method": method,
         "role": role, "score": score, "steps": 9, "settled_target": 1, "settled_ranking": 1,
         "norm_pre": norm, "inert": "no"}
        for task in ("sst2", "rte", "cb") for method in ("projection", "magnitude")
        for role, norm in {"v": 1, "q": 9, "m1": 3}.items()
        for score in [1 / norm if method == "projection" else norm]
    ]  # fmt: skip
    Table(tmp_path / PROBES).add(rows)
    text = script.page(tmp_path)
    assert "less than always v (0.1100), beyond the interval: magnitude" in text
    assert "The projection picked v in all 3 published probes" in text
    assert "From the first update on: in all 3 probes" in text
    assert "the smallest ‖pre‖ in 3 of 3 probes" in text


def test_the_correlation_is_that_of_scipy(script: Any) -> None:
    from results_selection import exact_spearman

    x, y = (0.1, 0.5, 0.2, 0.9, 0.4), (3.0, 5.0, 1.0, 4.0, 2.0)
    rho, p = exact_spearman(list(zip(x, y, strict=True)))
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    theirs = stats.permutation_test(
        (x,), lambda some: stats.spearmanr(some, y).statistic, permutation_type="pairings"
    )
    assert p == pytest.approx(theirs.pvalue)
