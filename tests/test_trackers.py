"""Trackers of other makers: told what the log is told, one a seed, and nobody unless asked."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking

from tests.command import Beftkit, Ran, refused

RUN = ("train", "base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--bias",
       "q,v", "--epochs", "2", "--batch-size", "8", "--lr", "1e-2", "--device", "cpu", "--quiet",
       "-o", "out")  # fmt: skip
NAMES = {"loss", "lr", "grad_norm", "metrics/accuracy", "metrics/macro_f1", "scores/q", "scores/v"}
#: what may come in with a tracker, and with nothing else here
PACKAGES = {"tensorboard", "tensorboardX", "torch.utils.tensorboard", "wandb", "mlflow", "trackio"}


class StandIn(tracking.GeneralTracker):
    """Keeps what it is told, as TensorBoard would in a folder."""

    name = "stand-in"
    requires_logging_directory = True
    made: list[StandIn] = []  # noqa: RUF012

    def __init__(self, run_name: str, logging_dir: Any, **_: Any) -> None:
        super().__init__()
        self.folder = Path(logging_dir) / run_name
        self.lines: list[tuple[int | None, dict[str, Any]]] = []
        self.config: dict[str, Any] = {}
        self.finished = False

    @property
    def tracker(self) -> StandIn:
        return self

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        self.made.append(self)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.finished = True


class NotLoggedIn(StandIn):
    """Raises what nobody foresees."""

    name = "not-logged-in"

    def start(self) -> None:
        raise LookupError("api_key not configured\nsee https://example.org")


class Failing(StandIn):
    """Its disk is full at the third line, and at the end."""

    name = "failing"

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if len(self.lines) == 2:
            raise OSError(errno.ENOSPC, "No space left")
        super().log(values, step)

    def finish(self) -> None:
        raise OSError(errno.ENOSPC, "No space left")


@pytest.fixture(autouse=True)
def known(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """They are known to Accelerate; the working directory holds base and data."""
    for one in (StandIn, NotLoggedIn, Failing):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, one.name, one)
    yield
    StandIn.made.clear()


def log(run: str = "out") -> list[Any]:
    return [json.loads(line) for line in Path(run, "log.jsonl").read_text().splitlines()]


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """As a tracker takes a line of the log."""
    found = {}
    for key, value in record.items():
        inner = value if isinstance(value, dict) else {"": value}
        found |= {f"{key}/{name}".rstrip("/"): one for name, one in inner.items()}
    return {key: value for key, value in found.items() if value is not None and key != "step"}


def test_a_tracker_is_told_what_the_log_is_told(beftkit: Beftkit) -> None:
    ran = beftkit(*RUN, "--report-to", "stand-in", "--track-steps", "4")
    assert ran.code == 0 and ran.err == "", ran
    [one] = StandIn.made
    assert one.folder == Path("out/trackers/beftkit") and one.finished
    assert one.lines == [(line["step"], flat(line)) for line in log()]
    assert set().union(*(values for _, values in one.lines)) >= NAMES
    kinds = (int, float, str, bool)
    assert all(isinstance(value, kinds) for _, values in one.lines for value in values.values())
    assert one.config["lr"] == 1e-2 and one.config["bias"] == "q,v" and one.config["seed"] == 0
    assert all(isinstance(value, kinds) for value in one.config.values())


def test_each_seed_has_a_tracker_of_its_own(beftkit: Beftkit) -> None:
    ran = beftkit(*RUN, "--report-to", "stand-in", "--seeds", "3,5")
    assert ran.code == 0, ran
    assert [one.config["seed"] for one in StandIn.made] == [3, 5]
    for seed, one in zip((3, 5), StandIn.made, strict=True):
        assert one.folder == Path(f"out/seed-{seed}/trackers/beftkit") and one.finished
        assert one.lines == [(line["step"], flat(line)) for line in log(f"out/seed-{seed}")]


def test_a_run_that_fails_closes_its_tracker(beftkit: Beftkit) -> None:
    refused(beftkit(*RUN, "--report-to", "stand-in", "--lr", "1e38"), "is not finite")
    [one] = StandIn.made
    assert one.finished and one.lines == []


def test_nobody_is_told_unless_asked(beftkit: Beftkit) -> None:
    before = PACKAGES & sys.modules.keys()
    assert beftkit(*RUN).code == 0
    assert not StandIn.made and not Path("out/trackers").exists()
    assert PACKAGES & sys.modules.keys() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not-logged-in", "--report-to not-logged-in: cannot start (LookupError: api_key not conf"),
        ("stand-in,not-logged-in", "cannot start (LookupError: api_key not configured)"),
    ],
)
def test_a_tracker_that_cannot_be_had(name: str, message: str, beftkit: Beftkit) -> None:
    refused(beftkit(*RUN, "--report-to", name), message, limit=400)
    assert all(one.finished for one in StandIn.made)


def test_a_tracker_that_fails_on_the_way(beftkit: Beftkit) -> None:
    ran = beftkit(*RUN, "--report-to", "failing")
    refused(
        ran, "a tracker failed (OSError: [Errno 28] No space left); --resume with --report-to no"
    )
    assert beftkit("train", "-o", "out", "--resume", "--report-to", "none").code == 0
    assert [line["step"] for line in log()] == [8, 8, 16, 16]


def test_a_package_that_is_not_there(beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [])
    for name, message in (
        ("tensorboard", "--report-to tensorboard: its package is not installed here; install it"),
        ("stand-in,wandb", "--report-to wandb: its package is not installed here"),
        ("all", "no tracker's package is installed here"),
    ):
        refused(beftkit(*RUN, "--report-to", name), message)
    assert not Path("out").exists(), "it is found out before anything is made"


def test_tensorboard_itself(beftkit: Beftkit) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    ran: Ran = beftkit(*RUN, "--report-to", "tensorboard", "--seeds", "0,1")
    assert ran.code == 0 and "Traceback" not in ran.err, ran
    for seed in (0, 1):
        folder = Path(f"out/seed-{seed}/trackers/beftkit")
        assert [*folder.glob("events.out.tfevents.*")]
        found = events.EventAccumulator(str(folder)).Reload()
        assert set(found.Tags()["scalars"]) >= NAMES
        for name in NAMES:
            told = [(one.step, one.value) for one in found.Scalars(name)]
            wanted = [(line["step"], flat(line)[name]) for line in log(f"out/seed-{seed}")
                      if name in flat(line)]  # fmt: skip
            assert [step for step, _ in told] == [step for step, _ in wanted]
            assert [value for _, value in told] == pytest.approx([value for _, value in wanted])
