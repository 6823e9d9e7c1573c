"""The wheel holds both packages whole, and nothing else at its top level."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"beftkit": ROOT / "beftkit", "beftkit_kernels": ROOT / "kernels" / "beftkit_kernels"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of the tree: neither old builds nor this one touch the checkout."""
    tmp = tmp_path_factory.mktemp("packaging")
    unwanted = shutil.ignore_patterns(
        ".*", "build", "dist", "*.egg-info", "__pycache__", "beftkit-*"
    )
    shutil.copytree(ROOT, tmp / "source", ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(tmp), str(tmp / "source")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.mark.slow
def test_top_level_is_the_two_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"beftkit", "beftkit_kernels", info}


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_whole(package: str, wheel: zipfile.ZipFile) -> None:
    folder = PACKAGES[package]
    wanted = {
        f"{package}/{file.relative_to(folder).as_posix()}"
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert f"{package}/py.typed" in wanted
    assert {name for name in wheel.namelist() if name.startswith(f"{package}/")} == wanted


@pytest.mark.slow
def test_command_is_declared(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert dict(points["console_scripts"]) == {"beftkit": "beftkit.app:main"}


def test_kernels_is_a_folder_not_a_package() -> None:
    """With an __init__.py, transformers would import it for Hugging Face's package `kernels`."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
