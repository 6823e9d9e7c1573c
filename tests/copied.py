"""The commands that a result recommends, as a shell reads them."""

from __future__ import annotations

import subprocess

_FIRST, _REST = "Next: ", "      "


def next_commands(text: str) -> list[list[str]]:
    """The words of each command behind "Next:", but for ``beftkit``; a real shell splits them."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(_FIRST))
    found = [lines[start].removeprefix(_FIRST)]
    for line in lines[start + 1 :]:
        if not line.startswith(_REST):
            break
        found.append(line.removeprefix(_REST))
    return [words_of(line) for line in found]


def words_of(line: str) -> list[str]:
    """What a shell hands to ``beftkit`` in this line, which is one command."""
    script = 'beftkit() { printf "%s\\0" "$@"; }\n' + line
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout and not said.stderr, said
    return said.stdout.split("\0")[:-1]
