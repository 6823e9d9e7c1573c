"""Places that cannot be written, options that make no sense, streams that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.builders import config, model, write_file, write_model
from tests.command import Beftkit, misused, refused, tree

ROOT = Path(__file__).parents[1]
# With PYTHONUNBUFFERED nothing is left for Python to write when it shuts down.
PLAIN = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
PLACES = {
    "below a file": ("pre/config.json/out{}", "its folder does not exist"),
    "in no folder": ("nowhere/out{}", "its folder does not exist"),
    "a folder": ("folder{}", "is a folder"),
    "in /proc": ("/proc/out{}", "cannot be written"),
    "a name too long": ("x" * 300 + "{}", "cannot be written"),
}


@pytest.mark.parametrize("option", ["--output", "--plot"])
@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written(
    place: str, option: str, folder: Path, beftkit: Beftkit
) -> None:
    path, message = PLACES[place]
    suffix = ".png" if option == "--plot" else ".json"
    (folder / f"folder{suffix}").mkdir()
    before = tree(folder)
    other = ("--output", "good.json") if option == "--plot" else ("--plot", "good.png")
    refused(beftkit("score", "pre", "post", option, path.format(suffix), *other), message, 420)
    if option == "--output":
        refused(beftkit("inspect", "pre", option, path.format(suffix)), message, 420)
    assert tree(folder) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk(folder: Path, beftkit: Beftkit) -> None:
    refused(beftkit("score", "pre", "post", "-o", "/dev/full"), "/dev/full: cannot be written")


def test_an_old_result_survives_a_failure(folder: Path, beftkit: Beftkit) -> None:
    assert beftkit("score", "pre", "post", "-o", "out.json", "--format", "json").code == 0
    before = tree(folder)
    refused(beftkit("score", "pre", "gone", "-o", "out.json", "--format", "json"))
    assert tree(folder) == before


def test_writing_leaves_nothing_else(folder: Path, beftkit: Beftkit) -> None:
    names = {path.name for path in folder.iterdir()}
    assert beftkit("score", "pre", "post", "-o", "out.csv", "--format", "csv").code == 0
    assert {path.name for path in folder.iterdir()} == names | {"out.csv"}
    assert (folder / "out.csv").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


OPTIONS = {
    "tower unknown": (["--tower", "audio"], "--tower audio: expected one of text"),
    "configuration missing": (["--model-config", "gone.json"], "gone.json: cannot be read"),
    "configuration not in folder": (["--model-config", "empty"], "config.json: cannot be read"),
    "configuration a list": (["--model-config", "list.json"], "configuration is a JSON list"),
    "configuration broken": (["--model-config", "pre/model.safetensors"], "is not valid JSON"),
    "configuration a pipe": (["--model-config", "pipe"], "not a regular file"),
    "configuration endless": (["--model-config", "/dev/zero"], "not a regular file"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_makes_no_sense(case: str, folder: Path, beftkit: Beftkit) -> None:
    options, message = OPTIONS[case]
    (folder / "empty").mkdir()
    (folder / "list.json").write_text("[]")
    os.mkfifo(folder / "pipe")
    before = tree(folder)
    refused(beftkit("score", "pre", "post", "-o", "out.json", *options), message)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--candidates", "q,nonsense"], "--candidates nonsense: expected some of q, k"),
        (["--candidates", ""], "--candidates '': expected some of q, k"),
        (["--candidates", "value"], "did you mean v?"),
        (["--plot", "out.gif"], "expected a file name that ends in .png"),
        (["--fail-if-target-not", "vv"], "--fail-if-target-not vv: expected one of q, k, v, m1"),
        (["--method", "Angl"], "--method Angl: expected one of projection, magnitude"),
    ],
)
def test_a_word_that_means_nothing(
    options: list[str], message: str, folder: Path, beftkit: Beftkit
) -> None:
    before = tree(folder)
    misused(beftkit("score", "pre", "post", "-o", "out.json", *options), message)
    assert tree(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["score"], ["score", "pre"], ["score", "pre", "post", "--tower"], ["nonsense"],
        ["score", "pre", "post", "--nonsense"], ["score", "pre", "post", "--format", "xml"],
        ["score", "pre", "post", "--method", "nonsense"], ["score", "pre", "post", "-o"],
        ["inspect"],
    ],
)  # fmt: skip
def test_wrong_usage(arguments: list[str], folder: Path, beftkit: Beftkit) -> None:
    misused(beftkit(*arguments))


def test_a_fused_target_has_no_modules(folder: Path, beftkit: Beftkit) -> None:
    for seed, side in enumerate(("before", "after")):
        write_model(folder / side, "gpt2", seed)
    refused(beftkit("score", "before", "after", "--target-modules"), "fused")


def test_equal_checkpoints_are_no_error(folder: Path, beftkit: Beftkit) -> None:
    ran = beftkit("score", "pre", "pre", "--format", "json")
    assert ran.code == 0
    assert json.loads(ran.out)["posts"][0]["target"] is None
    assert "nothing changed" in ran.err


def test_values_that_are_not_finite_can_be_allowed(folder: Path, beftkit: Beftkit) -> None:
    tensors = model("bert")
    name = "bert.encoder.layer.1.attention.self.value.bias"
    tensors[name][2] = np.inf
    write_file(folder / "post" / "model.safetensors", tensors)
    refused(beftkit("score", "pre", "post"), f"{name} holds NaN or infinity")
    ran = beftkit("score", "pre", "post", "--allow-nonfinite", "--format", "json")
    assert ran.code == 0
    post = json.loads(ran.out)["posts"][0]
    assert post["roles"]["v"]["projection"] is None
    assert post["roles"]["q"]["projection"] > 0
    assert any(name in note for note in post["notes"])


def test_infinity_in_a_configuration_is_no_error(folder: Path, beftkit: Beftkit) -> None:
    """Some published ones hold it, and their models load."""
    (folder / "pre" / "config.json").write_text(json.dumps(config("bert", limit=float("inf"))))
    assert beftkit("score", "pre", "post").code == 0


def test_control_characters_do_not_reach_the_terminal(folder: Path, beftkit: Beftkit) -> None:
    refused(beftkit("score", "pre", "po\x1b[31mst\nbeftkit: fine"), "po?[31mst beftkit: fine")


def command(
    *arguments: str | bytes, cwd: Path, stdout: int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """The real thing, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "beftkit", *arguments], cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=stdout, stderr=subprocess.PIPE, timeout=60,
        env={**PLAIN, **variables},
    )  # fmt: skip


