"""Open a checkpoint wherever its tensors lie: one file, an index with shards, or a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from beftkit.adapters import BIASES_NAME, biases_config
from beftkit.adapters import CONFIG_NAME as ADAPTER_CONFIG
from beftkit.adapters import WEIGHTS_NAME as ADAPTER_WEIGHTS
from beftkit.checkpoints.header import TensorInfo, shorten
from beftkit.checkpoints.local import (
    File,
    Folder,
    LocalFolder,
    read_headers,
    read_json_file,
    read_spans,
)
from beftkit.checkpoints.pickles import PICKLES, PickleFile
from beftkit.errors import BeftError

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
CONFIG = "config.json"
#: pickles that trainers leave beside the weights
NOT_WEIGHTS = re.compile(r"training_args|optimizer|scheduler|scaler|rng_state|trainer_state")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors")


class Checkpoint:
    """The tensors of one model on disk: names and shapes now, bytes when asked.

    Attributes:
        reference: what the user gave, for messages and results.
        tensors: name to dtype, shape and place.
        config: the ``config.json`` beside the weights, or None.
        adapter: the ``adapter_config.json`` where the tensors are a PEFT adapter's, what our own
            adapter says in its stead, else None.
        metadata: the text in an adapter's header.
        notes: sentences that a reader of the tensors needs.
        origin: what else is known of where they come from; a hub's commit and the bytes fetched.
        folder: where the files lie; None for what is no folder's.
        files: the files of the tensors, which `TensorInfo.file` counts.
        shards: their names in the folder, in the same order.
        index: the name of the index that was read, or None.
        twice: tensors that lie in another shard as well as in the one that the index names.
    """

    origin: Callable[[], dict[str, Any]] = dict
    folder: Folder | None = None
    shards: tuple[str, ...] = ()
    index: str | None = None
    twice: tuple[str, ...] = ()

    def __init__(
        self,
        reference: str,
        files: list[File],
        tensors: Mapping[str, TensorInfo],
        config: dict[str, Any] | None,
        adapter: dict[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.reference, self.tensors = reference, tensors
        self.config, self.adapter = config, adapter
        self.metadata: Mapping[str, str] = metadata or {}
        self.notes = [one for file in files for one in getattr(file, "notes", ())]
        self.files = files

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, headers included."""
        return sum(file.bytes_read for file in self.files)

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read whole tensors as stored (little-endian), touching nothing else.

        Args:
            names: tensor names; each must be in ``tensors``.

        Returns:
            Name to raw bytes, in the order asked for.
        """
        infos = {name: self.tensors[name] for name in names}
        per_file: dict[int, set[tuple[int, int]]] = {}
        for info in infos.values():
            per_file.setdefault(info.file, set()).add((info.start, info.stop))
        found = read_spans((self.files[number], spans) for number, spans in per_file.items())
        blocks = dict(zip(per_file, found, strict=True))
        return {name: blocks[info.file][info.start, info.stop] for name, info in infos.items()}

    def blocks(self, name: str, size: int) -> Iterator[bytes]:
        """Read one tensor in pieces, so that memory stays flat however large it is.

        Args:
            name: which.
            size: bytes of a piece, the last may have fewer; a tensor of a pickled file comes whole.
        """
        info = self.tensors[name]
        file = self.files[info.file]
        step = max(info.stop - info.start, 1) if isinstance(file, PickleFile) else size
        for start in range(info.start, info.stop, step):
            span = (start, min(start + step, info.stop))
            yield file.read([span])[span]


def open_checkpoint(reference: str | Path, *, download: bool = False) -> Checkpoint:
    """Open a checkpoint and read its headers.

    Args:
        reference: a ``.safetensors`` file, a ``*.safetensors.index.json``, or a folder that holds
            ``model.safetensors`` or a sharded set; or, where no local path has that name, such a
            folder on the hub: ``owner/name``, ``owner/name@revision``, and with ``hf://`` in front
            whatever is here. A ``config.json`` beside the weights is read.
        download: fetch whole weight files from the hub into its cache, not parts of them.

    Raises:
        BeftError: nothing there, not safetensors, or damaged; one line that says what to do.
    """
    path = Path(reference)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        raise BeftError(f"{shorten(str(reference))}: not a usable path") from None
    if not exists:
        far = _open_hub(str(reference), download) if isinstance(reference, str) else None
        if far is None:
            raise BeftError(
                f"{reference}: no such file or folder; expected a checkpoint, or owner/name",
                "gone",
            )
        return far
    if is_folder:
        folder = LocalFolder(path)
        return open_in(folder, choose_weights(folder), str(reference))
    return open_in(LocalFolder(path.parent), path.name, str(reference))


def _open_hub(reference: str, download: bool) -> Checkpoint | None:
    """A checkpoint on the hub, or None where the reference cannot mean one."""
    from beftkit.checkpoints.hub import HubFolder, parse_reference

    place = parse_reference(reference)
    if place is None:
        return None
    folder = HubFolder(place, download=download)
    found = open_in(folder, folder.name or choose_weights(folder), reference)
    found.origin = folder.origin
    return found


def open_in(folder: Folder, name: str | list[str], reference: str) -> Checkpoint:
    """Open one file, an index, or a list of shards in a folder, with the ``config.json`` there."""
    index, twice = None, tuple[str, ...]()
    if isinstance(name, list):
        shards, (files, tensors) = name, _open_shards(folder, name)
    elif name.endswith(INDEX_SUFFIXES):
        index = name
        shards, files, tensors, twice = _open_index(folder, name)
    else:
        shards, files = [name], [folder.open(name)]
        tensors = files[0].header()
    # Some published configurations hold Infinity, and their model loads.
    there = folder.has(CONFIG)
    config = folder.json(CONFIG, "configuration", infinities=True) if there else None
    adapter, metadata = None, {}
    if str(name).startswith("adapter_model.") and folder.has(ADAPTER_CONFIG):
        adapter = folder.json(ADAPTER_CONFIG, "adapter configuration")
        metadata = files[0].metadata()
    elif name == BIASES_NAME:
        metadata = files[0].metadata()
        adapter = biases_config(metadata)
    found = Checkpoint(reference, files, tensors, config, adapter, metadata)
    found.folder, found.shards, found.index = folder, tuple(shards), index
    found.twice = twice
    return found


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a ``config.json``, or the one in a folder."""
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError):
        raise BeftError(f"{shorten(str(path))}: not a usable path") from None
    file = path / CONFIG if is_folder else path
    return read_json_file(file, "configuration", infinities=True)


