"""The command line: parse, one public call, render. The only room that prints or exits."""

from __future__ import annotations

import atexit
import gc
import sys
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer

from beftkit.app.common import CONVENTIONS, say
from beftkit.app.demo import demo
from beftkit.app.help import HelpfulCommand, HelpfulGroup
from beftkit.app.mistakes import ParserError, no_command, usage_error
from beftkit.app.scoring import inspect, score
from beftkit.errors import BeftError, UsageError

#: commands whose options are read from a definition that takes a moment to import
_LATER = dict.fromkeys(("train", "evaluate", "fisher"), "training")
_LATER |= {"predict": "using", "export": "using", "select": "selecting", "report": "reporting"}
_LATER |= {"merge": "merging", "paper": "papering"}
_LATER |= dict.fromkeys(("extract", "average", "compare"), "arithmetic")
_LATER |= {"survey": "surveying"}


class _Group(HelpfulGroup):
    """Builds the training commands when they are asked for: `score` has to start fast."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _LATER and cmd_name not in self.commands:
            room = import_module(f"beftkit.app.{_LATER[cmd_name]}")
            self.commands[cmd_name] = room.command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            if args[0].startswith("-"):  # an option, which the parser knows better
                return super().resolve_command(ctx, args)
            raise no_command(args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(n for n in _LATER if n not in self.commands)]


_HELP = "Fine-tune, score and inspect the bias terms of language models."
_ROOT = {**CONVENTIONS, "cls": _Group, "help": _HELP, "add_completion": True}
app = typer.Typer(no_args_is_help=True, **_ROOT)
_early = partial(app.command, cls=HelpfulCommand)
_early(short_help="Score how far each bias of POST moved from PRE.")(score)
_early(short_help="List a checkpoint's biases by role.")(inspect)
_early(short_help="Train a small model here and now, and select a bias of it.")(demo)


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
    """Run the command line; what is wrong becomes one line, and exit code 1, or 2 for usage."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a block shows '?'
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # When Python shuts down nothing needs collecting; looking for it takes a sixth of a short run.
    atexit.register(gc.freeze)
    # Nor is what imports make garbage: seven looks at all of it were a fifth of the time to a first
    # update. Young objects are looked at as ever.
    gc.set_threshold(*gc.get_threshold()[:2], 100)
    try:
        code = app(prog_name="beftkit", standalone_mode=False)
    except ParserError as error:
        found = usage_error(error, next((w for w in sys.argv[1:2] if w[:1] != "-"), ""))
        if found is None:
            error.show()
            sys.exit(2)
        code = refuse(found)
    except BeftError as error:
        code = refuse(error)
    except typer.Abort:
        code = 130
    if code:
        sys.exit(code)


def refuse(error: BeftError) -> int:
    """Say what is wrong in one line; returns the exit code."""
    say([f"beftkit: error: {' '.join(error.at_terminal.split())}"])
    return 2 if isinstance(error, UsageError) else 1
