"""A fine-tuning's biases as an adapter's tensors: by names and shapes, without a model class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from beftkit.adapters import Kind, Tuned, change
from beftkit.adapters.heads import head_modules
from beftkit.adapters.reading import plain
from beftkit.biases import Site, in_tower, is_bias, plain_name
from beftkit.biases.config import model_types
from beftkit.biases.names import Tensor
from beftkit.biases.renames import runtime_path
from beftkit.checkpoints import BiasSet, Checkpoint
from beftkit.errors import BeftError
from beftkit.scores.statistics import PRECISION, decode, rounded
from beftkit.tuning.choice import POOLER_BIAS
from beftkit.weights.changes import same_name
from beftkit.weights.sums import norm

Single = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Taken:
    """What an adapter is to hold, and what became of the values on the way.

    Attributes:
        tuned: biases first, then the head.
        norms: Euclidean length of the change of each role.
        vectors: how many bias vectors.
        scalars: how many scalars in them.
        added: how many of the vectors the base has not.
        head: modules that come along whole.
        fresh: those of them that PRE has not, or has otherwise.
        read: names of POST's tensors that the adapter holds.
        unreached: scalars where base and adapter together miss POST's value, after rounding to
            the base's dtype.
        rounded: scalars of POST that the base's dtype cannot hold.
        unheld: scalars of POST that a float64 base would hold, and a float32 value does not.
    """

    tuned: list[Tuned] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    vectors: int = 0
    scalars: int = 0
    added: int = 0
    head: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    unreached: int = 0
    rounded: int = 0
    unheld: int = 0


def taken(
    left: BiasSet,
    right: BiasSet,
    pairs: Sequence[tuple[Site | None, Site]],
    others: Sequence[tuple[str, str]],
    *,
    task: str | None,
    prefix: str,
) -> Taken:
    """Gather what goes into the adapter.

    Args:
        left: biases of PRE.
        right: biases of POST.
        pairs: the sites that go in; None: PRE has no such bias.
        others: further biases that go in, by their names in PRE and POST.
        task: PEFT's task type of POST, whose head comes along.
        prefix: what a task model puts before the names in POST's files; mostly nothing.

    Raises:
        BeftError: a bias of a fused projection that only one side has.
    """
    types = model_types(right.checkpoint.config or left.checkpoint.config)
    conv = _has_conv1d(right.checkpoint)
    whole: dict[str, tuple[Site, Single, Single, bool, str]] = {}
    lengths: dict[str, list[npt.NDArray[np.float64]]] = {}
    missed = np.zeros(3, np.int64)
    for a, b in pairs:
        parameter, fused = _runtime_name(b, types, prefix), b.module is None and b.cut is not None
        post = right.vector(b)
        pre = np.zeros_like(post) if a is None else left.vector(a)
        dtype = b.dtype if a is None else a.dtype
        missed += _reached(pre, post, dtype, _of_norm(right.checkpoint, b.name))
        lengths.setdefault(b.role, []).append(post - pre)
        if not fused:
            whole[parameter] = b, _single(pre), _single(post), a is None, b.dtype
            continue
        if parameter not in whole:
            if a is None or a.cut is None:
                raise BeftError(
                    f"{b.name}: holds q, k and v in one in {right.checkpoint.reference}, but not in"
                    f" {left.checkpoint.reference}; expected the same form in both"
                )
            held = _single(_read(left.checkpoint, a.name))
            whole[parameter] = b, held, held.copy(), False, a.dtype
        assert b.cut is not None
        whole[parameter][2][b.cut.positions()] = _single(post)
    found = [
        _tuned(name, site, right.checkpoint, (pre, post), added, conv)
        for name, (site, pre, post, added, _) in whole.items()
    ]
    names = [site.name for site, *_ in whole.values()]
    for mine, theirs in others:
        parameter = _named(plain(theirs), prefix)
        pre, post = _read(left.checkpoint, mine), _read(right.checkpoint, theirs)
        dtype = left.checkpoint.tensors[mine].dtype
        missed += _reached(pre, post, dtype, _of_norm(right.checkpoint, theirs))
        values = _single(pre), _single(post)
        found.append(_loose(parameter, theirs, right.checkpoint, values, conv))
        names.append(theirs)
    unreached, lost, unheld = missed.tolist()
    head, brought, fresh = _head(left.checkpoint, right.checkpoint, task, prefix)
    return Taken(
        tuned=[*found, *head],
        norms={role: norm(np.concatenate(some)) for role, some in lengths.items()},
        vectors=len(pairs) + len(others),
        scalars=sum(b.width for _, b in pairs)
        + sum(right.checkpoint.tensors[name].shape[0] for _, name in others),
        added=sum(a is None for a, _ in pairs),
        head=tuple(dict.fromkeys(one.module for one in head if one.kind == "head")),
        fresh=fresh,
        read=(*names, *brought),
        unreached=unreached,
        rounded=lost,
        unheld=unheld,
    )


def changed_beside(
    left: BiasSet, right: BiasSet, rest: Iterable[tuple[Site, Site]], gone: Iterable[str]
) -> dict[str, int]:
    """Other biases that changed: role, or name of one without a role -> how many.

    Args:
        left: biases of PRE.
        right: biases of POST.
        rest: pairs of sites that are not in the adapter.
        gone: names in POST that the adapter holds.
    """
    found: dict[str, int] = {}
    for a, b in rest:
        if not np.array_equal(left.vector(a), right.vector(b)):
            found[b.role] = found.get(b.role, 0) + 1
    for mine, theirs in loose_pairs(left, right):
        if theirs not in gone:
            one, other = _read(left.checkpoint, mine), _read(right.checkpoint, theirs)
            if not np.array_equal(one, other):
                found[plain(theirs)] = 1
    return found


def loose_pairs(left: BiasSet, right: BiasSet) -> list[tuple[str, str]]:
    """Biases of both without a role (embeddings, poolers), by their names in PRE and POST."""
    there = {plain_name(name): name for name in right.recognition.unscored}
    found = []
    for name in left.recognition.unscored:
        other = same_name(plain_name(name), there)
        if other is None:
            continue
        a, b = left.checkpoint.tensors[name], right.checkpoint.tensors[there[other]]
        if a.shape == b.shape and {a.dtype, b.dtype} <= PRECISION.keys():
            found.append((name, there[other]))
    return found


def of_tower(name: str, sites: Sequence[Site], wanted: str) -> bool:
    """Whether a bias without a role is of a tower: of that whose names begin most like its own.

    Args:
        name: of the bias, in the file that the sites are of.
        sites: those of all towers.
        wanted: as `beftkit.biases.in_tower` takes it.
    """
    parts, shared = name.split("."), dict[str, int]()
    for site in sites:
        pairs = zip(parts, site.name.split("."), strict=False)
        alike = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
        shared[site.tower] = max(alike, shared.get(site.tower, 0))
    most = max(shared.values(), default=0)
    return any(in_tower(one, wanted) for one, alike in shared.items() if alike == most)


def _reached(
    pre: npt.NDArray[np.float64], post: npt.NDArray[np.float64], dtype: str, value: bool
) -> tuple[int, int, int]:
    """How many values base and adapter miss, the base's dtype cannot hold, float32 cannot.

    Args:
        pre: of the base.
        post: what is to be reached.
        dtype: the base's.
        value: whether every format holds the value itself, not the change.
    """
    start, end = _single(pre), _single(post)
    step = change(start, end)
    if dtype == "F64":  # a merge adds in float64, to the base as it is
        unheld = int((end != post).sum())
        return unheld if value else int((pre + step != post).sum()), 0, unheld
    sums = rounded((end if value else start + step).astype(np.float64), dtype)
    held = rounded(post, dtype)
    return int((sums != held).sum()), int((held != post).sum()), 0


def _of_norm(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a bias is a norm's, which PEFT saves whole."""
    info = checkpoint.tensors.get(_weight_of(name))
    return info is not None and len(info.shape) == 1


