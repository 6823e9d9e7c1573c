"""Where a run comes from: versions, device, date, command; kept in its folder from its start on."""

from __future__ import annotations

import json
import math
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from beftkit import __version__
from beftkit.accelerator import precision_of
from beftkit.errors import BeftError
from beftkit.files import from_plain, headed, read_headed, write_whole

if TYPE_CHECKING:
    from accelerate import Accelerator

NAME = "provenance.json"
#: what decides numbers, beside Python and beftkit
_PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "peft")
#: options whose value is nobody's business, and such parts of an address
_SECRET = re.compile(r"-*[\w-]*?(?:token|secret|password|passwd|api[-_]?key)s?", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_\w{4,}")
_ACCOUNT = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(
    r"([?&][\w-]*(?:token|secret|password|key|signature)[\w-]*=)[^&#\s]+", re.IGNORECASE
)
HIDDEN = "***"


@dataclass(frozen=True)
class Chosen:
    """What ``bias: auto`` became, and why.

    Attributes:
        bias: the target.
        method: whose it is.
        score: its score by that method, or None.
        folder: of the selection, from the run's folder on.
    """

    bias: str
    method: str
    score: float | None
    folder: str


@dataclass(frozen=True)
class RateTried:
    """A learning rate of a sweep: the best metric, its loss and one standard error of the metric,
    None where the run diverged.
    """

    lr: float
    metric: float | None
    loss: float | None
    standard_error: float | None = None


@dataclass(frozen=True)
class RateSearch:
    """What ``lr: find`` became, and why (`beftkit.runs.rate_search`).

    Attributes:
        lr: of those that were tried the best.
        metric: what it was judged by, on examples held out of the training data.
        tried: each rate, from low to high.
        examples: that were trained on, ``held_out``: that were held out.
        updates: of each short run.
        edge: ``lr`` is the lowest or the highest tried, so that a better one may lie beyond.
    """

    lr: float
    metric: str
    tried: tuple[RateTried, ...]
    examples: int
    held_out: int
    updates: int
    edge: bool

    @property
    def not_told_apart(self) -> tuple[float, ...]:
        """Other rates within two standard errors of the difference, as `beftkit select` has it."""
        [best] = [one for one in self.tried if one.lr == self.lr]
        close = []
        for one in self.tried:
            if one is best or one.metric is None or best.metric is None:
                continue
            if one.standard_error is None or best.standard_error is None:
                continue
            noise = 2 * math.hypot(one.standard_error, best.standard_error)
            close += [one.lr] if abs(one.metric - best.metric) <= noise else []
        return tuple(close)


@dataclass(frozen=True)
class Provenance:
    """Where a run comes from. Revisions of model and data stand in its settings.

    Attributes:
        beftkit, python, platform: versions.
        packages: name -> version, of those that are installed.
        device: as torch names it, and the card's own name.
        precision: arithmetic, as it is.
        processes, threads: how many, and of torch in each.
        started, ended: UTC, ISO 8601; None: not yet.
        command: as a line for a shell, tokens and passwords left out.
        directory: where it was started: relative paths in ``run.yaml`` begin there.
        resumed: how often it was taken up; versions and device are those of the last time.
        chosen: what ``bias: auto`` became; None: the bias was named.
        peak_memory_mib: allocated on a CUDA device in the run, else resident, of the process.
        rates: what ``lr: find`` became; None: the rate was given, or is the task's.
    """

    beftkit: str
    python: str
    platform: str
    packages: Mapping[str, str]
    device: str
    precision: str
    processes: int
    threads: int
    started: str
    command: str
    directory: str
    ended: str | None = None
    resumed: int = 0
    chosen: Chosen | None = None
    peak_memory_mib: float | None = None
    rates: RateSearch | None = None

    @property
    def versions(self) -> dict[str, str]:
        """Of all that decides numbers, by name."""
        return {"beftkit": self.beftkit, **self.packages, "Python": self.python}


def provenance_of(
    accelerator: Accelerator, chosen: Chosen | None = None, rates: RateSearch | None = None
) -> Provenance:
    """That of a run that starts now, here."""
    import torch

    device = accelerator.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    card = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    found = {name: held for name in _PACKAGES if (held := _version(name))}
    return Provenance(
        beftkit=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=found,
        device=f"{device}{card}",
        precision=precision_of(accelerator),
        processes=accelerator.num_processes,
        threads=torch.get_num_threads(),
        started=_now(),
        command=command_line(sys.argv),
        directory=str(Path.cwd()),
        chosen=chosen,
        rates=rates,
    )


def begun(folder: Path, now: Provenance, *, resume: bool) -> tuple[Provenance, list[str]]:
    """Keep it in the run's folder; with what to say where the run was begun with other versions.

    Raises:
        BeftError: it cannot be written.
    """
    former = kept(folder) if resume else None
    notes = []
    if former is not None:
        names = {**former.versions, **now.versions}
        changed = [
            f"{name} {former.versions.get(name)}, now {now.versions.get(name)}"
            for name in names
            if former.versions.get(name) != now.versions.get(name)
        ]
        if changed:
            told = "; ".join(changed)
            notes = [f"begun with {told}: the result need not be the uninterrupted run's"]
        first = {name: getattr(former, name) for name in ("started", "command", "directory")}
        chosen = now.chosen or former.chosen
        rates = now.rates or former.rates
        now = replace(now, **first, chosen=chosen, rates=rates, resumed=former.resumed + 1)
    write_whole(folder / NAME, (json.dumps(headed(asdict(now)), indent=2) + "\n").encode())
    return now, notes


def ended(one: Provenance, accelerator: Accelerator) -> Provenance:
    """It, at the end of the run."""
    return replace(one, ended=_now(), peak_memory_mib=_peak(accelerator))


def kept(folder: Path) -> Provenance | None:
    """What a run's folder says; None: an older version's, or damaged."""
    try:
        return from_plain(Provenance, read_headed(folder / NAME))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, BeftError):
        return None


def command_line(words: Sequence[str]) -> str:
    """A program's words as a line for a POSIX shell, with ``***`` for whatever is secret."""
    program, *rest = words or [""]
    name = Path(program).name
    shown = ["beftkit" if name == "__main__.py" else name]
    hide = False
    for word in rest:
        option, equals, _ = word.partition("=")
        secret = word.startswith("-") and _SECRET.fullmatch(option) is not None
        if hide and not word.startswith("--"):
            word = HIDDEN
        elif secret and equals:
            word = f"{option}={HIDDEN}"
        hide = secret and not equals
        word = _ACCOUNT.sub(f"{HIDDEN}@", _TOKEN.sub(HIDDEN, word))
        shown.append(_QUERY.sub(rf"\1{HIDDEN}", word))
    return shlex.join(shown)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _peak(accelerator: Accelerator) -> float | None:
    import torch

    device = accelerator.device
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; macOS has it in bytes
    return round(used / (2**20 if sys.platform == "darwin" else 2**10), 1)
