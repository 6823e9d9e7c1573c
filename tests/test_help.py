"""Pages of help at every width, their examples, and completion as a shell asks for it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beftkit.app.help import EXAMPLES
from tests.command import Beftkit
from tests.test_imports import HEAVY
from tests.test_options import OPTIONS, opened

ROOT = Path(__file__).parents[1]
COMMANDS = ["", *OPTIONS]


def parameters(name: str) -> list[Any]:
    group, context = opened()
    found: list[Any] = (group.get_command(context, name) if name else group).params
    return found


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_help_is_as_wide_as_the_terminal(
    width: int, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between 60 and 120 columns; nothing is cut, and no name of an option broken."""
    monkeypatch.setenv("COLUMNS", str(width))
    widest = 0
    for name in COMMANDS:
        text = beftkit(*([name] if name else []), "--help").out
        widths = [len(line) for line in text.splitlines()]
        assert max(widths) <= min(max(width, 60), 120), text
        widest = max(widest, *widths)
        words = text.split()
        for one in parameters(name):
            shown = {word.rstrip(",;.:") for word in words}
            names = {*one.opts, *one.secondary_opts} if one.param_type_name == "option" else set()
            assert names.isdisjoint(shown) if getattr(one, "hidden", False) else names <= shown
            for word in (getattr(one, "help", None) or "").split():
                assert word in words, f"{name}: {word} is cut"
    assert widest > min(max(width, 60), 120) - 10


@pytest.mark.parametrize("name", COMMANDS)
def test_two_examples_and_a_page_that_says_more(
    name: str, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, more = EXAMPLES[name]
    assert (ROOT / more).is_file()
    for width in (60, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        words = [name] if name else []
        text = beftkit(*words, "--help").out
        assert text == beftkit(*words, "-h").out
        assert f"More: {more} in the repository of beftkit." in text
        shown = text[text.index("Examples:") : text.index("More:")]
        joined = shown.replace("\\\n", " ").splitlines()[1:]
        given = [shlex.split(line) for line in joined if line.strip()]
        assert given == [shlex.split(one) for one in (first, second)], "as one copies them"
    group, context = opened()
    for program, command, *arguments in given:
        assert program == "beftkit" and command == (name or command)
        found = group.get_command(context, command)
        parsed = found.make_context(command, arguments, parent=context)
        assert parsed.params and not parsed.args


def test_examples_resolve_to_settings() -> None:
    """What the parser takes may still contradict itself."""
    from beftkit.settings import EvaluateSettings, FisherSettings, TrainSettings
    from beftkit.settings.resolve import resolve, resolve_select

    group, context = opened()
    kinds: dict[str, Any] = {"train": TrainSettings, "evaluate": EvaluateSettings}
    kinds |= {"fisher": FisherSettings, "select": None}
    for name, kind in kinds.items():
        for example in EXAMPLES[name][:2]:
            found = group.get_command(context, name)
            given = found.make_context(name, shlex.split(example)[2:], parent=context).params
            own = ("format", "quiet", "config", "resume", "overwrite", "dry_run", "time")
            own += () if name == "train" else ("output",)
            given = {key: one for key, one in given.items() if key not in own and one}
            settings: Any = resolve(kind, None, given) if kind else resolve_select(None, given)
            assert settings.model or settings.adapter


def asked(words: str, shell: str = "bash") -> dict[str, str]:
    """The environment in which a shell asks."""
    found = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    found |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return found | {"_BEFTKIT_COMPLETE": f"complete_{shell}"}


@pytest.mark.parametrize(
    ("words", "shell", "expected"),
    [
        ("beftkit tr", "bash", ["train"]),
        ("beftkit train --le", "bash", [""]),
        ("beftkit train --lab", "bash", ["--label-column", "--label-map"]),
        ("beftkit fisher --ex", "bash", [""]),  # a former name
        ("beftkit fisher --train-s", "bash", ["--train-size"]),
        ("beftkit train --dtype fl", "bash", ["float32", "float16"]),
        ("beftkit score --met", "zsh", ['"--method":"Which figure ranks']),
        ("beftkit tr", "fish", ["train\tFine-tune one kind of bias"]),
    ],
)
def test_completion_answers(
    words: str, shell: str, expected: list[str], beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in asked(words, shell).items():
        monkeypatch.setenv(name, value)
    ran = beftkit()
    assert ran.code == 0 and ran.err == ""
    if shell == "bash":
        assert ran.out.split("\n")[:-1] == expected
    assert expected[0] in ran.out


def test_completion_loads_nothing_heavy() -> None:
    code = "import sys\nfrom beftkit.app import main\n"
    code += "try:\n    main()\nfinally:\n    print(*sys.modules)"
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    place = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **asked("beftkit train --l"), **place},
    )
    *found, loaded = ran.stdout.splitlines()
    assert found == ["--layers", "--label-column", "--label-map", "--lr", "--log-steps"]
    assert {name.split(".")[0] for name in loaded.split()}.isdisjoint(HEAVY)


def test_a_shells_script_is_shown_and_installed(
    beftkit: Beftkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "bash")
    monkeypatch.setattr("typer._completion_shared._get_shell_name", lambda: "bash", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = beftkit("--show-completion")
    assert ran.code == 0 and "_BEFTKIT_COMPLETE=complete_bash" in ran.out
    ran = beftkit("--install-completion")
    assert ran.code == 0 and "bash completion installed in" in ran.out
    assert "beftkit" in (tmp_path / ".bashrc").read_text()
    [script] = (tmp_path / ".bash_completions").iterdir()
    assert "_BEFTKIT_COMPLETE=complete_bash" in script.read_text()


@pytest.mark.parametrize("words", [[], ["train"], ["fisher"], ["select"], ["report"], ["evaluate"]])
def test_nothing_given_shows_the_help(words: list[str], beftkit: Beftkit) -> None:
    ran = beftkit(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == beftkit(*words, "--help").out


def test_what_a_run_decides_is_no_plain_default(beftkit: Beftkit) -> None:
    for command in ("evaluate", "predict"):
        text = " ".join(beftkit(command, "--help").out.split())
        assert text.count("[default: as in the run, else float32]") == 1
        assert text.count("[default: as in the run, else fp32]") == 1
        assert "[default: float32]" not in text and "a run's" in text
