"""One checkpoint's biases to a document: a table of roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from beftkit.present.document import Document, Lines, Only, Table, numbers, texts
from beftkit.present.words import noted, number, source

if TYPE_CHECKING:
    from beftkit.inspection import Inspection


def inspection_document(found: Inspection) -> Document:
    """A checkpoint's biases: a row a role, tower and attention."""
    layers = ", ".join(f"{tower}: {number} layers" for tower, number in found.layers.items())
    lines = [
        source(found.checkpoint),
        f"{found.family}; {layers or 'no attention biases'}; "
        f"{len(found.unscored)} biases outside the roles",
    ]
    several = len({(role.tower, role.attention) for role in found.roles}) > 1
    columns = texts(*(["tower", "attention"] if several else []), folds=True)
    columns += [*texts("role"), *numbers("count", spare=1), *numbers("width")]
    columns += [*texts("dtype", spare=2), *numbers("mean norm", spare=3)]
    columns += [*numbers("min", "max", spare=4), *texts("inert")]
    rows, body = [], []
    for role in found.roles:
        width, dtype = _join(role.widths), _join(role.dtypes)
        rows.append({"role": role.role, **role.to_dict(), "width": width, "dtype": dtype})
        width += " (fused)" if role.fused else ""
        norms = map(number, (role.norm_mean, role.norm_min, role.norm_max))
        where = [role.tower, role.attention] if several else []
        cells = [role.role, str(role.count), width, dtype, *norms, role.inert]
        body.append([*where, *cells])
    table = Table(columns, body)
    notes = Only("table", Lines(noted(found.notes)))
    blocks = [Lines(lines), table if body else Only("markdown", table), notes]
    return Document(found.to_dict(), rows, blocks, found.notes)


def _join(values: Iterable[object]) -> str:
    return "/".join(map(str, values))
