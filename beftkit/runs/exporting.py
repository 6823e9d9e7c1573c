"""`beftkit.export`: an adapter merged into its base, as a folder that transformers reads alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.adapters import meant
from beftkit.edges import markdown
from beftkit.errors import BeftError, Refusal, UsageError
from beftkit.files import headed, plain_of, umask
from beftkit.models import quiet
from beftkit.objectives import Objective, objective_told
from beftkit.registry import MAX_LENGTH
from beftkit.runs import manifest
from beftkit.runs.adapted import Named, named, put_on
from beftkit.runs.said import Said, hub_id
from beftkit.settings.predict import ExportSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.signatures import documented
from beftkit.shown import Shown
from beftkit.tuning import attached

CARD = "README.md"


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

    Whoever loads it needs neither beftkit nor PEFT. Sums are formed as PEFT's merge forms them, in
    the dtype that the base is loaded in.

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
    from beftkit.objectives.fits import most_tokens

    s = resolve(ExportSettings, None, {**settings, "adapter": adapter})
    folder = Path(output)
    _check_place(folder, overwrite)
    if isinstance(whole := meant(str(adapter)), str) and _is_model(Path(whole)):
        raise UsageError(f"{whole}: is a whole model already, with nothing to merge; copy it")
    found = named(s)
    objective = objective_told(found.settings, found.standing.kind, found.labels)
    loaded = objective.load(found.settings, 0)
    notes = (*found.notes, *put_on(loaded, found))
    if added := attached(loaded.model):
        raise BeftError(
            f"{found.settings.adapter}: adds biases where {found.settings.model} has none "
            f"({added[0]}), which a plain folder of it would lack; keep the adapter, which PEFT "
            "loads unmerged"
        )
    with _folder_beside(folder) as work:
        try:
            with quiet():
                loaded.model.save_pretrained(work)
                loaded.tokenizer.save_pretrained(work)
            length = most_tokens(loaded, found.had.max_length or MAX_LENGTH)
            (work / CARD).write_text(_card(found, objective, length), encoding="utf-8")
            names = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
            manifest.begin(work, *names)
            _make_ready(work)
            _put(work, folder, overwrite)
        except OSError as error:
            raise BeftError(f"{folder}: cannot be written ({error.strerror or error})") from None
    model = loaded.model
    return ExportResult(
        output=str(folder),
        adapter=str(found.settings.adapter),
        model=found.settings.model,
        labels=objective.labels,
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=model.num_parameters(),
        files=(*names, manifest.NAME),
        notes=notes,
    )


def _is_model(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except (OSError, ValueError):
        return False


def _check_place(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless it is a former export to be replaced.

    Raises:
        BeftError: it says what is there.
        Refusal: others' files are among it.
    """
    try:
        if folder.is_symlink():
            raise Refusal(f"{folder}: is a symbolic link, which is not followed; give its target")
        if not folder.exists():
            if not folder.parent.is_dir():
                raise BeftError(f"{folder}: the folder above does not exist; make it first")
            return
        if not folder.is_dir():
            raise BeftError(f"{folder}: is a file; expected a folder to make")
        held = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise BeftError(f"{folder}: cannot be written ({error.strerror})") from None
    if not held:
        return
    listed = manifest.read(folder)
    if listed is None or "config.json" not in listed.files:
        raise Refusal(
            f"{folder}: holds {held[0]} and is no export of ours, so nothing is replaced; give "
            "another --output"
        )
    if not overwrite:
        raise BeftError(f"{folder}: holds a model that was exported; --overwrite replaces it")
    made = {*manifest.made(folder, "an export"), folder / manifest.NAME}
    for path in sorted(folder.rglob("*")):
        if path not in made and not path.is_dir():
            raise Refusal(
                f"{path}: would go with the former export, which did not make it; move it away"
            )


@contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """A folder to write in, which is gone afterwards unless it was renamed."""
    try:
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=manifest.HALF))
    except OSError as error:
        raise BeftError(f"{folder}: cannot be made ({error.strerror})") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _make_ready(work: Path) -> None:
    """On the disk, and with the rights that the umask has: safetensors and mkdtemp give less."""
    mask = umask()
    for path in (work, *work.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _put(work: Path, folder: Path, overwrite: bool) -> None:
    """Rename it into its place; what was there is kept until that is done."""
    _check_place(folder, overwrite)  # others may have been here meanwhile
    if not folder.exists():
        work.rename(folder)
        return
    aside = work.with_name(f"{work.name}-former")
    folder.rename(aside)
    try:
        work.rename(folder)
    except OSError:
        aside.rename(folder)  # where this fails as well, it stays under the other name
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _card(found: Named[Any], objective: Objective, length: int) -> str:
    """A short card; no path of this machine is in it."""
    s, task = found.settings, found.standing.task
    base = hub_id(s.model)
    lora = found.info is not None and Said.of(found.info.metadata).peft == "lora"
    lines = ["---", *([f"base_model: {base}"] if base else []), "library_name: transformers"]
    lines += [
        f"pipeline_tag: {objective.pipeline_tag}",
        f"tags: [beftkit, {'lora' if lora else 'bias-tuning'}]",
        "---",
        "",
    ]
    at = f" at revision `{s.revision}`" if base and s.revision else ""
    named_base = base or Path(found.standing.base_given or s.model).name
    how = "fine-tuned by LoRA" if lora else "bias terms fine-tuned"
    lines += [f"# {markdown(named_base)}, {how}", ""]
    lines += [
        f"{markdown(named_base)}{at} with an adapter of beftkit merged into it. Nothing but "
        "transformers is needed:",
        "",
        "```python",
        *objective.alone(length),
        "```",
        "",
        f"FOLDER: this folder. In training texts were cut to {length} tokens.",
        "",
        f"- {markdown(objective.described())}",
    ]
    if task:
        lines.append(f"- Task: {task.name}")
    return "\n".join([*lines, ""])
