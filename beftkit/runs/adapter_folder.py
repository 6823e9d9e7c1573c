"""The folder of an adapter that was made of other files: there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from beftkit.adapters import BIASES_NAME, CONFIG_NAME, is_adapter
from beftkit.errors import BeftError, Refusal
from beftkit.runs import manifest
from beftkit.runs.whole import make_ready, take_place


@contextmanager
def adapter_folder(output: str | Path, *, overwrite: bool, inputs: Iterable[str]) -> Iterator[Path]:
    """A folder beside ``output`` to write in, which takes its place when this ends well.

    Args:
        output: absent, empty, or with ``overwrite`` an adapter that was made so before.
        overwrite: replace that.
        inputs: what is read, which must not be written over.

    Raises:
        BeftError: it cannot be written, or holds an adapter of ours.
        Refusal: it holds something else, or is, holds or lies in an input.
    """
    folder = Path(output)
    check_place(folder, overwrite=overwrite, inputs=inputs)
    try:
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=manifest.HALF))
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    try:
        yield work
        names = sorted(one.relative_to(work).as_posix() for one in work.rglob("*") if one.is_file())
        manifest.begin(work, *names)
        make_ready(work)
        check_place(folder, overwrite=overwrite, inputs=())  # others may have been here meanwhile
        take_place(work, folder)
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_place(folder: Path, *, overwrite: bool, inputs: Iterable[str]) -> None:
    """Refuse a folder that must not be written; see `adapter_folder`."""
    try:
        if folder.is_symlink():
            raise Refusal(f"{folder}: is a symbolic link, which is not followed; give its target")
        if not folder.parent.is_dir():
            raise BeftError(f"{folder}: the folder above does not exist; make it first")
        mine = folder.resolve()
        for one in inputs:
            theirs = Path(one).resolve() if Path(one).exists() else None
            if theirs and (mine == theirs or theirs in mine.parents or mine in theirs.parents):
                raise Refusal(
                    f"{folder}: is, holds or lies in {one}, which is read; give another --output"
                )
        if folder.exists() and not folder.is_dir():
            raise BeftError(f"{folder}: is a file; expected a folder to make")
        held = sorted(one.name for one in folder.iterdir()) if folder.exists() else []
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "no usable path"
        raise error if isinstance(error, BeftError) else BeftError(f"{folder}: {said}") from None
    if not held:
        return
    listed = manifest.read(folder)
    if listed is None or not {CONFIG_NAME, BIASES_NAME} & {*listed.files}:
        what = "holds an adapter of elsewhere" if is_adapter(folder) else f"holds {held[0]}"
        raise Refusal(f"{folder}: {what}, so nothing is replaced; give another --output")
    if not overwrite:
        raise BeftError(f"{folder}: holds an adapter that was made so; --overwrite replaces it")
    made = {*manifest.made(folder, "an adapter"), folder / manifest.NAME}
    for path in sorted(folder.rglob("*")):
        if path not in made and not path.is_dir():
            raise Refusal(
                f"{path}: would go with the former adapter, which did not make it; move it away"
            )
