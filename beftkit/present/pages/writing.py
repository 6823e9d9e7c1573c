"""A report on disk: the page, and beside it the numbers and the figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from beftkit.errors import BeftError, UsageError
from beftkit.files import check_writable, same_file, write_whole
from beftkit.present.data import csv_text, json_text
from beftkit.present.document import Files, Picture, Section
from beftkit.present.html import html_page
from beftkit.present.markdown import markdown_page
from beftkit.present.pages.drawing import files
from beftkit.present.pages.rows import group_rows, report_values, role_rows
from beftkit.present.pages.sections import report_sections
from beftkit.present.pages.selections import Folder, read_folders

PAGES = {".md": markdown_page, ".html": html_page}
DOCUMENT = "report.json"
_NUMBERS = (
    (["roles.csv"], "a row for each selection, place of its grid and role: scores, ranks"),
    (["groups.csv"], "a row for each selection and place of its grid: targets, margins, tau"),
    ([DOCUMENT], "everything, at full precision"),
)


def write_report(
    folders: Sequence[str | Path], output: str | Path, *, title: str | None = None
) -> list[Path]:
    """Write what selections found as a page, with the numbers and the figures beside it.

    Args:
        folders: what `beftkit.select` made, finished.
        output: ``.md`` or ``.html``; the files beside it go to ``STEM_files``. A former report
            there is replaced.
        title: of the page.

    Returns:
        The page, and the folder beside it.

    Raises:
        UsageError: no folder, one given twice, or another suffix.
        BeftError: a folder is not finished or damaged, or the output cannot be written.

    Example:
        >>> from beftkit.present.pages import write_report
        >>> write_report(["runs/sst2", "runs/cb"], "report.html")  # doctest: +SKIP
    """
    page = Path(output)
    if page.suffix not in PAGES:
        raise UsageError(f"{page}: expected a file name that ends in .md or .html")
    beside = page.with_name(f"{page.stem}_files")
    check_writable(page)
    _check_folder(beside, folders)
    read = read_folders(folders)
    title = " ".join((title or _title(read)).split())
    sections = report_sections(read)
    pictures = [picture for section in sections for picture in _pictures(section)]
    made = {name: data for picture in pictures for name, data in files(picture).items()}
    made["roles.csv"] = csv_text(role_rows(read)).encode()
    made["groups.csv"] = csv_text(group_rows(read)).encode()
    made[DOCUMENT] = json_text(report_values(read, title, made)).encode()
    drawn = [([f"{one.name}.{form}" for form in ("svg", "png")], one.alt) for one in pictures]
    sections.append(Section("Files", [Files([*_NUMBERS, *drawn])]))
    text = PAGES[page.suffix](title, sections, beside.name, _footer())
    _write(page, text.encode(errors="backslashreplace"), beside, made)
    return [page, beside]


def _title(read: Sequence[Folder]) -> str:
    what = read[0].label if len(read) == 1 else f"{len(read)} selections"
    return f"Which bias to fine-tune: {what}"


def _footer() -> str:
    from beftkit import __version__

    return f"Made by beftkit report, version {__version__}."


def _pictures(section: Section) -> Iterator[Picture]:
    yield from (block for block in section.blocks if isinstance(block, Picture))
    for below in section.below:
        yield from _pictures(below)


def _check_folder(beside: Path, folders: Sequence[str | Path]) -> None:
    """Refuse a folder for the files that is something else."""
    if any(same_file(beside, str(folder)) for folder in folders):
        raise BeftError(f"{beside}: is an input as well; choose another name for the report")
    if beside.exists() and not beside.is_dir():
        raise BeftError(f"{beside}: is a file; expected a folder for the report's files")
    if beside.is_dir():
        check_writable(beside / DOCUMENT)


def _write(page: Path, text: bytes, beside: Path, made: dict[str, bytes]) -> None:
    """The files first, the page last; figures that a former report had alone are removed."""
    former = _former(beside / DOCUMENT)
    try:
        beside.mkdir(exist_ok=True)
        for name, data in made.items():
            write_whole(beside / name, data)
        for name in former - set(made):
            (beside / name).unlink(missing_ok=True)
    except OSError as error:
        raise BeftError(f"{beside}: cannot be written ({error.strerror})") from None
    write_whole(page, text)


def _former(path: Path) -> set[str]:
    """Names of the figures of a former report, as it says."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {one for one in names if re.fullmatch(r"[\w-]+\.(svg|png)", one)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
