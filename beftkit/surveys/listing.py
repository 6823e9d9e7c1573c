"""Which models a survey asks: what the hub lists as made from a base, or what the user names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from beftkit.adapters import WEIGHTS_NAME
from beftkit.checkpoints.checkpoint import INDEX_SUFFIXES, NOT_WEIGHTS, choose_weights
from beftkit.checkpoints.fetch import Connection, Offline
from beftkit.checkpoints.header import shorten
from beftkit.checkpoints.hub import parse_reference
from beftkit.checkpoints.local import LocalFolder
from beftkit.checkpoints.manner import ALONE, Manner
from beftkit.checkpoints.pickles import PICKLES
from beftkit.diff.sides import expand_runs, natural
from beftkit.errors import BeftError

#: what is asked for of each model, so that no call has to be made for it alone
EXPANDED = (
    *("sha", "siblings", "gated", "downloads", "tags", "lastModified", "cardData"),
    "pipeline_tag",
)
#: by what the hub sorts, most first
SORTS = ("downloads", "likes", "lastModified", "createdAt", "trendingScore")
#: models a page
_PAGE = 100
_PAGE_BYTES = 200_000_000
_REMARK = re.compile(r"(?:^|\s)#.*")
#: bytes of a file of references
_FILE_BYTES = 50_000_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OWNER = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class Listed:
    """A model to be asked, with what is known of it before.

    Attributes:
        model: reference: ``owner/name``, a path, or what a line said.
        by: the base's id that lists it; None where the user named it.
        commit: of its main branch; None: not known.
        paths: of the files there; None: not known.
        task, tags, downloads, last_modified, licence, gated: as in `beftkit.surveys.rows.Row`.
    """

    model: str
    by: str | None = None
    commit: str | None = None
    paths: tuple[str, ...] | None = None
    task: str | None = None
    tags: tuple[str, ...] = ()
    downloads: int | None = None
    last_modified: str | None = None
    licence: str | None = None
    gated: bool = False


@dataclass(frozen=True)
class Listing:
    """What the hub lists.

    Attributes:
        models: each once, in the hub's order, those of the base's present id first.
        counts: how many each of the base's ids lists, before the limit.
    """

    models: tuple[Listed, ...]
    counts: Mapping[str, int]


def list_models(
    base: str,
    *,
    limit: int | None = None,
    sort: str = "downloads",
    task: str | None = None,
    manner: Manner = ALONE,
) -> Listing:
    """What the hub lists as fine-tuned from a base, under its present id and under an old one.

    Args:
        base: ``owner/name``, or an old id without an owner.
        limit: how many at most; None: all.
        sort: one of `SORTS`.
        task: of models with this ``pipeline_tag`` alone.
        manner: how the hub is asked.

    Raises:
        BeftError: no such base there, or nobody answers.
    """
    ways = Connection(base, None, manner)
    try:
        names = base_ids(base, ways)
        found: dict[str, Listed] = {}
        counts = {}
        for name in names:
            counts[name] = 0
            for one in _listed(ways, name, limit, sort, task):
                counts[name] += 1
                found.setdefault(one.model, one)
    except Offline:
        raise BeftError(
            f"{base}: offline mode (HF_HUB_OFFLINE) forbids to ask the hub for its fine-tunes; "
            "name them, as by `beftkit survey BASE --from FILE`"
        ) from None
    models = [one for one in found.values() if one.model not in names]
    if len(names) > 1 and sort == "downloads":
        models.sort(key=lambda one: -(one.downloads or 0))
    return Listing(tuple(models[:limit]), counts)


def base_ids(base: str, ways: Connection) -> list[str]:
    """The present id of a base, and the old one without an owner if it had one.

    The hub answers under a former id with the present one. Of the first models the former id is the
    bare name (``bert-base-cased``), so that is asked for as well.
    """
    present = _id_of(base, ways)
    names = [present]
    if base != present:
        names.append(base)
    bare = present.rpartition("/")[2]
    if bare not in names:
        try:
            if _id_of(bare, ways) == present:
                names.append(bare)
        except BeftError as error:
            if error.kind == "unreachable":
                raise
    return names


def _id_of(name: str, ways: Connection) -> str:
    url = f"{ways.endpoint}/api/models/{name}?expand=sha"
    try:
        found = json.loads(ways.whole(url, name, _PAGE_BYTES))["id"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, BeftError):
            raise
        found = None
    if not isinstance(found, str) or not (_OWNER.fullmatch(found) or _BARE.fullmatch(found)):
        raise BeftError(
            f"{name}: {ways.endpoint} answers, but not as a hub does; is HF_ENDPOINT right, or is "
            "a login page in between?"
        )
    return found


def _listed(
    ways: Connection, base: str, limit: int | None, sort: str, task: str | None
) -> Iterator[Listed]:
    """The models of one id, page by page."""
    asked: list[tuple[str, str]] = [("filter", f"base_model:finetune:{base}"), ("sort", sort)]
    asked += [("pipeline_tag", task)] if task else []
    asked += [("limit", str(min(limit or _PAGE, _PAGE)))]
    asked += [("expand", name) for name in EXPANDED]
    url: str | None = f"{ways.endpoint}/api/models?{urlencode(asked)}"
    seen: set[str] = set()
    count = 0
    while url is not None and url not in seen:
        seen.add(url)
        raw, following = ways.page(url, f"fine-tunes of {base}", _PAGE_BYTES)
        try:
            page = json.loads(raw)
        except (ValueError, RecursionError):
            page = None
        if not isinstance(page, list):
            raise BeftError(f"{base}: {ways.endpoint} does not list models as a hub does")
        for entry in page:
            one = _entry(entry, base)
            if one is not None:
                yield one
                count += 1
                if limit is not None and count >= limit:
                    return
        same = following and urlsplit(following).netloc == urlsplit(ways.endpoint).netloc
        url = following if same and page else None


def _entry(entry: Any, base: str) -> Listed | None:
    """One of the hub's models; None for what is none. Everything in it is text of others."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return None
    name = entry["id"]
    if not (_OWNER.fullmatch(name) or _BARE.fullmatch(name)):
        return None
    card = entry.get("cardData")
    card = card if isinstance(card, dict) else {}
    tags = tuple(one for one in entry.get("tags") or () if isinstance(one, str))
    licence = next((t.removeprefix("license:") for t in tags if t.startswith("license:")), None)
    commit, downloads = entry.get("sha"), entry.get("downloads")
    siblings = entry.get("siblings")
    paths = None
    if isinstance(siblings, list):
        files = [one.get("rfilename") for one in siblings if isinstance(one, dict)]
        paths = tuple(one for one in files if isinstance(one, str))
    good = isinstance(commit, str) and _COMMIT.fullmatch(commit)
    return Listed(
        model=name,
        by=base,
        commit=commit if good else None,
        paths=paths if good else None,
        task=_text(entry.get("pipeline_tag")),
        tags=tags,
        downloads=downloads if type(downloads) is int else None,
        last_modified=_text(entry.get("lastModified")),
        licence=_text(card.get("license")) or licence,
        gated=bool(entry.get("gated")),
    )


