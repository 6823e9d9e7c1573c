"""A repository on the Hugging Face hub as a folder: headers and bias bytes by range requests.

What the user's cache already holds is read there; nothing is written to it unless a download was
asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from beftkit.checkpoints.fetch import Connection, Expired, Offline, Part
from beftkit.checkpoints.header import (
    LENGTH_BYTES,
    TensorInfo,
    header_length,
    parse_header,
    parse_json_object,
    parse_metadata,
    shorten,
)
from beftkit.checkpoints.local import File, LocalFolder, Span, coalesce, read_json_file
from beftkit.checkpoints.manner import ALONE, Manner
from beftkit.checkpoints.pickles import PICKLES
from beftkit.errors import BeftError

SCHEME = "hf://"
_LISTING_LIMIT = 50_000_000
_REPO = r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})"
_PLAIN = re.compile(_REPO + r"(?:@(?P<revision>[^\s@]+))?", re.ASCII)
_IN = r"(?:@(?P<revision>refs/(?:pr|convert)/[^\s/@]+|[^\s/@]+))?"
_FORCED = re.compile(_REPO + _IN + r"(?:/(?P<path>[^\s].*))?", re.ASCII)
_OLD = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95})" + _IN, re.ASCII)  # gpt2, without an owner
_FILE = re.compile(r".*\.(safetensors|json|bin|pt|pth|ckpt|pkl|ya?ml|toml)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Reference(NamedTuple):
    """A place on the hub: repository, revision (None: its main branch), a file or folder in it."""

    repo: str
    revision: str | None
    path: str
    text: str
    forced: bool


def parse_reference(text: str) -> Reference | None:
    """Read ``owner/name[@revision]`` or ``hf://owner/name[@revision][/path]``.

    Returns:
        None where this can only be meant as a local path.

    Raises:
        BeftError: it begins with ``hf://`` and goes on otherwise.
    """
    forced = text.startswith(SCHEME)
    bare = text.removeprefix(SCHEME)
    match = (_FORCED.fullmatch(bare) or _OLD.fullmatch(bare)) if forced else _PLAIN.fullmatch(bare)
    if match is None:
        if forced:
            raise BeftError(
                f"{shorten(text)}: expected hf://owner/name, hf://owner/name@revision or a file "
                "there, hf://owner/name/model.safetensors"
            )
        return None
    repo, revision = match["repo"], match["revision"]
    if not forced and revision is None and _FILE.fullmatch(repo):  # a mistyped file, no repository
        return None
    if forced and revision is not None:
        revision = unquote(revision)  # feature%2Fx: a branch with a slash in its name
    path = (match.groupdict().get("path") or "").strip("/")
    return Reference(repo, revision, path, text, forced)


class HubFolder:
    """The files of a repository at one commit, or of a folder in it.

    Args:
        reference: which.
        download: whether weight files are fetched whole, into the cache.
        manner: how it is asked for.
        listed: commit and paths, where they are known already.

    Attributes:
        where: the reference, for messages.
        commit: what the revision stands for now.
        name: the file that the reference names, "" where it names a folder.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        download: bool = False,
        manner: Manner = ALONE,
        listed: tuple[str, list[str]] | None = None,
    ) -> None:
        self._reference, self._download, self._manner = reference, download, manner
        self._connection = Connection(reference.repo, reference.revision, manner)
        self._files: list[HubFile] = []
        self._present = reference.repo  # its id now: under a former one every request is redirected
        try:
            self.commit, paths = listed or self._listing()
        except Offline:
            self.commit, paths = self._cached_listing()
        except BeftError as error:
            hint = "" if reference.forced else "; nor is there such a local file or folder"
            raise BeftError(f"{error.told}{hint}", error.kind) from None
        folder, _, file = reference.path.rpartition("/")
        self.name = file if reference.path in paths else ""
        self._inside = folder if self.name else reference.path
        prefix = f"{self._inside}/" if self._inside else ""
        self._names = sorted(
            path.removeprefix(prefix)
            for path in paths
            if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
        )
        if reference.path and not self._names:
            told = f"{reference.text}: no such file or folder in the repository"
            raise BeftError(told, "gone")
        self.where = reference.text.removesuffix(f"/{file}") if self.name else reference.text

    def names(self) -> list[str]:
        """Names of the files in it, sorted."""
        return self._names

    def has(self, name: str) -> bool:
        """Whether a file of that name is in it."""
        return name in self._names

    def open(self, name: str) -> File:
        """A file in it; nothing is read yet, but with ``download`` it is fetched whole."""
        local = self._local(name)
        if local is not None:
            return LocalFolder(local.parent).open(name)
        if name.endswith(PICKLES):
            raise BeftError(
                f"{self.where}: no .safetensors, only {name}, a pickle that can only be read "
                "whole; --download fetches it",
                "only bin",
            )
        file = HubFile(self._connection, self._url(name), f"{self.where}/{name}", self._manner)
        self._files.append(file)
        return file

    def json(self, name: str, what: str, *, infinities: bool = False) -> dict[str, Any]:
        """A small JSON object file in it, fetched whole."""
        local = self._local(name)
        if local is not None:
            return read_json_file(local, what, infinities=infinities)
        where = f"{self.where}/{name}"
        raw = self._connection.whole(self._url(name), where, self._manner.longest_json)
        return parse_json_object(raw, where, what, infinities=infinities)

    @property
    def requests(self) -> int:
        """How many were sent to the hub, and to stores that it led to."""
        return self._connection.requests

    def whole(self, name: str) -> bytes:
        """A file of some megabytes in it, whole."""
        local = self._local(name)
        if local is not None:
            return LocalFolder(local.parent).whole(local.name)
        return self._connection.whole(
            self._url(name), f"{self.where}/{name}", self._manner.longest_json
        )

    def origin(self) -> dict[str, Any]:
        """The commit, bytes fetched from the hub, and the size of the weight files they are of."""
        return {
            "commit": self.commit,
            "bytes_fetched": self._connection.received,
            "bytes_of_files": sum(file.size for file in self._files),
        }

    def _path(self, name: str) -> str:
        return f"{self._inside}/{name}" if self._inside else name

    def _url(self, name: str) -> str:
        base = f"{self._connection.endpoint}/{self._present}/resolve/{self.commit}"
        return f"{base}/{quote(self._path(name))}"

    def _storage(self) -> Path:
        """This repository's part of the cache; its layout is documented, and so costs no import."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"models--{self._reference.repo.replace('/', '--')}"

    def _local(self, name: str) -> Path | None:
        """The file in the cache, if it is there or may be fetched into it."""
        path = self._storage() / "snapshots" / self.commit / self._path(name)
        if not path.is_file() and self._download:
            self._fetch(name)
            if not path.is_file():  # main moved on between the listing and now
                raise BeftError(f"{self.where}: was changed while it was fetched; try again")
            self._connection.received += path.stat().st_size
        return path if path.is_file() else None

    def _fetch(self, name: str) -> None:
        """Download a file under the revision asked for: so it is found again in offline mode."""
        from huggingface_hub import errors, hf_hub_download

        client: Any = errors.HfHubHTTPError.__bases__[0]
        repo, revision = self._reference.repo, self._reference.revision
        try:
            hf_hub_download(repo, self._path(name), revision=revision, library_name="beftkit")
        except (client, OSError, ValueError) as error:
            said = str(error).strip().partition("\n")[0]
            raise BeftError(f"{self.where}/{name}: not downloaded ({shorten(said, 160)})") from None

    def _listing(self) -> tuple[str, list[str]]:
        """The commit that the revision stands for, and every file in it: one request."""
        repo, revision = self._reference.repo, self._reference.revision
        tail = "" if revision is None else f"/revision/{quote(revision, safe='')}"
        url = f"{self._connection.endpoint}/api/models/{repo}{tail}"
        raw = self._connection.whole(url, repo, _LISTING_LIMIT)
        try:
            found = json.loads(raw)
            commit, paths = found["sha"], [one["rfilename"] for one in found["siblings"]]
            if re.fullmatch(_REPO, str(found.get("id")), re.ASCII):
                self._present = found["id"]
        except (ValueError, TypeError, KeyError, RecursionError):
            commit, paths = "", []
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise BeftError(
                f"{repo}: {self._connection.endpoint} answers, but not as a hub does; is "
                "HF_ENDPOINT right, or is a login page in between?",
                "unreachable",
            )
        return commit, [path for path in paths if isinstance(path, str)]

    def _cached_listing(self) -> tuple[str, list[str]]:
        """The same from the cache, for offline mode."""
        storage, revision = self._storage(), self._reference.revision or "main"
        commit = revision
        try:
            if not _COMMIT.fullmatch(revision):
                commit = (storage / "refs" / revision).read_text().strip()
            snapshot = storage / "snapshots" / commit
            files = [path for path in snapshot.rglob("*") if path.is_file()]
        except (OSError, ValueError):
            files = []
        if not files:
            raise BeftError(
                f"{self._reference.text}: not in the cache {storage.parent}, and offline mode "
                "(HF_HUB_OFFLINE) forbids to ask the hub",
                "unreachable",
            )
        return commit, [path.relative_to(snapshot).as_posix() for path in files]


class HubFile:
    """One safetensors file on the hub. ``bytes_read`` counts what was asked for and came."""

    def __init__(
        self, connection: Connection, url: str, where: str, manner: Manner = ALONE
    ) -> None:
        self._connection, self._url, self.where, self._manner = connection, url, where, manner
        self.bytes_read = self.size = 0
        self._header = b"{}"
        self._store: str | None = None  # where the hub's redirects ended

    def header(self, file: int = 0) -> dict[str, TensorInfo]:
        """Read and check the header; ``file`` is stored in each tensor's info."""
        first = self._part(0, max(LENGTH_BYTES, self._manner.header_bytes))
        length = header_length(first, self.size, self.where)
        if length > self._manner.longest_header:
            raise BeftError(
                f"{self.where}: a header of {length:,} bytes; expected at most "
                f"{self._manner.longest_header:,} of a model like the others",
                "damaged",
            )
        raw, end = first[LENGTH_BYTES : LENGTH_BYTES + length], LENGTH_BYTES + length
        self.bytes_read += max(len(first), end)
        if len(raw) < length:
            raw += self._part(LENGTH_BYTES + len(raw), end)
        tensors = parse_header(raw, LENGTH_BYTES + length, self.size, self.where)
        self._header = raw
        return {name: info._replace(file=file) for name, info in tensors.items()}

    def metadata(self) -> dict[str, str]:
        """The text in the header that was read."""
        return parse_metadata(self._header, self.where)

    def read(self, spans: Iterable[Span]) -> dict[Span, bytes]:
        """Read non-overlapping half-open ranges; each range with its bytes."""
        return self.start_read(spans)()

    def start_header(self, file: int = 0) -> Callable[[], dict[str, TensorInfo]]:
        """Ask for the header; it comes when the result is called."""
        return self._connection.start(partial(self.header, file))

    def start_read(self, spans: Iterable[Span]) -> Callable[[], dict[Span, bytes]]:
        """Ask for ranges, neighbours together; they come when the result is called."""
        wanted = sorted(set(spans))
        # What a store sends the hub does not count: there bytes are all that is saved.
        places = coalesce(wanted, spare=0 if self._store else self._manner.spare())
        kept = [[s for s in wanted if start <= s[0] < s[1] <= stop] for start, stop in places]
        waiting = [
            self._connection.start(partial(self._part, *place, keep))
            for place, keep in zip(places, kept, strict=True)
        ]

        def wait() -> dict[Span, bytes]:
            result = dict.fromkeys(wanted, b"")
            for keep, answer in zip(kept, waiting, strict=True):
                body, end = answer(), 0
                for start, stop in keep:
                    begin, end = end, end + stop - start
                    result[start, stop] = body[begin:end]
            self.bytes_read += sum(stop - start for start, stop in places)
            return result

        return wait

    def _part(self, start: int, stop: int, keep: Sequence[Span] | None = None) -> bytes:
        part = self._ask(start, stop, keep)
        if self.size not in (0, part.size):
            told = f"{self.where}: was {self.size} bytes long, now {part.size}; try again"
            raise BeftError(told, "damaged")
        self.size = part.size
        # A file of less than eight bytes is told by its header's length, not here.
        if start and part.came != stop - start:
            told = f"{self.where}: ends at byte {part.size}; is the file cut short?"
            raise BeftError(told, "damaged")
        return part.body

    def _ask(self, start: int, stop: int, keep: Sequence[Span] | None) -> Part:
        """Through the hub once, then from the store it led to: half the way, and its own limits."""
        ask, store = partial(self._connection.part, keep=keep), self._store
        if store is not None:
            try:
                return ask(store, self.where, start, stop, direct=True)
            except Expired:
                self._store = None
        part = ask(self._url, self.where, start, stop)
        if urlsplit(part.url).netloc != urlsplit(self._url).netloc:
            self._store = part.url
        return part
