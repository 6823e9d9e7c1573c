"""Whether a run that is taken up has the data and the base it was begun with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from beftkit.runs.prepare import Prepared
from beftkit.training import state
from beftkit.training.digests import UNKNOWN, base_digests, check_same, digesting, examples_digest


def inputs_of(ready: Prepared, beside: Callable[[], None]) -> dict[str, str]:
    """Digests by what they are of, before anything trains.

    The base's are made while ``beside`` is called, texts are tokenised and the model is brought to
    its device.
    """
    with digesting(ready.model, ready.loaded.fresh) as base:
        beside()
        ready.place()
        return {**_data_of(ready), **base()}


def validation_digest(ready: Prepared) -> str:
    """Of all validation examples, as the model reads them; empty where there are none."""
    labels = ready.objective.labels
    return " ".join(examples_digest(split, labels) for split in ready.validation.values())


def _data_of(ready: Prepared) -> dict[str, str]:
    digest = partial(examples_digest, labels=ready.objective.labels)
    found = {"the training examples": digest(ready.train)}
    for name, split in ready.validation.items():
        which = name.removeprefix("validation").strip("_")
        found[f"the {which and f'{which} '}validation examples"] = digest(split)
    return found


def check_runs(runs: Iterable[tuple[Path, Prepared]], say: Callable[[str], None]) -> None:
    """Refuse finished runs whose data or base have changed since.

    Args:
        runs: folder of each, and what it would be begun with now; all have one base.
        say: told where that is unknown.

    Raises:
        Refusal: something differs.
    """
    base: dict[str, str] = {}
    for folder, ready in runs:
        facts = state.newest_facts(folder)
        if facts is None:
            continue
        if not isinstance(facts.get("inputs"), dict):
            say(f"{folder}: {UNKNOWN}")
            continue
        base = base or base_digests(ready.model, ready.loaded.fresh)
        check_same(folder, facts["inputs"], {**_data_of(ready), **base})
