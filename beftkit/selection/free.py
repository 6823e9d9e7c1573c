"""Methods that cost no more than the probe, or nothing: what a selection has to be better than.

``adam``: the second moment of Adam at the probe's end, a Fisher diagonal for free (arXiv
2507.18807): a running mean of squared gradients, of batches and clipped, where the Fisher score has
each example's own. ``norm``: ‖pre‖, which needs no training. ``always-v``: b_v, whatever was
measured, as the paper's final version has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beftkit.errors import BeftError
from beftkit.objectives import objective_of
from beftkit.runs.prepare import choose_parts
from beftkit.runs.results import TrainResult
from beftkit.scores import Scores, best_first, contenders
from beftkit.selection.ranks import ADAM, ALWAYS, NORM, MethodTable, RoleRank
from beftkit.settings.select import SelectSettings
from beftkit.tasks import Data
from beftkit.training.state import load_state
from beftkit.tuning import Choice

#: role, tower, attention, layer of a site
Place = tuple[str, str, str, int]


def free_methods(
    read: Scores, probe: TrainResult, data: Data, settings: SelectSettings
) -> dict[str, MethodTable]:
    """Each of them of one probe; ``adam`` where the run's last state is there.

    Args:
        read: the probe against its base, for sites, norms and what is inert.
        probe: its run, with the state that it ended in.
        data: that it trained on.
        settings: candidates, and whether an inert one may be a target.
    """
    norms = {_place(site): site.figures["norm_pre"] for site in read.sites}
    found = {NORM: _table(norms, read, settings)}
    if moments := second_moments(probe, data):
        found[ADAM] = _table(moments, read, settings)
    v = "v" if "v" in settings.candidates and "v" in read.roles else None
    return {**found, ALWAYS: MethodTable(v, {})}


def second_moments(probe: TrainResult, data: Data) -> dict[Place, float]:
    """Of each site the mean over coordinates of Adam's second moment at the end of a run.

    It is corrected for its start at zero (by 1 - beta2^updates). Empty where the run's last state
    is not there.
    """
    run, s = probe.runs[0], probe.settings
    there = load_state(Path(str(run.folder)), lambda _: None)
    if there is None or there[1]["progress"]["step"] != run.steps or not run.steps:
        return {}
    model = objective_of(data).skeleton(s)
    choice = choose_parts(s, model, run.seed)
    return moments_of(choice, there[0], 1 - s.beta2**run.steps)


def moments_of(choice: Choice, tensors: Mapping[str, Any], correction: float) -> dict[Place, float]:
    """The same from what trained and the tensors of its state.

    Raises:
        BeftError: the state is that of another choice.
    """
    found = {}
    for index, part in enumerate(choice.parts):
        if not part.sites:
            continue
        whole = tensors.get(f"adam.{index}.exp_avg_sq")
        if whole is None or whole.numel() != part.size:
            raise BeftError(f"{part.parameter}: the run's state holds no second moment of its size")
        begin = 0
        for site in part.sites:
            # Slices that train without the rest have values of their own, one after the other.
            sliced = bool(part.positions)
            cut = whole[begin : begin + site.width] if sliced else site.take(whole)
            begin += site.width if sliced else 0
            found[_place(site)] = float(cut.double().mean()) / correction
    return found


def _place(site: Any) -> Place:
    return site.role, site.tower, site.attention, site.layer


def _table(
    values: Mapping[Place, float | None], read: Scores, settings: SelectSettings
) -> MethodTable:
    """Roles by the mean over their sites, ranked as by any other method."""
    layers: dict[str, tuple[float | None, ...]] = {}
    for role, one in read.roles.items():
        layers[role] = tuple(values.get(place) for place in sorted(map(_place, one.sites)))
    scores = {role: _mean(some) for role, some in layers.items()}
    inert = {role: one.inert for role, one in read.roles.items()}
    roles = {}
    for rank, role in enumerate(best_first(scores, inert), start=1):
        score, one = scores[role], read.roles[role]
        what = score, None if score is None else rank, one.inert, one.width
        roles[role] = RoleRank(*what, one.figures["norm_pre"], layers[role])
    there = [role for role in settings.candidates if scores.get(role)]  # zero: not measured
    can = contenders(there, scores, inert, settings.allow_inert)
    return MethodTable(can[0] if can else None, roles)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
