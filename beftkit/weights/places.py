"""Which tensor of a base, as its files name it, an adapter's parameter is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from beftkit.adapters import endings, layers_of
from beftkit.biases import plain_name
from beftkit.biases.config import model_types
from beftkit.biases.renames import runtime_path


class Places:
    """A base's tensors, by the names that an adapter uses.

    Either side may have the task model's prefix (``bert.``); it is the same for all.

    Args:
        tensors: names in the base's files.
        config: its configuration: transformers renames the modules of some model types.
        parameters: what the adapter changes, by which the prefix is told.

    Attributes:
        lead: what the files' names lack at their front.
        more: what they have there, and the adapter has not.
    """

    def __init__(
        self, tensors: Iterable[str], config: Mapping[str, Any], parameters: Iterable[str]
    ) -> None:
        types = model_types(config)
        self._disk: dict[str, str] = {}
        for name in tensors:
            self._disk.setdefault(_runtime(name, types), name)
        self.lead, self.more = self._told([*parameters])

    def find(self, parameter: str) -> str | None:
        """The name in the base's files, or None."""
        if self.lead and not parameter.startswith(self.lead):  # a head, outside of the base model
            return self._disk.get(parameter)
        return self._disk.get(self.more + parameter.removeprefix(self.lead))

    def _told(self, parameters: list[str]) -> tuple[str, str]:
        """The prefixes under which most parameters are found, the shortest of them."""
        tails = {end for name in self._disk for end in endings(name)[1:4]}
        found: Counter[tuple[str, str]] = Counter()
        for parameter in parameters:
            names = [parameter, _sibling(parameter)]
            for name in names:
                if name in self._disk:
                    found["", ""] += 1
                for end in endings(name)[1:4]:
                    if end in self._disk and not layers_of([name[: -len(end)]]):
                        found[name[: -len(end)], ""] += 1
                for end in endings(name)[:2]:
                    lead = name[: -len(end)]
                    # What ends in no layer (a head's "bias") says nothing of prefixes.
                    if end not in tails or layers_of([lead]) or (lead and not layers_of([end])):
                        continue
                    for one in self._disk:
                        if one.endswith(f".{end}") and not layers_of([one[: -len(end)]]):
                            found[lead, one[: -len(end)]] += 1
        best = max(found.values(), default=0)
        return min(
            (one for one, count in found.items() if count == best),
            key=lambda one: (len("".join(one)), one),
            default=("", ""),
        )


def _sibling(parameter: str) -> str:
    """The weight beside a bias: a bias may be what the base lacks."""
    return f"{parameter.removesuffix('bias')}weight" if parameter.endswith(".bias") else parameter


def _runtime(name: str, types: frozenset[str]) -> str:
    """A tensor's name as the running model has it."""
    module, _, leaf = plain_name(name).rpartition(".")
    return f"{runtime_path(module, '', types)}.{'weight' if leaf == 'gamma' else leaf}".lstrip(".")