def test_a_real_process_refuses_alike(folder: Path) -> None:
    (folder / "post" / "model.safetensors").write_bytes(b"")
    done = command("score", "pre", "post", cwd=folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == (
        b"beftkit: error: post/model.safetensors: the file is empty; expected a safetensors file\n"
    )


def test_a_reader_that_goes_away(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # what `| head -1` does once it has its line
    try:
        done = command("score", "pre", "post", "--format", "csv", cwd=folder, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_stdout_that_is_full(folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = command("score", "pre", "post", cwd=folder, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"beftkit: error: stdout: cannot be written (No space left on device)\n"


def test_a_stdout_that_is_closed(folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m beftkit score pre post >&-"],
        cwd=folder, env=PLAIN, stderr=subprocess.PIPE, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        b"beftkit: error: stdout is closed; give --output FILE\n",
    )


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_a_stdout_of_ascii_and_a_path_of_bytes(form: str, folder: Path) -> None:
    strange = b"p\xff\xc3\xa9"
    os.rename(b"post", strange)  # noqa: PTH104 - a path that is no text
    done = command("score", b"pre", strange, "--format", form, cwd=folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 0), done.stderr
    assert done.stdout.isascii()
    done = command("score", b"pre", strange, "--format", form, "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    text = (folder / "out").read_text("utf-8")
    if form == "json":
        assert os.fsencode(json.loads(text)["posts"][0]["post"]["path"]) == strange


def test_an_input_is_never_overwritten(folder: Path, beftkit: Beftkit) -> None:
    weights = folder / "pre" / "model.safetensors"
    before = weights.read_bytes()
    ran = beftkit("score", weights, "post", "-o", weights, "--format", "json")
    refused(ran, "is an input as well")
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    "given",
    [
        ("score", "pre", "post", "-o", "pre/config.json"),
        ("score", "pre/model.safetensors", "post", "-o", "pre/config.json"),
        ("inspect", "post", "-o", "post/config.json", "--format", "json"),
        ("compare", "post", "post", "--base", "pre", "-o", "pre/config.json"),
        ("score", "pre", "post", "--model-config", "own.txt", "-o", "own.txt"),
    ],
)
def test_no_file_of_what_is_read_is_overwritten(
    given: tuple[str, ...], folder: Path, beftkit: Beftkit
) -> None:
    (folder / "own.txt").write_bytes((folder / "pre" / "config.json").read_bytes())
    before = tree(folder)
    refused(beftkit(*given), "choose another")
    assert tree(folder) == before
    ran = beftkit("score", "pre", "post", "-o", "post/scores.json", "--format", "json")
    again = beftkit("score", "pre", "post", "-o", "post/scores.json", "--format", "json")
    assert (ran.code, again.code) == (0, 0)
