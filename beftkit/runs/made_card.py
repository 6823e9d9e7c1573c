"""The card of an adapter that was made of other files: of what, with which digests, how to use it.

Names out of files and folders are text here: escaped, and without a path of this machine.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beftkit.adapters import Tuned
from beftkit.adapters.heads import peft_code, pipeline_tag
from beftkit.adapters.reading import HEAD_WEIGHT
from beftkit.checkpoints import Checkpoint, model_reference
from beftkit.checkpoints.local import LocalFile
from beftkit.edges import markdown, printable
from beftkit.runs.bases import bare, is_far
from beftkit.runs.merged_card import card_head, hub_id, without_paths

CARD = "README.md"
#: where PEFT does not read it, or no class of transformers is known
_OURS = [
    "from beftkit.weights import apply_adapter",
    "",
    'apply_adapter(model, "ADAPTER")  # onto the base, as transformers loaded it',
]


@dataclass(frozen=True)
class Source:
    """One of the things that an adapter was made of.

    Attributes:
        what: it was: ``before``, ``after``, ``weight 0.5``.
        name: of the hub, or of its folder alone.
        digest: what tells it from others, in words.
    """

    what: str
    name: str
    digest: str


@dataclass(frozen=True)
class MadeCard:
    """What the card says.

    Attributes:
        title: its first line.
        opening: what it is, in a sentence.
        base: the base as it was given; None: the adapter does not name it.
        revision: of the base, where it is on a hub.
        sources: what it was made of.
        format: ``beft``, ``lora`` or ``biases``.
        task_type: PEFT's.
        outputs: rows of its head; None: it has none, or one without rows.
        labels: of its head, as the header has them.
        command: words that make it again.
        given: paths that no note may show.
    """

    title: str
    opening: str
    base: str | None
    revision: str | None
    sources: Sequence[Source]
    format: str
    task_type: str | None
    outputs: int | None
    labels: Sequence[str]
    command: Sequence[str]
    given: Iterable[str]

    def write(self, folder: Path, notes: Iterable[str]) -> None:
        """Write it into the folder of the adapter.

        Args:
            folder: the adapter's.
            notes: what a reader of results is told.

        Raises:
            OSError: it cannot be written.
        """
        (folder / CARD).write_text(self.text(notes), encoding="utf-8")

    def text(self, notes: Iterable[str]) -> str:
        """All of it, with these notes."""
        by_peft = self.format in ("beft", "lora")
        id = None if self.base is None else hub_id(self.base)
        lines = card_head(
            id,
            pipeline_tag(self.task_type),
            "bias-tuning",
            library="peft" if by_peft else None,
            adapter=True,
        )
        lines += [f"# {markdown(self.title)}", "", markdown(self.opening), ""]
        reader = "PEFT" if by_peft else "beftkit alone"
        lines.append(f"- Format: {self.format}, read by {reader}")
        if self.labels:
            named = ", ".join(f"{n} {label}" for n, label in enumerate(self.labels))
            lines.append(f"- {markdown(f'Labels: {named}')}")
        lines += ["", "## Made of", "", "| | what | digest |", "|---|---|---|"]
        for one in self.sources:
            cells = (markdown(text).replace("|", r"\|") for text in (one.what, one.name))
            lines.append("| " + " | ".join((*cells, f"`{one.digest}`")) + " |")
        words = " ".join(shlex.quote(printable(word)) for word in self.command)
        lines += ["", "```sh", words.replace("```", "'''"), "```", "", "## Use", "", "```sh"]
        at = model_reference(id, self.revision) if id else "BASE"
        lines += [f"beftkit score {shlex.quote(at)} ADAPTER", "```", "", "```python"]
        where = json.dumps(id or "BASE")
        where += f", revision={json.dumps(self.revision)}" if id and self.revision else ""
        code = peft_code(self.task_type, where, '"ADAPTER"', self.outputs) if by_peft else None
        lines += code or _OURS
        base = "" if id else "BASE: the base model's folder. "
        lines += ["```", "", f"{base}ADAPTER: this folder, or its owner/name on the hub.", ""]
        said = [f"- {markdown(without_paths(note, self.given))}" for note in dict.fromkeys(notes)]
        lines += ["## Notes", "", *said, ""] if said else []
        return "\n".join(lines).rstrip() + "\n"


def extract_card(
    sides: Sequence[tuple[str, str]],
    tuned: Sequence[Tuned],
    bias: str,
    *,
    base: str,
    revision: str | None,
    format: str,
    task_type: str | None,
    metadata: Mapping[str, str],
    scalars: int,
) -> MadeCard:
    """The card of what `extract` made.

    Args:
        sides: base and fine-tuned model as they were given, with SHA-256 of their biases.
        tuned: what is in the adapter.
        bias: which biases were asked for.
        base: as the adapter names it.
        revision: of the base, where it is on a hub.
        format: the adapter's.
        task_type: PEFT's.
        metadata: the header.
        scalars: how many of the biases that were asked for.
    """
    given = [one for one, _ in sides]
    pre, post = map(bare, given)
    places = [a if is_far(a) else b for a, b in zip(given, ("BASE", "POST"), strict=True)]
    return MadeCard(
        title=f"{post}, its biases ({bias})",
        opening=f"What a fine-tuning of {pre} did to its biases (--bias {bias}), taken from {post} "
        f"by beftkit extract: {scalars:,} scalars. Of what else changed the notes tell.",
        base=base,
        revision=revision,
        sources=[
            Source(what, bare(one), f"SHA-256 of the biases {digest}")
            for what, (one, digest) in zip(("before", "after"), sides, strict=True)
        ],
        format=format,
        task_type=task_type,
        outputs=outputs_of(tuned),
        labels=labels_said(metadata),
        command=["beftkit", "extract", *places, f"--bias={bias}", f"--adapter-format={format}",
                 "-o", "out"],
        given=[one for one in given if not is_far(one)],
    )  # fmt: skip


def outputs_of(tuned: Iterable[Tuned]) -> int | None:
    """Rows of the head among these; None: there is none."""
    matrices = [one for one in tuned if one.kind == "head" and one.post.ndim == 2]
    # Some heads are of two layers, and a pooler that the base has not comes along with any.
    heads = [one for one in matrices if HEAD_WEIGHT.fullmatch(one.parameter)]
    heads = heads or [one for one in matrices if "pooler" not in one.parameter.split(".")]
    return heads[-1].post.shape[0] if heads else None


def labels_said(metadata: Mapping[str, str]) -> list[str]:
    """The labels in an adapter's header; none where it does not say, or not so."""
    try:
        found = json.loads(metadata.get("beftkit.labels") or "null")
    except (ValueError, RecursionError):
        return []
    return [*map(str, found)] if isinstance(found, list) else []


def file_digest(checkpoint: Checkpoint) -> str:
    """What tells an adapter's file from others: its SHA-256, or its commit on a hub."""
    (file, *_) = checkpoint.files
    if isinstance(file, LocalFile):
        with file.path.open("rb") as opened:
            return f"SHA-256 {hashlib.file_digest(opened, 'sha256').hexdigest()}"
    commit = checkpoint.origin().get("commit")
    return f"commit {commit}" if commit else "not known"
