"""What a selection comes to, in words: which bias, how sure that is, and against what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from beftkit.present.words import MEANING, fixed

if TYPE_CHECKING:
    from beftkit.selection import GroupResult, Selection
    from beftkit.selection.verdicts import Contrast, Verdict

NOTHING = "train longer, with another lr, or on more data"


def verdict_word(group: GroupResult) -> str | None:
    """A place's verdict in some words; of scores alone where nothing was verified."""
    verdict, lead = group.verdict, group.leading.margin
    if verdict is None:
        if lead is None:
            return None
        sure = "too close to call" if lead.close else "clear"
        return f"score alone: {'no interval' if lead.low is None else sure}"
    if verdict.recommended is None:
        return "no candidate beats none" if verdict.best else "no metric"
    best = f"{best_words(group)} best"
    if verdict.answer == "other":
        best += f", not {group.leading.target}" if group.leading.target else ""
    return best if verdict.proven else f"{best}, not told apart from none"


def best_words(group: GroupResult) -> str:
    """The best candidate when trained alone; those that tie by name."""
    best = group.verdict.best if group.verdict else ()
    return best[0] if len(best) == 1 else f"{listed(best)} tie" if best else "none"


def listed(names: Iterable[str]) -> str:
    """``q, k and v``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def contrast_words(one: Contrast) -> str:
    """By how much the first did better, over how many seeds, and whether that tells them apart."""
    other = "the control none" if one.second == "none" else one.second
    by = f"{abs(one.value):.4f} {'better' if one.value > 0 else 'worse'} than {other}"
    by = by if one.value else f"level with {other}"
    over = f"over {one.seeds} seed{'s' * (one.seeds != 1)}"
    apart = "told apart" if one.told_apart else "not told apart"
    if one.standard_error is None:
        return f"{by} {over}, {apart} (its standard error is not known)"
    return f"{by} {over}, {apart} (two standard errors over {one.over}: {_two(one):.4f})"


def moved_words(found: Selection, group: GroupResult) -> str:
    """How far the score's target moved among all roles that were measured."""
    table = group.leading
    target, ahead = str(table.target), table.ahead
    score = table.roles[target].score
    if group.method == "fisher":
        return _fisher_words(found, group)
    ratio = "" if score is None else f", projection ratio {score:.4g}"
    if not ahead:
        return f"it moved most{ratio}"
    among = [role for role in found.candidates if role in table.roles and role not in ahead]
    what = f"moved most of {', '.join(among)}" if len(among) > 1 else "is the only candidate left"
    more = [f"{role} (inert)" if table.roles[role].inert == "yes" else role for role in ahead]
    return f"it {what}{ratio}; {listed(more)} moved more"


def _fisher_words(found: Selection, group: GroupResult) -> str:
    """The same by Fisher, and which of them moved most when they trained."""
    table = group.leading
    among = [role for role in found.candidates if role in table.roles]
    score = table.roles[str(table.target)].score
    best = "" if score is None else f" ({score:.3g})"
    said = f"its Fisher score{best} is the highest of {listed(among)}"
    most = group.target("magnitude")
    return said + (f"; by magnitude it is {most}" if most and most != table.target else "")


def score_words(found: Selection, group: GroupResult) -> list[str]:
    """The advice of a score alone; a lead that may be none is no advice."""
    target, lead = str(group.leading.target), group.leading.margin
    roles = group.leading.roles
    named, moved = named_bias(target), moved_words(found, group)
    if lead is not None and lead.close:
        interval = f"95 % interval {lead.low:.4g} to {lead.high:.4g} over {lead.over or 'layers'}"
        return [
            f"By score alone {named} comes first: {moved}.",
            f"Its lead over {lead.runner_up} is not told apart from zero ({interval}).",
        ]
    said = ""
    mine, other = roles[target].score, roles[lead.runner_up].score if lead else None
    if lead and mine and other:
        said = f"; {mine / other:.3g} times the runner-up {lead.runner_up}"
        said += " (one layer, one seed: no interval)" if lead.low is None else ""
    return [f"Train {named}: {moved}{said}."]


