"""`beftkit.export`: `beftkit.merge` into the base that the adapter names, with what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.adapters import meant
from beftkit.errors import UsageError
from beftkit.files import headed, plain_of
from beftkit.runs.bases import check_revision
from beftkit.runs.classified import classified
from beftkit.runs.merging import merged
from beftkit.runs.whole import EXPORTED_MODEL, make_place
from beftkit.settings.predict import ExportSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.signatures import documented
from beftkit.shown import Shown


@dataclass(frozen=True, repr=False)
class ExportResult(Shown):
    """What `export` wrote.

    Attributes:
        output: the folder.
        adapter: what was merged.
        model: into which base.
        labels: in the order of their numbers; empty for values.
        dtype: of the weights.
        parameters: how many.
        files: names in the folder.
        notes: what a reader should know.
    """

    output: str
    adapter: str
    model: str
    labels: tuple[str, ...]
    dtype: str
    parameters: int
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "output adapter model dtype parameters")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("labels", "files", "notes")}
        return headed({**vars(self), **lists})


@documented(ExportSettings)
def export(
    adapter: str | Path, output: str | Path, *, overwrite: bool = False, **settings: Any
) -> ExportResult:
    """Merge an adapter into its base, and write the model as a plain folder of transformers.

    Whoever loads it needs neither beftkit nor PEFT. It is `beftkit.merge`, told by the adapter what
    its base is and what it answers, which stands in the card.

    Args:
        adapter: its folder, a run's, or ``owner/name[@revision]`` on the hub.
        output: the folder to make, whole or not at all.
        overwrite: replace a former export there.
        settings: fields of `beftkit.settings.predict.ExportSettings`: ``model`` (the base, where it
            is not the one that the adapter names), ``revision``, ``tokenizer``, ``dtype``,
            ``trust_remote_code``.

    Raises:
        BeftError: an adapter that does not fit, or a folder that is not to be written.
        Refusal: what lies there is not known as an export of ours.
    """
    s = resolve(ExportSettings, None, {**settings, "adapter": adapter})
    check_revision(s.model, s.revision)
    folder = Path(output)
    cleared = make_place(folder, EXPORTED_MODEL, {}, overwrite=overwrite)
    if isinstance(whole := meant(str(adapter)), str) and _is_model(Path(whole)):
        raise UsageError(f"{whole}: is a whole model already, with nothing to merge; copy it")
    known = classified(s)
    found = merged(
        known.found.settings, folder, overwrite=overwrite, known=known, kind=EXPORTED_MODEL
    )
    return ExportResult(
        output=found.output,
        adapter=found.adapter,
        model=found.base,
        labels=found.labels,
        dtype=found.dtype,
        parameters=found.parameters,
        files=found.files,
        notes=(*cleared, *found.notes),
    )


def _is_model(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except (OSError, ValueError):
        return False
