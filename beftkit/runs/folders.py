"""A run's folder: what lies there, when it may be written to, when a run can be taken up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beftkit.adapters.places import ADAPTER as ADAPTER
from beftkit.adapters.places import MODEL as MODEL
from beftkit.adapters.places import SETTINGS as SETTINGS
from beftkit.errors import BeftError, UsageError, option
from beftkit.files import headed, read_headed, write_whole
from beftkit.runs import manifest, provenance
from beftkit.runs.locks import LOCK, check_free, occupied
from beftkit.runs.manifest import HALF
from beftkit.runs.results import TrainResult
from beftkit.runs.trackers import FOLDER as TRACKERS
from beftkit.settings.resolve import asked_to_find, read_yaml, resolve_train, settings_yaml
from beftkit.settings.train import TrainSettings
from beftkit.training.journal import LOG, Progress
from beftkit.training.state import FOLDER as STATE

RESULTS, HISTORY, SNAPSHOT = "all_results.json", "trainer_state.json", "snapshots"
#: what chose the bias, where it was chosen; not the run's own, so it neither fills the folder nor
#: is replaced with it
SELECT = "select"
#: names that a run has for what it makes, and ``seed-N`` for each of several seeds
STATES, SNAPSHOTS = f"{STATE}/step-*.safetensors", f"{SNAPSHOT}/*-*.safetensors"
_OWN = (
    *(SETTINGS, RESULTS, HISTORY, ADAPTER, MODEL, LOG, STATE, SNAPSHOT, TRACKERS),
    *(manifest.NAME, provenance.NAME),
)
#: settings that may differ when a run is taken up: they change nothing of what is trained
FREE = {"output", "push_to_hub", "report_to", "eval_batch_size", "save_steps", "device", "graphs"}


@contextmanager
def opened(
    folder: Path, settings: TrainSettings, *, overwrite: bool, resume: bool
) -> Iterator[bool]:
    """Make a run's folder ready, write ``run.yaml``, keep others out; gives whether it is taken up.

    Raises:
        Refusal: another process writes there, or what is there cannot be told from others' files.
        BeftError: it holds something and may not be overwritten, or a run with other settings.
    """
    given = {"overwrite": overwrite, "resume": resume}
    check_free(folder)
    former_files(folder, settings, **given)  # nothing is written where it is refused
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
    with occupied(folder):
        found = former_files(folder, settings, **given)  # others may have been here meanwhile
        drop_half_written(folder)
        if found is None:
            manifest.add(folder, *_begun(settings))
            yield True
            return
        try:
            # run.yaml goes last (it is replaced): a kill in between leaves a folder known as ours.
            manifest.remove(folder, [path for path in found if path != folder / SETTINGS])
        except OSError as error:
            raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
        manifest.begin(folder, *_begun(settings))
        write_whole(folder / SETTINGS, settings_yaml(settings).encode())
        yield False


def former_files(
    folder: Path, settings: TrainSettings, *, overwrite: bool, resume: bool
) -> list[Path] | None:
    """What a former run made there and is to be deleted; None: it is to be taken up.

    Raises:
        BeftError: as `opened`.
    """
    try:
        held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    except NotADirectoryError:
        raise BeftError(
            f"{folder}: is a file; expected a folder to make, give another --output"
        ) from None
    except OSError as error:
        raise BeftError(f"{folder}: cannot be listed ({error.strerror})") from None
    held = [name for name in held if not name.startswith(HALF)]
    held = [name for name in held if name not in (SELECT, LOCK, manifest.NAME)]
    if held:
        _check_links(folder)
    former = SETTINGS in held
    if resume and former:
        _check_same(folder, settings)
        return None
    if not held:
        return []
    # A run that was replaced with its selection leaves what others keep there, and its manifest.
    cleared = not former and manifest.read(folder) is not None and not manifest.made(folder)
    # A run that was refused before its first update (a wrong --max-length) is nobody's loss.
    unbegun = former and {*held} <= {SETTINGS, provenance.NAME}
    unbegun = unbegun and manifest.read(folder) is not None and not resume
    if not cleared and not (former and (overwrite or unbegun)):
        taken = "holds a run; --resume takes it up, --overwrite replaces it"
        foreign = f"holds {held[0]} and is no run's folder; give another --output"
        raise BeftError(f"{folder}: {taken if former else foreign}")
    if former:
        _check_ours(folder)
    made = manifest.made(folder)
    for name in _all_names(settings):
        for path in manifest.matching(folder, name):
            if path not in made:
                raise manifest.unlisted(path)
    return made


def _check_ours(folder: Path) -> None:
    try:
        resolve_train(folder / SETTINGS, {})
    except BeftError as error:
        raise BeftError(
            f"{folder}: its {SETTINGS} is no run's, so nothing is replaced ({error.told}); give "
            "another --output"
        ) from None


def _begun(settings: TrainSettings) -> list[str]:
    """What a run lists in its folder when it begins there."""
    begun = [SETTINGS, provenance.NAME]
    return begun if len(settings.seeds) > 1 else [*begun, *_going(settings)]


def _going(settings: TrainSettings) -> list[str]:
    """What it lists where one seed trains: what is made on the way."""
    names = [LOG, STATES]
    names += [SNAPSHOTS] if settings.save_snapshots else []
    # What trackers of others write has no names that we know: this folder is theirs.
    return names + ([f"{TRACKERS}/{manifest.ALL}"] if settings.report_to != "none" else [])


def _all_names(settings: TrainSettings) -> list[str]:
    """All that a run can make, whether it comes to that or not, but for what is the trackers'."""
    own = [LOG, STATES, SNAPSHOTS, RESULTS, HISTORY, f"{ADAPTER}/*", f"{MODEL}/*"]
    whole = settings.bias.partition(":")[0] in ("full", "rand")
    own.remove(f"{ADAPTER}/*" if whole else f"{MODEL}/*")
    if len(settings.seeds) == 1:
        return [*own, provenance.NAME]
    return [
        RESULTS,
        provenance.NAME,
        *(f"seed-{seed}/{name}" for seed in settings.seeds for name in own),
    ]


