"""A report on disk: the page, and beside it the numbers and the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from beftkit.runs import manifest

PAGES = {".md": markdown_page, ".html": html_page}
ROLES, GROUPS, DOCUMENT = "roles.csv", "groups.csv", "data.json"
_NUMBERS = (
    (ROLES, "a row for each selection, place of its grid and role: scores, ranks"),
    (GROUPS, "a row for each selection and place of its grid: targets, margins, verdicts, tau"),
    (DOCUMENT, "everything, at full precision"),
)


def write_report(
    folders: Sequence[str | Path], output: str | Path, *, title: str | None = None
) -> list[Path]:
    """Write what selections found as a page, with the numbers and the figures beside it.

    Args:
        folders: what `beftkit.select` made, finished.
        output: ``.md`` or ``.html``; the files beside it go to ``OUTPUT_files``, and their names
            begin with its stem, so that reports in one folder keep apart. A former report there is
            replaced.
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
    beside = page.with_name(f"{page.name}_files")
    check_writable(page)
    _check_folder(beside, _own(page, DOCUMENT), folders)
    read = read_folders(folders)
    title = " ".join((title or _title(read)).split())
    sections = [_named(section, page) for section in report_sections(read)]
    pictures = [picture for section in sections for picture in _pictures(section)]
    made = {name: data for picture in pictures for name, data in files(picture).items()}
    made[_own(page, ROLES)] = csv_text(role_rows(read)).encode()
    made[_own(page, GROUPS)] = csv_text(group_rows(read)).encode()
    made[_own(page, DOCUMENT)] = json_text(report_values(read, title, made)).encode()
    numbers = [([_own(page, name)], what) for name, what in _NUMBERS]
    drawn = [([f"{one.name}.{form}" for form in ("svg", "png")], one.alt) for one in pictures]
    sections.append(Section("Files", [Files([*numbers, *drawn])]))
    text = PAGES[page.suffix](title, sections, beside.name, _footer())
    _write(page, text.encode(errors="backslashreplace"), beside, made)
    return [page, beside]


def _title(read: Sequence[Folder]) -> str:
    what = read[0].label if len(read) == 1 else f"{len(read)} selections"
    return f"Which bias to fine-tune: {what}"


def _footer() -> str:
    from beftkit import __version__

    return f"Made by beftkit report, version {__version__}."


def _own(page: Path, name: str) -> str:
    """A file's name with the report's before it."""
    return f"{page.stem}-{name}"


def _named(section: Section, page: Path) -> Section:
    """A section whose pictures' files have names of this report."""
    blocks = [
        replace(block, name=_own(page, block.name)) if isinstance(block, Picture) else block
        for block in section.blocks
    ]
    return Section(section.title, blocks, [_named(below, page) for below in section.below])


def _pictures(section: Section) -> Iterator[Picture]:
    yield from (block for block in section.blocks if isinstance(block, Picture))
    for below in section.below:
        yield from _pictures(below)


def _check_folder(beside: Path, document: str, folders: Sequence[str | Path]) -> None:
    """Refuse a folder for the files that is something else."""
    if any(same_file(beside, str(folder)) for folder in folders):
        raise BeftError(f"{beside}: is an input as well; choose another name for the report")
    if beside.exists() and not beside.is_dir():
        raise BeftError(f"{beside}: is a file; expected a folder for the report's files")
    if beside.is_dir():
        check_writable(beside / document)


def _write(page: Path, text: bytes, beside: Path, made: dict[str, bytes]) -> None:
    """The files first, the page last; what a former report made here and this one has not goes."""
    try:
        beside.mkdir(exist_ok=True)
        former = manifest.made(beside) if manifest.read(beside) else []
        for name in made:
            manifest.check_no_link(beside, name)
        manifest.add(beside, *made)
        for name, data in made.items():
            write_whole(beside / name, data)
        for path in former:
            if path.name not in made:
                path.unlink(missing_ok=True)
        manifest.begin(beside, *made)
    except OSError as error:
        raise BeftError(f"{beside}: cannot be written ({error.strerror})") from None
    write_whole(page, text)