def _runtime_name(site: Site, types: frozenset[str], prefix: str) -> str:
    """The parameter's whole name in the task model."""
    free = site.module is None and site.cut is None
    path = plain(plain_name(site.name))
    owner = path if free or not path.endswith(".bias") else path.removesuffix(".bias")
    found = runtime_path(owner, site.role, types)
    return _named(found if free else f"{found}.bias", prefix)


def _named(name: str, prefix: str) -> str:
    return f"{prefix}.{name}" if prefix and not name.startswith(f"{prefix}.") else name


def _tuned(
    name: str,
    site: Site,
    checkpoint: Checkpoint,
    values: tuple[Single, Single],
    added: bool,
    conv: bool,
) -> Tuned:
    if site.module is None and site.cut is None:
        return Tuned(name, "free", name.rpartition(".")[0], 0, *values, added=added)
    return _loose(name, site.name, checkpoint, values, conv, added)


def _loose(
    name: str,
    held: str,
    checkpoint: Checkpoint,
    values: tuple[Single, Single],
    conv: bool,
    added: bool = False,
) -> Tuned:
    """What owns a bias, told by the shape of the weight beside it."""
    module, beside = name.rpartition(".")[0], _weight_of(held)
    info = checkpoint.tensors.get(beside)
    kind: Kind = "linear"  # of a projection that the file has otherwise than the model
    inputs, weight = 0, None
    if info is not None and len(info.shape) == 1:
        kind, weight = "norm", _single(_read(checkpoint, beside))
    elif info is not None and len(info.shape) == 2:
        kind = "conv1d" if conv else "linear"
        inputs = info.shape[0] if conv else info.shape[1]
    elif info is not None:
        kind = "free"
    return Tuned(name, kind, module, inputs, *values, weight, added)


