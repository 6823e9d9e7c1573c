"""A head over a base: what the files call the base model, and whose head the result has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from beftkit.adapters import AdapterInfo, layers_of
from beftkit.adapters.heads import task_of_class
from beftkit.adapters.tuned import SAVED_BY_TASK
from beftkit.checkpoints import Checkpoint
from beftkit.errors import BeftError
from beftkit.weights.plan import HeadFrame

#: ends of names of transformers' classes with a head: of a bare model any adapter may be
_WITH_HEAD = re.compile(r"For[A-Z][A-Za-z]*$")
#: PEFT's task type of adapters of a bare model, which may stand below any head
_BARE = "FEATURE_EXTRACTION"


def check_task(model: object, info: AdapterInfo) -> None:
    """Refuse an adapter that was trained for another task than a live model's class is of.

    A head over tokens has the names and shapes of one over a whole text, so tensors do not tell.

    Args:
        model: of transformers; a class of the user's own counts as what it is derived from.
        info: what the adapter says of itself.

    Raises:
        BeftError: it names both.
    """
    wanted = info.task_type
    if wanted in (None, _BARE):
        return
    names = [one.__name__ for one in type(model).__mro__]
    found = next(filter(None, map(task_of_class, names)), None)
    other = wanted in SAVED_BY_TASK and any(map(_WITH_HEAD.search, names))
    if wanted != found and (found is not None or other):
        raise BeftError(
            f"{info.reference}: was trained for PEFT's task type {wanted}, and this is a "
            f"{names[0]}{f', which is {found}' if found else ''}; give the model with the head "
            "that it was trained with"
        )


class HeadOver:
    """A model with a head, met with the files of its base.

    Args:
        frame: the model, as transformers says.
        base: the files.
        info: of the adapter, for messages.
        more: what the files have before the names of the base model's parts, and the model has not.

    Attributes:
        prefix: stands before every name of the base in the result: files of a bare model lack it.
    """

    def __init__(self, frame: HeadFrame, base: Checkpoint, info: AdapterInfo, more: str) -> None:
        self._frame, self._base, self._info, self._more = frame, base, info, more
        known = any(name.startswith(frame.prefix) or name in frame.names for name in base.tensors)
        self.prefix = "" if known else frame.prefix

    def is_head(self, name: str) -> bool:
        """Whether a tensor of the result is one of its head, or of a pooler before it."""
        frame, more = self._frame, self._more
        if "pooler" in name.split("."):
            return True
        if layers_of([name]) or name.startswith(frame.prefix):
            return False
        # Files may call the base model otherwise, or leave its name out.
        return name.partition(".")[0] not in frame.parts and not (more and name.startswith(more))

    def known(self, name: str) -> bool:
        """Whether the model has a tensor of this name."""
        return name in self._frame.names

    def dropped(self, kept: Collection[str]) -> frozenset[str]:
        """Tensors of the base's own head, where the result has another.

        Args:
            kept: names that the adapter brings or changes.
        """
        return frozenset(
            name
            for name in self._base.tensors
            if self.is_head(self.prefix + name)
            and self.prefix + name not in self._frame.names
            and name not in kept
        )

    def check(self, new: Iterable[str], dropped: Collection[str]) -> None:
        """Refuse a head that nobody trained, and a tensor that would be written twice.

        Args:
            new: names of the result that the base has not.
            dropped: names of the base that the result has not.

        Raises:
            BeftError: it names the tensor.
        """
        there = {self.prefix + name for name in self._base.tensors if name not in dropped}
        new = [*new]
        for name in new:
            if name in there:  # transformers would take the last one, silently
                raise BeftError(
                    f"{self._info.reference}: brings {name}, which {self._base.reference} has "
                    "under another name; merge this one with PEFT"
                )
        for name in sorted(self._frame.names - there - {*new}):
            if self.is_head(name):
                raise BeftError(
                    f"{self._base.reference}: holds no trained {name}, nor does "
                    f"{self._info.reference}, so answers would be drawn by lot; give a fine-tuned "
                    "base"
                )
