"""The runner behind docs/results.md: which cells it wants, and what it keeps after a kill."""

from pathlib import Path

from bench.rates import Table
from bench.rates_cells import CELLS, FIRST, PARTS, REST, Cell, cells, key_of

ALL = [*FIRST, *REST]


def test_every_cell_of_the_issue_once_the_most_important_first() -> None:
    wanted = cells(ALL, (0, 1, 2), PARTS)
    assert len(wanted) == len({cell.key for cell in wanted}) == len(set(wanted))
    grid = [cell for cell in wanted if cell.protocol == "grid" and cell.role != "all"]
    assert len(grid) == 7 * 3 * (4 * 5 + 2)
    # Seed 0 of a task is whole before another seed of it begins.
    seeds = [cell.seed for cell in grid if cell.task == "sst2"]
    assert seeds == sorted(seeds)
    assert {cell.task for cell in wanted[: 3 + 3 * 22]} == set(FIRST)
    assert all(cell.rate is None for cell in wanted if cell.protocol == "published")


def test_rows_that_are_there_are_not_wanted_again(tmp_path: Path) -> None:
    table = Table(tmp_path / CELLS)
    first, second = cells(["rte"], (0,), ["grid"])[:2]
    probe = Cell("published", "rte", "all", None, 0)
    table.add([{**vars(first), "best": 0.5}, {**vars(probe), "rate": 0.001, "best": 0.6}])
    with table.path.open("a") as file:
        file.write("grid,rte,q")  # a kill in the middle of a line
    again = Table(tmp_path / CELLS)
    assert [key_of(row) for row in again.rows] == [first.key, probe.key]
    again.add([{**vars(second), "best": 0.7}])
    assert [row["best"] for row in Table(tmp_path / CELLS).rows] == ["0.5", "0.6", "0.7"]