def choose_weights(folder: Folder) -> str | list[str]:
    """The file, index or complete set of shards that is a folder's model."""
    names = folder.names()
    weights = [name for name in names if name.endswith(".safetensors")]
    indices = [name for name in names if name.endswith(INDEX_SUFFIXES[0])]
    usual = ("model.safetensors", f"model{INDEX_SUFFIXES[0]}", ADAPTER_WEIGHTS, BIASES_NAME)
    for name in usual:
        if name in names:
            return name
    if len(indices) == 1:
        return indices[0]
    shards = [match for name in weights if (match := _SHARD.fullmatch(name))]
    if shards and len({match["stem"] for match in shards}) == 1 and len(shards) == len(weights):
        return _shard_set(folder, shards)
    if len(weights) == 1 and not shards:
        return weights[0]
    if weights:
        raise BeftError(
            f"{folder.where}: several weight files ({', '.join(weights[:4])}, ...) and no "
            "model.safetensors; give the file itself",
            "refused",
        )
    for name in ("pytorch_model.bin", f"pytorch_model{INDEX_SUFFIXES[1]}", "adapter_model.bin"):
        if name in names:
            return name
    pickles = [n for n in names if n.endswith(PICKLES) and not NOT_WEIGHTS.match(n)]
    if len(pickles) == 1:
        return pickles[0]
    found = f"found {', '.join(names[:5])}" if names else "it is empty"
    raise BeftError(
        f"{folder.where}: no model.safetensors or sharded set here ({found})", "refused"
    )


def _shard_set(folder: Folder, shards: list[re.Match[str]]) -> list[str]:
    """All shards that their names promise, for a folder that lost its index."""
    first = shards[0]
    digits, count = len(first["number"]), int(first["count"])
    same = [found for found in shards if found["count"] == first["count"]]
    present = {int(found["number"]): found.string for found in same}
    for number in range(1, count + 1):
        if number not in present:
            missing = f"{first['stem']}-{number:0{digits}d}-of-{first['count']}.safetensors"
            raise BeftError(f"{folder.where}: shard {missing} is missing; fetch it again")
    return [present[number] for number in sorted(present)]


def _open_shards(folder: Folder, names: list[str]) -> tuple[list[File], dict[str, TensorInfo]]:
    files = [folder.open(name) for name in names]
    tensors: dict[str, TensorInfo] = {}
    for file, header in zip(files, read_headers(files), strict=True):
        for name, info in header.items():
            if name in tensors:
                raise BeftError(f"{file.where}: tensor {shorten(name)} is in two shards")
            tensors[name] = info
    return files, tensors


def _open_index(
    folder: Folder, index_name: str
) -> tuple[list[str], list[File], dict[str, TensorInfo], tuple[str, ...]]:
    where = f"{folder.where}/{index_name}"
    weight_map = folder.json(index_name, "index").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BeftError(f"{where}: no weight_map; expected a safetensors index")
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _inside(shard):
            raise BeftError(
                f"{where}: tensor {shorten(name)} is said to lie in {shorten(str(shard))}; "
                "expected a file name inside the index's own folder"
            )
        shards.setdefault(shard, []).append(name)
    for shard in shards:
        if not folder.has(shard):
            raise BeftError(f"{where}: its shard {shorten(shard)} is missing; fetch it again")
    files = [folder.open(shard) for shard in sorted(shards)]
    tensors: dict[str, TensorInfo] = {}
    twice: list[str] = []
    for shard, header in zip(sorted(shards), read_headers(files), strict=True):
        twice += [name for name in header if weight_map.get(name, shard) != shard]
        for name in shards[shard]:
            if name not in header:
                raise BeftError(
                    f"{where}: puts tensor {shorten(name)} into {shorten(shard)}, which does not "
                    "hold it"
                )
            tensors[name] = header[name]
    return sorted(shards), files, tensors, tuple(twice)


def _inside(shard: str) -> bool:
    """Whether a shard's name stays in its folder. A link may leave it: hub caches do that."""
    return bool(shard) and shard not in (".", "..") and not set(shard) & {"/", "\\", "\0"}
