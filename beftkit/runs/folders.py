"""A run's folder: what lies there, when it may be written to, when a run can be taken up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError, UsageError
from beftkit.files import write_whole
from beftkit.runs.results import TrainResult
from beftkit.settings.resolve import read_yaml, resolve_train, settings_yaml
from beftkit.settings.train import TrainSettings
from beftkit.training.journal import Progress

SETTINGS, RESULTS, HISTORY = "run.yaml", "all_results.json", "trainer_state.json"
ADAPTER, MODEL = "adapter", "model"
#: what chose the bias, where it was chosen; not the run's own, so it neither fills the folder nor
#: is replaced with it
SELECT = "select"
#: how temporary names begin
HALF = ".beftkit-"
#: all that a run leaves in its folder, and ``seed-N`` for each of several seeds
_OWN = (SETTINGS, RESULTS, HISTORY, ADAPTER, MODEL, "log.jsonl", "state", "snapshots",
        "trackers")  # fmt: skip
#: settings that may differ when a run is taken up: they change nothing of what is trained
FREE = {"output", "push_to_hub", "report_to", "eval_batch_size", "save_steps", "device"}


def begin(folder: Path, settings: TrainSettings, *, overwrite: bool, resume: bool) -> bool:
    """Make a run's folder ready and write ``run.yaml``; returns whether a run is taken up.

    Raises:
        BeftError: it holds something and may not be overwritten, or a run with other settings.
    """
    try:
        held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        held = [name for name in held if not name.startswith(HALF) and name != SELECT]
    except NotADirectoryError:
        raise BeftError(
            f"{folder}: is a file; expected a folder to make, give another --output"
        ) from None
    except OSError as error:
        raise BeftError(f"{folder}: cannot be listed ({error.strerror})") from None
    former = SETTINGS in held
    if resume and former:
        _check_same(folder, settings)
        drop_half_written(folder)
        return True
    if held and not (overwrite and former):
        why = (
            "holds a run; --resume takes it up, --overwrite replaces it" if former
            else f"holds {held[0]} and is no run's folder; give another --output"
        )  # fmt: skip
        raise BeftError(f"{folder}: {why}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # run.yaml goes last (it is replaced): a kill in between leaves a folder known as a run's.
        for name in (name for name in held if name != SETTINGS):
            if name in _OWN or (name.startswith("seed-") and (folder / name / "state").is_dir()):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
    drop_half_written(folder)
    write_whole(folder / SETTINGS, settings_yaml(settings).encode())
    return False


def drop_half_written(folder: Path) -> None:
    """Drop what a killed run was writing: temporary names that nothing reads."""
    for path in folder.rglob(f"{HALF}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _check_same(folder: Path, settings: TrainSettings) -> None:
    before = read_yaml(folder / SETTINGS)
    now: dict[str, Any] = settings.model_dump(mode="json")
    for key in now:
        if key not in FREE and before.get(key) != now[key]:
            raise BeftError(
                f"{folder}: was begun with {key} {before.get(key)!r}, not {now[key]!r}; resume "
                "with the same settings (--output and --resume alone will do), or start afresh "
                "with --overwrite"
            )


def make(folder: Path) -> None:
    """Make a folder inside a run's.

    Raises:
        BeftError: it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None


def resolve_run(
    config: str | Path | None, given: Mapping[str, Any], *, resume: bool
) -> TrainSettings:
    """A run's settings; one that is taken up has those in its own folder to start from.

    Not where the bias is to be chosen: what was filled in later was unknown to the selection.

    Raises:
        UsageError: an unknown setting, a value that does not fit, or no model.
    """
    output = given.get("output")
    if resume and config is None and output is not None and given.get("bias") != "auto":
        saved = Path(output) / SETTINGS
        config = saved if saved.is_file() else None
        if config:
            check_code(saved, given)
    return resolve_train(config, given)


def check_code(saved: Path, given: Mapping[str, Any]) -> None:
    """Refuse code that only a folder's own settings name: the folder may come from elsewhere.

    Raises:
        UsageError: a metric that is not ours, or the leave to run code, not given here as well.
    """
    from beftkit.tasks import METRIC_NAMES

    held = read_yaml(saved)
    names = held.get("metric") or ()
    for name in names if isinstance(names, list) else (names,):
        if name and name not in METRIC_NAMES and not given.get("metric"):
            raise UsageError(
                f"{saved}: names the metric {name!r}, which is code to run; give it here as well: "
                f"--metric {name}"
            )
    if held.get("trust_remote_code") and not given.get("trust_remote_code"):
        raise UsageError(
            f"{saved}: allows code of others to run; allow it here as well: --trust-remote-code"
        )


def finished(folder: Path) -> TrainResult | None:
    """The result of a run that came to its end there."""
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        return TrainResult.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BeftError(f"{path}: damaged ({error}); remove it, then resume") from None


def write_results(folder: Path, result: TrainResult) -> None:
    """Write ``all_results.json``, the mark of a run that came to its end."""
    text = json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
    write_whole(folder / RESULTS, text.encode())


def write_history(folder: Path, progress: Progress) -> None:
    """Write ``trainer_state.json``: where the run ended, and its log as one list."""
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    facts = {
        "global_step": progress.step,
        "epoch": progress.epoch,
        "best": progress.best and asdict(progress.best),
        "last": progress.last and asdict(progress.last),
        "stopped_early": progress.stopped_early,
        "log_history": [json.loads(line) for line in lines],
    }
    write_whole(folder / HISTORY, (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode())