def _check_links(folder: Path) -> None:
    """Refuse a run's own names that are symbolic links: states behind one would be deleted there,
    and a log be cut.
    """
    for path in sorted(folder.iterdir()):
        own = path.name.startswith("seed-")
        if own or path.name in _OWN:
            manifest.check_no_link(folder, path.name)
        if own and path.is_dir():
            _check_links(path)


def drop_half_written(folder: Path) -> None:
    """Drop what a killed run was writing: temporary names that nothing reads."""
    own = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    inner = [path for path in own if path.name in _OWN or path.name.startswith("seed-")]
    for place in (folder, *inner, *(path / name for path in inner for name in _OWN)):
        for path in place.glob(f"{HALF}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _check_same(folder: Path, settings: TrainSettings) -> None:
    before = read_yaml(folder / SETTINGS)
    now: dict[str, Any] = settings.model_dump(mode="json")
    for key in now:
        if key not in FREE and before.get(key) != now[key]:
            raise BeftError(
                f"{folder}: was begun with {option(key, before.get(key))}, not {now[key]!r}; "
                "resume with the same settings (--output and --resume alone will do), or start "
                "afresh with --overwrite"
            )


def make_seed(folder: Path, settings: TrainSettings) -> None:
    """Make one seed's folder inside a run's.

    Raises:
        BeftError: it cannot be made.
    """
    manifest.add(folder.parent, folders=[folder.name])
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    manifest.add(folder, *_going(settings))


def resolve_run(
    config: str | Path | None, given: Mapping[str, Any], *, resume: bool
) -> TrainSettings:
    """A run's settings; one that is taken up has those in its own folder to start from.

    Without a rate where that is to be found, or with the one that the folder has.

    Not where the bias is to be chosen: what was filled in later was unknown to the selection.

    Raises:
        UsageError: an unknown setting, a value that does not fit, or no model.
        BeftError: nothing to take up in its folder.
    """
    find = asked_to_find(config, given)
    output = given.get("output")
    if resume and config is None and output is not None:
        saved = Path(output) / SETTINGS
        if not saved.is_file():
            check_resumable(Path(output), SETTINGS, given)
        elif given.get("bias") != "auto":
            config = saved
            check_code(saved, given)
    return resolve_train(config, given, find=find)


def check_resumable(folder: Path, settings: str, given: Mapping[str, Any]) -> None:
    """Refuse to take up what was never begun, unless it is told what to begin.

    Raises:
        BeftError: the folder holds no such settings, and no model was given.
    """
    if given.get("model") is not None:
        return
    kinds = {SETTINGS: ("run", "train"), f"{SELECT}.yaml": ("selection", "select")}
    wanted = kinds.pop(settings)[0]
    for name, (kind, command) in kinds.items():
        if (folder / name).is_file():
            raise BeftError(
                f"{folder}: holds a {kind}, not a {wanted}; `beftkit {command} --output {folder} "
                "--resume` takes it up"
            )
    if folder.name.startswith("seed-") and (folder.parent / SETTINGS).is_file():
        raise BeftError(
            f"{folder}: is one seed of a run; `beftkit train --output {folder.parent} --resume` "
            "takes all of them up"
        )
    if (folder / SELECT / f"{SELECT}.yaml").is_file():
        raise BeftError(
            f"{folder}: its bias was not chosen yet; give the run's settings again, with "
            "--bias=auto and --resume"
        )
    there = f"holds no {wanted}" if folder.is_dir() else "no such folder"
    raise BeftError(
        f"{folder}: {there}, so there is nothing to resume; expected the --output of a {wanted} "
        "that was begun"
    )


def check_code(saved: Path, given: Mapping[str, Any]) -> None:
    """Refuse code that only a folder's own settings name: the folder may come from elsewhere.

    Raises:
        UsageError: a metric that is not ours, or the leave to run code, not given here as well.
    """
    from beftkit.tasks import OUR_METRICS

    held = read_yaml(saved)
    names = held.get("metric") or ()
    for name in names if isinstance(names, list) else (names,):
        if name and name not in OUR_METRICS and not given.get("metric"):
            raise UsageError(
                f"{saved}: names the metric {name!r}, which is code to run; give it here as well: "
                f"{option('metric', name)}"
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
        return TrainResult.from_dict(read_headed(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BeftError(f"{path}: damaged ({error}); remove it, then resume") from None


def write_results(folder: Path, result: TrainResult) -> None:
    """Write ``all_results.json``, the mark of a run that came to its end."""
    manifest.add(folder, RESULTS)
    text = json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
    write_whole(folder / RESULTS, text.encode())


def write_history(folder: Path, progress: Progress) -> None:
    """Write ``trainer_state.json``: where the run ended, and its log as one list."""
    log = folder / LOG
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    facts = {
        "global_step": progress.step,
        "epoch": progress.epoch,
        "best": progress.best and asdict(progress.best),
        "last": progress.last and asdict(progress.last),
        "stopped_early": progress.stopped_early,
        "log_history": [json.loads(line) for line in lines],
    }
    manifest.add(folder, HISTORY)
    text = json.dumps(headed(facts), indent=2, allow_nan=False) + "\n"
    write_whole(folder / HISTORY, text.encode())