def _weight_of(bias: str) -> str:
    stem, _, leaf = bias.rpartition(".")
    return f"{stem}.{'gamma' if leaf == 'beta' else 'weight'}"


def _has_conv1d(checkpoint: Checkpoint) -> bool:
    """Whether its projections are transformers' Conv1D, whose weights are ``[in, out]``: GPT-2."""
    for name, info in checkpoint.tensors.items():
        weight = checkpoint.tensors.get(_weight_of(name))
        if is_bias(Tensor(name, info.dtype, info.shape)) and weight and len(weight.shape) == 2:
            rows, columns = weight.shape
            if rows != columns:
                return info.shape[0] == columns
    return False


def _head(
    pre: Checkpoint, post: Checkpoint, task: str | None, prefix: str
) -> tuple[list[Tuned], list[str], tuple[str, ...]]:
    """POST's head whole, with a pooler that PRE lacks, and a pretrained pooler's change.

    Returns:
        What goes in, names of those tensors in POST, and modules that PRE has otherwise or not.
    """
    modules = head_modules(post.tensors, task)
    if not modules:
        return [], [], ()
    there = {plain(plain_name(name)): name for name in pre.tensors}
    found, brought, fresh = [], [], []
    for name, module in modules.items():
        value, mine = _single(_read(post, name)), there.get(plain(name))
        found.append(Tuned(plain(name), "head", module, 0, value, value))
        brought.append(name)
        same = mine is not None and pre.tensors[mine].shape == post.tensors[name].shape
        if not (same and mine and np.array_equal(_read(pre, mine), _read(post, name))):
            fresh.append(module)
    for name in post.tensors:
        runtime = _named(plain(plain_name(name)), prefix)
        if "pooler" not in runtime.split(".") or post.tensors[name].dtype not in PRECISION:
            continue
        mine = same_name(plain(plain_name(name)), there)
        value = _single(_read(post, name))
        if mine is None:
            owner = runtime.rpartition(".")[0]
            found.append(Tuned(runtime, "head", owner, 0, value, value))
            fresh.append(owner)
            brought.append(name)
        elif POOLER_BIAS.fullmatch(runtime):
            before = _single(_read(pre, there[mine]))
            if before.shape == value.shape and not np.array_equal(before, value):
                found.append(_loose(runtime, name, post, (before, value), False))
                brought.append(name)
    return found, brought, tuple(dict.fromkeys(fresh))


def _read(checkpoint: Checkpoint, name: str) -> npt.NDArray[np.float64]:
    info = checkpoint.tensors[name]
    if info.dtype not in PRECISION:
        raise BeftError(
            f"{checkpoint.reference}: {name} is stored as {info.dtype}; expected one of "
            f"{', '.join(PRECISION)} (is this checkpoint quantised?)"
        )
    [raw] = checkpoint.read([name]).values()
    return decode(raw, info.dtype).reshape(info.shape)


def _single(values: npt.NDArray[np.float64]) -> Single:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
