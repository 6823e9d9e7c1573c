"""`beftkit.merge`: an adapter merged into its base on files, as a stock folder of transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.adapters import is_adapter, meant
from beftkit.biases.names import WRAPPERS
from beftkit.checkpoints import Checkpoint, open_checkpoint
from beftkit.checkpoints.header import shorten
from beftkit.checkpoints.hub import HubFolder, parse_reference
from beftkit.checkpoints.local import LocalFile, LocalFolder
from beftkit.checkpoints.pickles import PICKLES
from beftkit.errors import BeftError, UsageError
from beftkit.runs import manifest
from beftkit.runs.based import BaseSaid, compared
from beftkit.runs.bases import check_revision
from beftkit.runs.companions import Companions, companions_of, take_along
from beftkit.runs.merge_result import MergeResult
from beftkit.runs.merged_card import plain_card
from beftkit.runs.whole import MERGED_MODEL, Kind, check_room, made_whole, make_place
from beftkit.settings.merge import MergeSettings
from beftkit.settings.predict import ExportSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.signatures import documented
from beftkit.weights.files import Shard, Written, bytes_needed, shards_of, write_shards
from beftkit.weights.merging import brings_head, main_dtype, plan_merge
from beftkit.weights.opening import open_adapter
from beftkit.weights.plan import HeadFrame, Plan
from beftkit.weights.values import WORDS

if TYPE_CHECKING:
    from beftkit.runs.classified import Classified

CARD = "README.md"
_HEADS = {word: name for name, word in WORDS.items()}


@documented(MergeSettings, left_out=("model",))
def merge(
    base: str | Path,
    adapter: str | Path,
    output: str | Path,
    *,
    link: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> MergeResult:
    """Merge an adapter into its base on files, and write a stock folder of transformers.

    No more is held in memory than headers and biases. Dtype, metadata and sharding are the base's;
    sums are formed in float32 and rounded once, as PEFT's merge does. Biases that the base has not
    get a place by its configuration's switch, or are folded into others where that is exact.

    Args:
        base: the model's folder, or ``owner/name[@revision]`` on the hub.
        adapter: its folder, a run's, or ``owner/name[@revision]`` on the hub.
        output: the folder to make, whole or not at all.
        link: make files of weights that stay the same second names of the base's (hard links).
        overwrite: replace a former merge there.
        settings: fields of `beftkit.settings.merge.MergeSettings`.

    Raises:
        BeftError: an adapter that does not fit, no plain model that computes the same, or a folder
            that is not to be written.
        Refusal: what lies there is not known as ours, or is what is read.
    """
    given = {**settings, "model": base, "adapter": adapter}
    s = resolve(MergeSettings, None, given)
    if not s.model:
        raise UsageError("no base was given; expected a model's folder, or owner/name")
    check_revision(s.model, s.revision)
    return merged(s, Path(output), link=link, overwrite=overwrite)


def merged(
    settings: ExportSettings,
    folder: Path,
    *,
    link: bool = False,
    overwrite: bool = False,
    known: Classified | None = None,
    kind: Kind = MERGED_MODEL,
) -> MergeResult:
    """`merge` by settings that name both, or with what is known of them already.

    Args:
        settings: both, and what comes along.
        folder: to make.
        link: as `merge` has it.
        overwrite: likewise.
        known: what was found out of adapter and base; None: as far as it is needed here.
        kind: of folder, for messages.
    """
    s = settings.model_copy(
        update={"model": meant(settings.model), "adapter": meant(str(settings.adapter))}
    )
    if known is not None:
        s = known.found.settings
    there, info = open_adapter(str(s.adapter))
    base = _open_base(s.model, s.revision)
    notes = make_place(folder, kind, _inputs(base, there), overwrite=overwrite)
    if known is None and brings_head(base, there, info):
        known = _classified(s)
        s = known.found.settings
    frame = None
    if known is None:
        said = BaseSaid.of(info.metadata)
        notes += compared(said, s.adapter, s.model, s.revision, own=False)
    else:
        notes += known.found.notes
        frame = _frame(known, base)
    dtype = None if s.dtype == "auto" else _HEADS[s.dtype]
    plan = plan_merge(base, there, info, head=frame, dtype=dtype)
    shards = shards_of(base, plan)
    beside = _beside(s, base, there, known)
    check_room(folder, bytes_needed(base, shards, link=link))
    with made_whole(folder, kind, overwrite=overwrite) as (work, linked):
        written = write_shards(base, plan, shards, work, link=link)
        linked.update(written.linked)
        total = written.bytes + take_along(beside, work)
        total += _write_rest(work, plan, known, s)
    listed = manifest.read(folder)
    notes += [*plan.notes, *beside.notes, *_said_of_links(written, link)]
    return replace(
        _result(s, folder, base, plan, shards, known),
        copied=written.copied,
        linked=written.linked,
        bytes_written=total,
        files=(*(listed.files if listed else ()), manifest.NAME),
        notes=tuple(dict.fromkeys(notes)),
    )


def _open_base(reference: str, revision: str | None) -> Checkpoint:
    """The base's files; what is no plain model in safetensors is refused by name."""
    path = Path(reference)
    bare = reference.removeprefix("hf://")
    at = reference
    if not path.exists() and (revision or "/" not in bare):
        at = f"hf://{bare}" + (f"@{revision}" if revision else "")
    elif path.is_file():
        raise BeftError(f"{reference}: is a file; expected a model folder with its config.json")
    if is_adapter(path):
        raise BeftError(f"{reference}: is an adapter, and its base model is wanted here")
    base = open_checkpoint(at)
    if base.adapter is not None:
        raise BeftError(f"{reference}: is an adapter, and its base model is wanted here")
    if not isinstance(base.config, dict) or base.folder is None:
        raise BeftError(f"{reference}: has no config.json; expected a model folder")
    wrapped = [n for n in base.tensors if n.startswith("module.") or {*n.split(".")} & WRAPPERS]
    if wrapped:
        raise BeftError(
            f"{reference}: {shorten(wrapped[0])} is a name of a compiled, parallel or adapted "
            "model, which transformers does not load; save the model within it"
        )
    if base.twice:
        raise BeftError(
            f"{reference}: {shorten(base.twice[0])} lies in two files of weights, of which "
            "transformers takes the last, whatever the index says; save the model again"
        )
    if pickled := [name for name in base.shards if name.endswith(PICKLES)]:
        raise BeftError(
            f"{reference}: its weights are a pickle, {pickled[0]}; expected safetensors: load it "
            "with transformers and save it again"
        )
    return base