def _text(value: Any) -> str | None:
    """Text, or the first of several, as licences may be."""
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, str) and value else None


def read_references(source: str | Path) -> list[str]:
    """The references of a file, one a line, or a folder's checkpoints.

    ``#`` begins a remark, at the beginning of a line or behind a blank.

    Raises:
        BeftError: there is no such file or folder, or nothing in it.
    """
    path = Path(source)
    try:
        if path.is_dir():
            return _tree(path)
        if path.stat().st_size > _FILE_BYTES:
            raise BeftError(
                f"{path}: larger than {_FILE_BYTES:,} bytes; expected a reference a line"
            )
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BeftError(f"{path}: is no UTF-8 text; expected a reference a line") from None
    except (OSError, ValueError) as error:
        if isinstance(error, BeftError):
            raise
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise BeftError(f"{shorten(str(path))}: cannot be read ({reason})") from None
    found = [one for line in lines if (one := _REMARK.sub("", line).strip())]
    if not found:
        raise BeftError(f"{path}: names no model; expected a reference a line")
    return list(dict.fromkeys(found))


def _tree(folder: Path) -> list[str]:
    """Every folder below that holds a model or an adapter; links to folders are not followed."""
    found = []
    for where, below, names in os.walk(folder):
        below.sort(key=lambda name: natural(Path(name)))
        if any(_is_weights(name) for name in names):
            found += [str(one) for one in expand_runs([where])] if _is_one(where) else _loose(where)
    if not found:
        raise BeftError(f"{folder}: no checkpoint in it or below (.safetensors, .bin)")
    return list(dict.fromkeys(found))


def _is_one(folder: str) -> bool:
    """Whether a folder is one checkpoint or a run's, and no place where files of several lie."""
    if expand_runs([folder]) != [folder]:
        return True
    try:
        choose_weights(LocalFolder(Path(folder)))
    except BeftError as error:  # of one that lacks a shard its own row tells
        return error.kind != "refused" or len(_loose(folder)) < 2
    return True


def _loose(folder: str) -> list[str]:
    return [str(path) for path in sorted(Path(folder).glob("*.safetensors"), key=natural)]


def _is_weights(name: str) -> bool:
    safe = name.endswith((".safetensors", *INDEX_SUFFIXES)) or name == WEIGHTS_NAME
    return safe or (name.endswith(PICKLES) and not NOT_WEIGHTS.match(name))


def place_of(reference: str) -> Any:
    """The place on the hub that a reference means, or None where it means one here."""
    try:
        if not reference.startswith("hf://") and Path(reference).exists():
            return None
    except (OSError, ValueError):
        return None
    return parse_reference(reference)