def verified_words(found: Selection, group: GroupResult, verdict: Verdict) -> list[str]:
    """What the metrics say of one place: they outrank the score."""
    target, bias = group.leading.target, verdict.recommended
    known = ", ".join(role for role in found.candidates if role in verdict.candidates)
    if bias is None:
        lines = [f"Nothing to recommend: {nothing_words(found, group, verdict)}: {NOTHING}."]
    else:
        sure = (
            f"Train {named_bias(bias)}" if verdict.proven else f"If any, train {named_bias(bias)}"
        )
        reached = f"trained alone it reached {found.metric} {fixed(group.reached(bias))}"
        best = f"the best of {known}"
        if len(verdict.best) > 1:
            best = f"as {listed(one for one in verdict.best if one != bias)} did"
        lines = [f"{sure}: {reached}, {best}."]
        if verdict.control:
            lines.append(f"It did {contrast_words(verdict.control)}.")
        else:
            lines.append("There is no metric of the control none to compare it with.")
        lines += _no_better_words(found, group, bias)
    if verdict.behind:
        where = f"The score's target {target} reached {fixed(group.reached(str(target)))}"
        lines.append(f"{where}: {verdict.behind.first} did {contrast_words(verdict.behind)}.")
    elif target in verdict.best and bias is not None:
        lines.append(f"It is the score's target as well: {moved_words(found, group)}.")
    if verdict.next and not verdict.behind and bias is not None:
        lines.append(f"Of the candidates it did {contrast_words(verdict.next)}.")
    return [*lines, *_inert_words(found, group, verdict), *stayed_words(group)]


def _no_better_words(found: Selection, group: GroupResult, bias: str) -> list[str]:
    """A recommendation that a constant prediction equals."""
    reached, same = group.reached(bias), group.baseline
    if reached is None or same is None:
        return []
    ahead = reached - same if found.higher_is_better else same - reached
    return (
        [f"That is no better than the baseline ({group.baseline_is} {fixed(same)})."]
        if ahead <= 1e-9
        else []
    )


def _inert_words(found: Selection, group: GroupResult, verdict: Verdict) -> list[str]:
    """A candidate that learns nothing and yet did better than those that do."""
    sign = 1 if found.higher_is_better else -1
    best = group.reached(verdict.best[0]) if verdict.best else None
    left = [role for role in found.candidates if role not in verdict.candidates]
    known = [(role, value) for role in left if (value := group.reached(role)) is not None]
    ahead = [role for role, value in known if best is None or sign * (value - best) > 0]
    inert = [role for role in ahead if group.projection.roles[role].inert == "yes"]
    return [f"{role} did better, but is inert: that is the head, and chance." for role in inert]


def nothing_words(found: Selection, group: GroupResult, verdict: Verdict) -> str:
    """Why nothing is recommended."""
    if not verdict.best:
        return f"no candidate that can learn has a {found.metric} in every run"
    known = listed(role for role in found.candidates if role in verdict.candidates)
    known = f"none of {known} beats" if len(verdict.candidates) > 1 else f"{known} does not beat"
    known += " the control none"
    best = verdict.best[0]
    reached = f"{listed(verdict.best)} reached {fixed(group.reached(best))}"
    return f"{known} ({reached}, none {fixed(group.reached('none'))})"


def stayed_words(group: GroupResult) -> list[str]:
    """Which runs never left their baseline."""
    stayed = group.verdict.stayed if group.verdict else ()
    if not stayed:
        return []
    value = "" if group.baseline is None else f" ({group.baseline_is} {fixed(group.baseline)})"
    return [f"Trained with {listed(stayed)} the model never left its baseline{value}."]


def named_bias(role: str) -> str:
    """``b_v (value)``."""
    return f"b_{role} ({MEANING.get(role, 'raw name')})"


def _two(one: Contrast) -> float:
    return 2 * (one.standard_error or 0.0)
