"""A module imports only from floors below its own, wherever in the module the import stands."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"beftkit": ROOT / "beftkit", "beftkit_kernels": ROOT / "kernels" / "beftkit_kernels"}

# Room -> floor. A room is a module, or a package whose modules are free among themselves.
FLOORS: dict[str, int] = {
    "beftkit_kernels": 0,
    "beftkit.errors": 0,
    "beftkit.edges": 1,
    "beftkit.files": 1,
    "beftkit.registry": 1,
    "beftkit.shown": 1,
    "beftkit.spelling": 1,
    "beftkit.watching": 1,
    "beftkit.adapters": 2,
    "beftkit.biases": 2,
    "beftkit.scores": 2,
    "beftkit.settings": 2,
    "beftkit.progress": 2,
    "beftkit.checkpoints": 3,
    "beftkit.accelerator": 4,
    "beftkit.diff": 4,
    "beftkit.graphs": 4,
    "beftkit.inspection": 4,
    "beftkit.models": 4,
    "beftkit.tasks": 4,
    "beftkit.objectives": 5,
    "beftkit.tuning": 5,
    "beftkit.gradients": 6,
    "beftkit.training": 6,
    "beftkit.weights": 6,
    "beftkit.runs": 7,
    "beftkit.selection": 8,
    "beftkit.suite": 9,
    "beftkit.surveys": 9,
    "beftkit.present": 10,
    "beftkit.demo": 11,
    "beftkit.app": 12,
    "beftkit.__main__": 13,  # a launcher
}
# beftkit/__init__.py hands on names from every floor below the app's, so only the app may use it.
FRONT_DOOR = 11


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of both packages, as (dotted name, file)."""
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(p for p in parts if p != "__init__"))), file


def room(name: str) -> str | None:
    """The room a dotted name lies in; None for the front door and for a module without a floor."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((p for p in prefixes if p in FLOORS), None)


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Every name the source imports, made absolute; relative imports start from `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = [*above, node.module or ""] if node.level else [node.module or ""]
            yield from (".".join(filter(None, [*base, alias.name])) for alias in node.names)


def breaches(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with a module's place and imports; empty when nothing is."""
    home = room(module)
    if home is None:
        return [f"{module} has no floor: give it one in FLOORS"]
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for name in imported(ast.parse(source), package):
        if name.split(".")[0] not in PACKAGES or name == "beftkit.__version__":
            continue
        there = room(name)
        floor = FLOORS[there] if there else FRONT_DOOR
        if there != home and floor >= FLOORS[home]:
            found.append(f"{module} (floor {FLOORS[home]}) imports {name} (floor {floor})")
    return found


ROOMS = [(name, file) for name, file in modules() if name != "beftkit"]


@pytest.mark.parametrize(("module", "file"), ROOMS, ids=[name for name, _ in ROOMS])
def test_module_imports_only_from_floors_below(module: str, file: Path) -> None:
    is_package = file.name == "__init__.py"
    assert breaches(module, file.read_text("utf-8"), is_package=is_package) == []


def test_front_door_imports_nothing_of_weight() -> None:
    """At import time: the standard library, and what results show themselves by, which has no more.

    Names are handed on when they are asked for.
    """
    tree = ast.parse((ROOT / "beftkit" / "__init__.py").read_text("utf-8"))
    lazy = [n for n in tree.body if isinstance(n, ast.FunctionDef) or is_type_checking(n)]
    tree.body = [n for n in tree.body if n not in lazy]
    shown = ast.parse((ROOT / "beftkit" / "shown.py").read_text("utf-8"))
    eager = {*imported(tree, "beftkit"), *imported(shown, "beftkit")} - {"beftkit.shown"}
    assert {name.split(".")[0] for name in eager} - set(sys.stdlib_module_names) == set()


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def at_once(module: str, source: str, known: set[str], *, is_package: bool) -> set[str]:
    """Modules that one imports when it is imported itself, packages on the way to them included."""

    def cut(nodes: list[ast.stmt]) -> list[ast.stmt]:
        late = ast.FunctionDef | ast.AsyncFunctionDef
        return [n for n in nodes if not isinstance(n, late) and not is_type_checking(n)]

    tree = ast.parse(source)
    tree.body = cut(tree.body)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.body = cut(node.body)
    found = set()
    for name in imported(tree, module if is_package else module.rpartition(".")[0]):
        parts = name.split(".")
        ways = {".".join(parts[:n]) for n in range(1, len(parts) + 1)} & known
        found |= {way for way in ways if way != module and not f"{module}.".startswith(f"{way}.")}
    return found


def circle(sources: dict[str, tuple[str, bool]]) -> list[str]:
    """Modules that import each other in a circle: one of them cannot be the first. Or none."""
    ahead = {
        name: at_once(name, source, {*sources}, is_package=is_package)
        for name, (source, is_package) in sources.items()
    }
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for following in sorted(ahead[name]):
            if found := walk(following, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(ahead) if (found := walk(name, []))), [])


def test_no_module_waits_for_itself() -> None:
    read = {name: (file.read_text("utf-8"), file.name == "__init__.py") for name, file in modules()}
    assert circle(read) == []


def test_a_circle_is_seen() -> None:
    one, late = "from b.two import x", "def f():\n    from b.two import x"
    rest = {"b": ("from b.three import y", True), "b.two": ("", False)}
    assert circle({"a": (one, False), "b.three": ("from a import f", False), **rest}) == [
        "a", "b", "b.three",
    ]  # fmt: skip
    assert circle({"a": (late, False), "b.three": ("from a import f", False), **rest}) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("beftkit.scores", "from beftkit.present import table"),
        ("beftkit.scores", "from beftkit import present"),
        ("beftkit.scores", "import beftkit.present as r"),
        ("beftkit.scores", "from . import present"),
        ("beftkit.scores", "from .present import table"),
        ("beftkit.scores", "def late():\n    from beftkit.app import main"),
        ("beftkit.scores", "from beftkit.adapters import read"),  # the same floor
        ("beftkit.scores", "from beftkit import score"),  # the front door
        ("beftkit.biases.families", "from ..checkpoints import header"),
        ("beftkit_kernels.track", "from beftkit.errors import BeftError"),
        ("beftkit.unheard_of", ""),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    assert len(breaches(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("beftkit.scores", "import numpy\nfrom beftkit.errors import BeftError"),
        ("beftkit.scores", "from beftkit import __version__"),
        ("beftkit.biases.families", "from .roles import Role\nfrom . import roles"),
        ("beftkit.diff", "from beftkit import checkpoints, scores"),
        ("beftkit.app", "from beftkit import score"),
    ],
)
def test_traffic_downwards_is_free(module: str, source: str) -> None:
    assert breaches(module, source) == []
