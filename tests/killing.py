"""Work that is killed at many of its steps: SIGKILL, which runs nothing afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.command import tree

_STEPS = ("open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir")


def killed_at(
    make: Callable[[bool], object], out: Path, wanted: Mapping[str, bytes | None], moments: int
) -> int:
    """Fork, work, and kill the child at steps all over the work; afterwards OUT is whole or absent.

    Args:
        make: the work; is told whether to overwrite. It was done once in this process already.
        out: the folder that it makes.
        wanted: what is in it, once it is whole.
        moments: how often it is killed.

    Returns:
        After how many of the kills something was left beside OUT.
    """

    def run(stop: int, overwrite: bool) -> int:
        child = os.fork()
        if child == 0:
            count = 0

            def step(event: str, _: object) -> None:
                nonlocal count
                if event in _STEPS:
                    count += 1
                    if count == stop:
                        os.kill(os.getpid(), signal.SIGKILL)

            try:
                sys.addaudithook(step)
                make(overwrite)
                os._exit(min(count, 199))
            except BaseException:
                os._exit(255)
        return os.waitpid(child, 0)[1]

    shutil.rmtree(out)
    status = run(10**9, False)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) != 255
    steps = os.WEXITSTATUS(status)
    assert steps > 20
    shutil.rmtree(out)
    left = 0
    for moment in np.linspace(2, steps + 4, moments).astype(int):
        status = run(int(moment), out.exists())
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) != 255, moment
        assert not out.exists() or tree(out) == wanted, moment
        left += bool([*out.parent.glob(f"{out.name}.tmp-*")])
    return left