def _inputs(base: Checkpoint, adapter: Checkpoint) -> dict[Path, str]:
    """What is read from this machine: no output may be, hold or lie in it."""
    found: dict[Path, str] = {}
    for one, what in ((base, "base"), (adapter, "adapter")):
        if isinstance(one.folder, LocalFolder):
            found[one.folder.path] = what
    for file in (*base.files, *adapter.files):
        if isinstance(file, LocalFile):
            found[file.path] = "file that is read"
    return found


def _classified(settings: ExportSettings) -> Classified:
    """What transformers says of it, imported where it is needed."""
    from beftkit.runs.classified import classified

    return classified(settings)


def _frame(known: Classified, base: Checkpoint) -> HeadFrame | None:
    from beftkit.runs.classified import frame_of

    return frame_of(known, base.config or {}) if known.has_head else None


def _beside(
    s: ExportSettings, base: Checkpoint, adapter: Checkpoint, known: Classified | None
) -> Companions:
    """What comes along; a classifier's tokenizer is saved by who set it up."""
    assert base.folder is not None
    code = s.trust_remote_code
    if known is not None and known.has_head:
        return companions_of(base.folder, None, code=code, with_head=True)
    if s.tokenizer is None or s.tokenizer == adapter.reference:
        return companions_of(base.folder, adapter.folder, code=code)
    path = Path(s.tokenizer)
    place = None if path.is_dir() else parse_reference(s.tokenizer)
    if not path.is_dir() and place is None:
        raise BeftError(f"{s.tokenizer}: no tokenizer's folder there, nor owner/name on the hub")
    folder = LocalFolder(path) if place is None else HubFolder(place)
    return companions_of(base.folder, folder, code=code, called="the one that was given")


def _write_rest(work: Path, plan: Plan, known: Classified | None, s: ExportSettings) -> int:
    """Configuration, card, and the tokenizer of a classifier; returns bytes written."""
    before = {path for path in work.rglob("*") if path.is_file()}
    config = dict(plan.config)
    if plan.dtype:
        key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
        config[key] = WORDS[plan.dtype]
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (work / "config.json").write_text(text, encoding="utf-8")
    if known is None:
        card = plain_card(s.model, "lora" if plan.merged else "bias-tuning", _facts(plan))
    else:
        from beftkit.models import quiet
        from beftkit.runs.classified import card_of

        card = card_of(known)
        if known.has_head:
            with quiet():
                known.tokenizer.save_pretrained(work)
    (work / CARD).write_text(card, encoding="utf-8")
    new = {path for path in work.rglob("*") if path.is_file()} - before
    return sum(path.stat().st_size for path in new)


def _facts(plan: Plan) -> list[str]:
    given = plan.given
    said = [f"{plan.changed} biases changed"] if plan.changed else []
    if given.biases:
        said.append(f"{len(given.biases) - given.zeros} biases added ({', '.join(given.switches)})")
    if given.folded:
        said.append(f"added biases folded into {len(given.folded)} others")
    return said


def _said_of_links(written: Written, link: bool) -> list[str]:
    notes = []
    if written.unlinked:
        notes.append(
            f"{', '.join(written.unlinked)}: copied, as no hard link can be made from where the "
            "base lies (another file system, or the hub)"
        )
    if link and not written.linked and not written.unlinked:
        notes.append("no file of weights stays the same, so all are copies and none is linked")
    if written.linked:
        notes.append(
            "files that are linked are the base's own under a second name: who changes one in "
            "place changes both"
        )
    return notes


def _result(
    s: ExportSettings,
    folder: Path,
    base: Checkpoint,
    plan: Plan,
    shards: list[Shard],
    known: Classified | None,
) -> MergeResult:
    given = plan.given
    labels = known.objective.labels if known else ()
    return MergeResult(
        output=str(folder),
        base=s.model,
        adapter=str(s.adapter),
        model_type=str(plan.config.get("model_type")),
        dtype=WORDS[plan.dtype or main_dtype(base)],
        parameters=sum(count for shard in shards for _, count in shard.tensors.values()),
        labels=labels,
        changed=plan.changed,
        added=len(given.biases) - given.zeros,
        zeros=given.zeros,
        folded=len(given.folded),
        switches=given.switches,
        copied=(),
        linked=(),
        bytes_written=0,
        roundings=plan.roundings,
        files=(),
        notes=(),
    )
