"""Whether what one task, model or place of a grid chooses is chosen elsewhere too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from beftkit.present.document import Block, Lines, Table, texts
from beftkit.present.pages.selections import Folder
from beftkit.present.selection import TITLES
from beftkit.present.verdicts import best_words
from beftkit.selection.results import Selection


def carried(folders: Sequence[Folder]) -> list[Block]:
    """The targets side by side, and in a sentence for each method how often they agree.

    Of one folder alone the places of its grid are looked at.
    """
    methods = [m for m in TITLES if any(m in one.found.targets for one in folders)]
    if len(folders) == 1:
        groups = folders[0].found.groups
        places = {m: [(group.target(m), group.label) for group in groups] for m in methods}
        said = [_agree(m, places[m], "places of the grid") for m in methods]
        return [Lines(said, bullets=True)]
    columns = texts("model and task", *(TITLES[m] for m in methods), "best candidate alone")
    body, said = [], []
    for one in folders:
        body.append([one.label, *(_target(one.found, m) for m in methods), _winner(one.found)])
    for m in methods:
        targets = [(one.found.targets.get(m), one.label) for one in folders]
        said.append(_agree(m, targets, "selections"))
    table = Table(columns, body, title="Target by method, most frequent over a folder's grid")
    return [table, Lines([*said, *_borrowed(folders)], bullets=True)]


def _agree(name: str, targets: Sequence[tuple[str | None, str]], what: str) -> str:
    method = TITLES[name]
    known = [(target, label) for target, label in targets if target]
    if not known:
        return f"{method}: no target anywhere."
    counts = Counter(target for target, _ in known)
    role, most = counts.most_common(1)[0]
    said = [f"{method}: {role} is the target on {most} of {len(known)} {what}"]
    for other in (other for other in counts if other != role):
        where = ", ".join(label for target, label in known if target == other)
        said.append(f"{other} on {where}")
    return "; ".join(said) + "."


def _borrowed(folders: Sequence[Folder]) -> list[str]:
    """For each verified place: whether the other folders' targets are its best candidate."""
    total = right = 0
    for one in folders:
        others = [other.found.target for other in folders if other is not one]
        for group in one.found.groups:
            if (winner := group.winner.best) is not None:
                total += len(others)
                right += sum(target == winner for target in others)
    if not total:
        return []
    return [
        f"Projection, borrowed: the target of another selection was the best candidate in {right} "
        f"of {total} cases (a case: one verified place and one other selection)."
    ]


def _target(found: Selection, method: str) -> str | None:
    target = found.targets.get(method)
    if target is None:
        return None
    chosen = [group.target(method) for group in found.groups]
    if set(chosen) == {target}:
        return target
    return f"{target} ({chosen.count(target)} of {len(chosen)} places)"


def _winner(found: Selection) -> str | None:
    verified = [best_words(group) for group in found.groups if group.verified]
    if not verified:
        return None
    counts = Counter(verified)
    several = len(counts) > 1
    shares = counts.most_common()
    return ", ".join(f"{k} ({n} of {len(verified)})" if several else k for k, n in shares)
