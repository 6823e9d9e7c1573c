"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

from tests.answering import answering as answering
from tests.builders import write_model
from tests.command import Beftkit, Ran
from tests.fisher_run import fisher as fisher
from tests.fisher_run import measured as measured
from tests.hub_fixtures import data_hub as data_hub
from tests.hub_fixtures import hub as hub
from tests.hub_fixtures import uploads as uploads
from tests.merge_bases import bases as bases
from tests.merge_bases import mine as mine
from tests.run_fixtures import here as here
from tests.run_fixtures import no_hub as no_hub
from tests.run_fixtures import place as place
from tests.run_fixtures import tiny as tiny
from tests.run_fixtures import workplace as workplace
from tests.survey_hub import listing as listing

# More threads only get in each other's way in models this small, and sum in another order.
os.environ["OMP_NUM_THREADS"] = "1"

# The same examples each time: a change is judged by what it changes.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


class Tolerance(NamedTuple):
    """What a kernel may differ from the float64 reference.

    Attributes:
        rms: rms(reference - result) / rms(reference) of sums.
        score: relative, per element, of a projection ratio where every coordinate of a vector of
            thousands moved by one unit in its last place; 2^-52 times what that cancels.
    """

    rms: float
    score: float


#: by input dtype; all sums are float64, whatever comes in
TOLERANCE = {
    "float32": Tolerance(1e-14, 1e-8),
    "bfloat16": Tolerance(1e-14, 2e-13),
    "float16": Tolerance(1e-14, 2e-12),
    "float64": Tolerance(1e-14, 1.0),
}

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked gpu where there is none; torch is asked only if something is marked."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting:
        import torch

        if not torch.cuda.is_available():
            for item in wanting:
                item.add_marker(pytest.mark.skip(reason="no CUDA or ROCm device"))


@pytest.fixture(
    params=[("triton", "cpu")]
    if INTERPRETED
    else [
        ("torch", "cpu"),
        pytest.param(("torch", "cuda"), marks=pytest.mark.gpu),
        pytest.param(("triton", "cuda"), marks=pytest.mark.gpu),
    ],
    ids="-".join,
)
def engine(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Backend and device a kernel test runs on; interpreted Triton in a process of its own."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill what `torch.empty` returns with NaN: a cell that nobody writes is seen."""
    import torch

    plain = torch.empty

    def empty(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = plain(*args, **kwargs)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", empty)
    yield


@pytest.fixture
def beftkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Beftkit:
    """Run the command as its console script does, in this process."""

    def run(*arguments: str | Path) -> Ran:
        from beftkit.app import main

        monkeypatch.setattr("sys.argv", ["beftkit", *map(str, arguments)])
        try:
            main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
        return Ran(int(code), *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good pair in it: ``pre`` and ``post``."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "pre", seed=1)
    write_model(tmp_path / "post", seed=2)
    return tmp_path
