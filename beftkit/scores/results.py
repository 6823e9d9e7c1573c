"""What scores are: sites, roles, coverage, the sides compared; plain fields, to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from beftkit.errors import BeftError
from beftkit.files import headed, plain_of
from beftkit.shown import Shown, maker

Inert = Literal["yes", "no", "unknown"]
#: figures that a result's line tells
_TOLD = ("projection", "fisher")


@dataclass(frozen=True)
class Identity:
    """Which biases these are; from the hub also the commit, of an adapter also its base.

    Attributes:
        path: reference, as given.
        bias_sha256: digest of the bias vectors' bytes, in the order of their names; of no file.
            None where two live models were compared on their GPU, from which no bias is copied.
        commit: of the hub's repository.
        bytes_fetched: from the hub so far.
        bytes_of_files: size of the weight files that they are of.
        base: the model that an adapter was put on.
    """

    path: str
    bias_sha256: str | None
    commit: str | None = None
    bytes_fetched: int | None = None
    bytes_of_files: int | None = None
    base: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: those that are known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class FisherFacts:
    """How a Fisher score was measured.

    Attributes:
        variant: ``exact`` or ``batch-mean``.
        reduce: ``mean`` or ``sum`` over a site's coordinates.
        task: name of the task or of the user's files.
        examples: how many.
        batch_size, max_length, dtype, precision: as they were in the end.
        head_seeds: that drew the heads; None for a trained one.
        alone: parameters that were measured one example at a time.
        by_head_seed: seed -> role -> score, where there are several.

    Of a model in memory ``task`` is None, and so is what its owner alone knows.
    """

    variant: str
    reduce: str
    task: str | None = None
    examples: int = 0
    batch_size: int | None = None
    max_length: int | None = None
    dtype: str | None = None
    precision: str | None = None
    head_seeds: tuple[int, ...] | None = None
    alone: tuple[str, ...] = ()
    by_head_seed: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value not in (None, {}) or (key == "head_seeds" and self.task is not None)
        }


@dataclass(frozen=True, repr=False)
class SiteScore(Shown):
    """One bias vector in one place, before against after, or at one checkpoint.

    ``figures`` holds a float for some of `FIGURES`, or None where it is undefined. ``slice`` says
    which part of a fused tensor this is, None for a whole tensor. ``uses`` is how many layers
    share it. ``module`` is the runtime module that owns the bias, None for a free parameter.
    """

    name: str
    role: str
    layer: int
    tower: str
    attention: str
    width: int
    dtype_pre: str
    dtype_post: str
    slice: str | None
    uses: int
    module: str | None
    inert: Inert
    figures: Mapping[str, float | None]

    @classmethod
    def of(
        cls, site: Any, figures: Mapping[str, float | None], dtype_post: str, module: str | None
    ) -> SiteScore:
        """The score of a `beftkit.biases.Site`, as it is before."""
        where = site.name, site.role, site.layer, site.tower, site.attention, site.width
        cut = None if site.cut is None else str(site.cut)
        return cls(*where, site.dtype, dtype_post, cut, site.uses, module, site.inert, figures)

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        figures = {name: one for name, one in self.figures.items() if name in _TOLD}
        return plain_of(self, "name role layer width inert") | figures

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = "name layer tower attention width slice uses dtype_pre dtype_post inert"
        return plain_of(self, names) | dict(self.figures)


@dataclass(frozen=True, repr=False)
class RoleScore(Shown):
    """All sites of one role; ``figures`` are means over the sites, None if any is undefined.

    ``rank`` counts from 1 among all roles, inert ones last; None without a score.
    """

    role: str
    rank: int | None
    inert: Inert
    figures: Mapping[str, float | None]
    sites: tuple[SiteScore, ...]

    @property
    def width(self) -> int | None:
        """Length of the vectors, None if the sites differ."""
        widths = {site.width for site in self.sites}
        return widths.pop() if len(widths) == 1 else None

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        figures = {name: one for name, one in self.figures.items() if name in _TOLD}
        return plain_of(self, "role rank inert") | figures | {"vectors": len(self.sites)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sites = [site.to_dict() for site in self.sites]
        return dict(self.figures) | plain_of(self, "inert rank width") | {"sites": sites}


@dataclass(frozen=True)
class Coverage:
    """What was compared. ``unscored`` biases have none of the roles (embeddings, heads)."""

    matched: int
    only_pre: tuple[str, ...]
    only_post: tuple[str, ...]
    unscored: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return plain_of(self, "matched only_pre only_post unscored")


@dataclass(frozen=True, repr=False)
class Scores(Shown):
    """The result of scoring one POST against one PRE.

    Attributes:
        pre: reference of PRE, and the digest of its biases.
        post: the same of POST.
        family: what the biases were recognised as.
        tower: which one is compared.
        method: key of `METHODS` that ranks.
        candidates: roles among which the target is chosen.
        target: the best candidate that can learn, or None.
        roles: role to its scores, best first.
        coverage: what was matched.
        notes: sentences that a reader of the numbers needs.
        changed: whether any compared bias differs.
        bytes_read: from the files of both sides so far; a PRE that several POSTs share counts in
            each.
        settings: of a Fisher score: how it was measured; None for comparisons.
    """

    pre: Identity
    post: Identity
    family: str
    tower: str
    method: str
    candidates: tuple[str, ...]
    target: str | None
    roles: Mapping[str, RoleScore]
    coverage: Coverage
    notes: tuple[str, ...] = ()
    changed: bool = True
    bytes_read: int = field(default=0, compare=False)
    settings: FisherFacts | None = None

    @property
    def sites(self) -> tuple[SiteScore, ...]:
        """All sites, role by role."""
        return tuple(site for role in self.roles.values() for site in role.sites)

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        from beftkit.scores.ranking import METHODS  # which needs the classes here

        best = None
        if self.target is not None:
            best = self.roles[self.target].figures[METHODS[self.method]]
        found = {"target": self.target, self.method: best, "family": self.family}
        counts = {"roles": len(self.roles), "vectors": len(self.sites)}
        return found | counts | {"pre": self.pre.path, "post": self.post.path}

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``beftkit score --format json``."""
        return document([self])

    def post_dict(self) -> dict[str, Any]:
        """What that document says of this POST."""
        what: dict[str, Any] = {"post": self.post.to_dict(), "target": self.target}
        what |= {"coverage": self.coverage.to_dict(), "notes": list(self.notes)}
        return {**what, "roles": {role: score.to_dict() for role, score in self.roles.items()}}

    def plot(self, path: str | PurePath | None = None) -> Any:
        """Draw roles x layers as a heat map, as ``beftkit score --plot``; needs matplotlib.

        Args:
            path: ``.png``, ``.svg`` or ``.pdf`` to write to; None: for a notebook to show.

        Returns:
            The path; or a picture, whose ``png`` holds its bytes.

        Raises:
            BeftError: another suffix, no matplotlib, or a path that cannot be written.
        """
        return maker("plot")(self, path)

    def to_pandas(self) -> Any:
        """One row per site as a `pandas.DataFrame`; needs pandas."""
        try:
            import pandas
        except ImportError:
            raise BeftError("to_pandas needs pandas: pip install 'beftkit[pandas]'") from None
        return pandas.DataFrame([{"role": site.role, **site.to_dict()} for site in self.sites])


def document(results: Sequence[Scores]) -> dict[str, Any]:
    """The JSON document of one PRE and its POSTs, one entry each."""
    first = results[0]
    what = {"pre": first.pre.to_dict()} | plain_of(first, "family tower method candidates")
    how = {"settings": first.settings.to_dict()} if first.settings else {}
    return headed({**what, **how, "posts": [one.post_dict() for one in results]})


def post_labels(results: Sequence[Scores]) -> list[str]:
    """A short name for each POST: the end of its path, as much of it as tells them apart."""
    paths = [one.post.path.rstrip("/").split("/") for one in results]
    for count in range(1, max(map(len, paths)) + 1):
        labels = ["/".join(path[-count:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return ["/".join(path) for path in paths]
