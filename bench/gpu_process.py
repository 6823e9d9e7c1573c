"""A process for each row of `bench/gpu.py`: forked, or begun anew where no fork can use a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.gpu_rows import Figures, Place

SCRIPT = Path(__file__).parent / "gpu.py"


def measure(row: Any, place: Place, seconds: float, limit: float, forked: bool) -> Figures:
    """Measure a row in a child of this process; what it prints goes to a file.

    Args:
        row: of `bench.gpu.all_rows`.
        place: what it is told.
        seconds: for its measurement.
        limit: it is killed after so many, with all that it began.
        forked: from this process, which has imported everything and not used the GPU.
    """
    result, log = _result(row, place), place.out / f"{row.name}.log"
    result.unlink(missing_ok=True)
    begin = time.perf_counter()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        child = (_fork if forked else _anew)(row, place, seconds, target)
    finally:
        os.close(target)
    killed = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if not killed and time.perf_counter() - begin > limit:
            killed = True
            _kill(child)
        time.sleep(0.05)
    _kill(child)  # what it left behind would take the next row's time
    if killed:
        return {"failed": f"killed after {limit:.0f} s"}
    if status or not result.exists():
        lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["no word"]
        ended = f"ended by signal {os.WTERMSIG(status)}: " if os.WIFSIGNALED(status) else ""
        return {"failed": ended + lines[-1][:300]}
    found: Figures = json.loads(result.read_text())
    return found


def run(row: Any, place: Place, seconds: float) -> None:
    """Measure in this process, and leave figures as JSON."""
    import torch

    torch.set_num_threads(1 if place.dry else min(8, os.cpu_count() or 1))
    _result(row, place).write_text(json.dumps(row.run(place, seconds)))


def place_of(told: str) -> Place:
    """What `_anew` told."""
    given = json.loads(told)
    return Place(**given | {name: Path(given[name]) for name in ("folder", "out")})


def _result(row: Any, place: Place) -> Path:
    return place.folder / f"{row.name}.json"


def _fork(row: Any, place: Place, seconds: float, target: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        os.dup2(target, 1)
        os.dup2(target, 2)
        run(row, place, seconds)
        code = 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _anew(row: Any, place: Place, seconds: float, target: int) -> int:
    told = json.dumps(vars(place), default=str)
    command = [sys.executable, str(SCRIPT), "--row", row.name, str(seconds), told]
    begun = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=target, stderr=target, start_new_session=True
    )
    return begun.pid


def _kill(child: int) -> None:
    """It, and the processes of its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
