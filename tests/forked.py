"""The command in processes of its own, forked from one that has imported everything.

A start takes tenths of a second, not six, so a test can afford to kill dozens.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_HEAVY = ["torch", "torch.distributed", "datasets", "accelerate", "accelerate.utils", "pytest",
          "peft", "sklearn", "typer", "transformers.models.bert.modeling_bert",
          "transformers.models.auto.modeling_auto", "beftkit.runs",
          "evaluate", "beftkit.tasks.formulas"]  # fmt: skip


class Command:
    """``beftkit ARGUMENTS`` as it runs.

    Args:
        folder: working directory; ``NAME.out`` and ``NAME.err`` are made there.
        arguments: of the command.
        name: of this process.
        environment: more variables.
        before: called in the process first, to spoil something there.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str | Path],
        name: str = "run",
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes share few cores here
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_HEAVY)
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        given = (str(folder), [*map(str, arguments)], str(self.out), str(self.err),
                 dict(environment or {}), before)  # fmt: skip
        self.process = context.Process(target=_run, args=given, daemon=True)
        self.process.start()

    def send(self, number: int) -> None:
        """Send a signal, if it has not ended yet."""
        if self.running:
            with suppress(ProcessLookupError):  # ended since
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait for it."""
        self.send(signal.SIGKILL)
        self.process.join()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return bool(self.process.is_alive())

    def wait(self, seconds: float = 60) -> int:
        """Exit code; minus the signal's number where one ended it."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            raise TimeoutError(f"still running after {seconds} s: {self.said}")
        return int(self.process.exitcode)

    @property
    def said(self) -> str:
        """Its stderr so far."""
        return self.err.read_text() if self.err.exists() else ""


def start_pair(
    folder: Path, arguments: Sequence[str | Path], before: Sequence[Any] = (None, None)
) -> tuple[Command, Command]:
    """Two processes of one run, with what torchrun would set."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
              "LOCAL_WORLD_SIZE": "2"}  # fmt: skip
    first, second = (
        Command(
            folder, arguments, name=f"rank{rank}", before=before[rank],
            environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    )  # fmt: skip
    return first, second


def until(true: Callable[[], bool], command: Command, seconds: float = 60) -> bool:
    """Look every millisecond; False: the command ended first."""
    end = time.monotonic() + seconds
    while not true():
        if not command.running:
            return False
        if time.monotonic() > end:
            command.kill()
            raise TimeoutError(command.said)
        time.sleep(0.001)
    return True


def _run(
    folder: str, arguments: list[str], out: str, err: str, environment: dict[str, str], before: Any
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    gc.freeze()  # what was imported is no garbage, and looking at it takes a second
    if before is not None:
        before()
    sys.argv = ["beftkit", *arguments]
    from beftkit.app import main

    main()
