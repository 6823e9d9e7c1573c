"""The command line: parse, one public call, render. The only room that prints or exits."""

from __future__ import annotations

import atexit
import gc
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from beftkit.app.common import CONVENTIONS, say
from beftkit.app.demo import demo
from beftkit.app.scoring import inspect, score
from beftkit.errors import BeftError, UsageError

#: commands whose options are read from a definition that takes a moment to import
_LATER = dict.fromkeys(("train", "evaluate", "fisher"), "training")
_LATER |= {"predict": "using", "export": "using", "select": "selecting", "report": "reporting"}


class _Group(TyperGroup):
    """Builds the training commands when they are asked for: `score` has to start fast."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _LATER and cmd_name not in self.commands:
            room = import_module(f"beftkit.app.{_LATER[cmd_name]}")
            self.commands[cmd_name] = room.command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(n for n in _LATER if n not in self.commands)]


_HELP = "Fine-tune, score and inspect the bias terms of language models."
app = typer.Typer(cls=_Group, no_args_is_help=True, help=_HELP, **CONVENTIONS)
app.command(short_help="Score how far each bias of POST moved from PRE.")(score)
app.command(short_help="List a checkpoint's biases by role.")(inspect)
app.command(short_help="Train a small model here and now, and select a bias of it.")(demo)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from beftkit import __version__

        print(f"beftkit {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; a `BeftError` becomes one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a block shows '?'
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # When Python shuts down nothing needs collecting; looking for it takes a sixth of a short run.
    atexit.register(gc.freeze)
    try:
        app(prog_name="beftkit")
    except BeftError as error:
        say([f"beftkit: error: {' '.join(str(error).split())}"])
        sys.exit(2 if isinstance(error, UsageError) else 1)
