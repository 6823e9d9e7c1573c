"""One vector, or one set of parameters, for each row of a batch, at a module's output.

A hook adds ``b[k_i]`` to row i of what a module gives, where ``k_i`` is the row's variant: a table
``[K, D]`` in float32, whose first row is zeros, the model as it is. The sum is that of
`beftkit.tuning.added.AddingHook`, as PEFT forms it, with vectors from another holder. Which
dimension the rows are is looked at, never assumed: a model that puts tokens of several rows into
one dimension is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beftkit.errors import BeftError
from beftkit.tuning.added import AddingHook

if TYPE_CHECKING:
    import torch


class Ambiguous(BeftError):
    """As many tokens as rows, in a module of which nothing has shown yet which come first."""


class Rows:
    """Which variant each row of the batch at hand has; shared by the hooks of one model.

    Attributes:
        variants: of B rows; None: the hooks do nothing.
        widths: of each row's logits, where a head gave them different ones.
        ran: modules whose hooks ran since `begin`.
    """

    def __init__(self) -> None:
        self.variants: tuple[int, ...] | None = None
        self.widths: list[int] | None = None
        self.ran: set[str] = set()
        self.probing = False
        self._first: set[str] = set()  # modules whose first dimension is known to be the rows

    def begin(self, variants: Sequence[int], *, probing: bool = False) -> None:
        """From now on the rows are these.

        Args:
            variants: places in the tables, one for each row.
            probing: one row is run alone, to see where modules put it.
        """
        self.variants, self.probing = tuple(variants), probing
        self.widths = None
        self.ran.clear()

    def end(self) -> None:
        """The model is as it was."""
        self.variants, self.probing = None, False

    @property
    def alone(self) -> int | None:
        """The variant that all rows have, or None."""
        found = {*(self.variants or ())}
        return found.pop() if len(found) == 1 else None

    def check(self, path: str, output: torch.Tensor) -> None:
        """Make sure that the first dimension of a module's output ``[B, ..., D]`` is the rows.

        Raises:
            BeftError: it is something else.
            Ambiguous: it cannot be told at these sizes.
        """
        count, shape = len(self.variants or ()), tuple(output.shape)
        if shape[:1] != (count,):
            raise BeftError(
                f"{path}: gives {list(shape)} for {count} rows; where rows and tokens share a "
                "dimension, or rows are repeated (beams), none can have a vector of its own: use "
                "one name for the whole batch"
            )
        if self.probing or len(shape) < 3 or shape[1] != count:
            self._first.add(path)
        elif path not in self._first:
            raise Ambiguous(
                f"{path}: as many tokens as rows, {count}, so it cannot be told which dimension is "
                "which; pad by one more token"
            )


class RowVectors:
    """A hook that gives each row its own vector: a `beftkit.tuning.added.Holder`.

    Args:
        module: whose output ``[B, ..., D]`` it is.
        path: its name, for messages.
        rows: the batch at hand.
        width: D.
        variants: K.
    """

    def __init__(self, module: torch.nn.Module, path: str, rows: Rows, width: int, variants: int):
        import torch

        self.path, self.batch = path, rows
        self.table = torch.zeros(variants, width)
        self._used = [False] * variants
        self._sum = AddingHook(self)
        self._handle = module.register_forward_hook(self._add)

    def append(self, vector: torch.Tensor | None) -> None:
        """One variant more; None: it changes nothing here."""
        import torch

        new = torch.zeros(1, self.table.shape[1]) if vector is None else vector.reshape(1, -1)
        self.table = torch.cat([self.table, new.to(self.table.device, torch.float32)])
        self._used.append(vector is not None)

    def drop(self, variant: int) -> None:
        """One variant less; those behind it move up."""
        import torch

        self.table = torch.cat([self.table[:variant], self.table[variant + 1 :]])
        del self._used[variant]

    def wanted(self, variants: Sequence[int]) -> bool:
        """Whether any of these variants changes something here."""
        return any(self._used[one] for one in variants)

    def close(self) -> None:
        """Take it off."""
        self._handle.remove()

    def _add(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        variants = self.batch.variants
        if variants is None:
            return None
        if self.batch.probing or self.batch.alone is None:
            self.batch.check(self.path, output)
        self.batch.ran.add(self.path)
        if not self.wanted(variants):
            return None
        return self._sum(module, inputs, output)

    def rows(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        """What is added to ``[B, ..., D]``: ``[D]`` if all rows have one, else ``[B, 1.., D]``."""
        if self.table.device != output.device:
            self.table = self.table.to(output.device)
        if (alone := self.batch.alone) is not None:
            return self.table[alone]
        variants = self.batch.variants or ()
        mine = self.table[list(variants)]
        return mine.view(len(variants), *[1] * (output.dim() - 2), -1)


class RowModules:
    """A hook that runs a module again with each variant's own parameters, on that one's rows.

    Where variants give outputs of different widths (heads of different numbers of labels), rows
    are filled up with minus infinity, and `Rows.widths` says how much of each is its own.

    Args:
        module: whose parameters those are.
        path: its name, for messages.
        rows: the batch at hand.
        variants: K.
    """

    def __init__(self, module: torch.nn.Module, path: str, rows: Rows, variants: int):
        self.path, self.rows = path, rows
        self._own: list[Mapping[str, torch.Tensor] | None] = [None] * variants
        self._inside = False
        self._handle = module.register_forward_hook(self._replace)

    def append(self, parameters: Mapping[str, torch.Tensor] | None) -> None:
        """One variant more; None: it has the module as it is."""
        self._own.append(parameters)

    def drop(self, variant: int) -> None:
        """One variant less; those behind it move up."""
        del self._own[variant]

    def wanted(self, variants: Sequence[int]) -> bool:
        """Whether any of these variants changes something here."""
        return any(self._own[one] is not None for one in variants)

    def close(self) -> None:
        """Take it off."""
        self._handle.remove()

    def _replace(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        variants = self.rows.variants
        if variants is None or self._inside:
            return None
        if self.rows.probing or self.rows.alone is None:
            self.rows.check(self.path, output)
        self.rows.ran.add(self.path)
        if not self.wanted(variants):
            return None
        if (alone := self.rows.alone) is not None:
            found: torch.Tensor = self._run(module, alone, inputs)
            return found
        places: dict[int, list[int]] = {}
        for row, variant in enumerate(variants):
            places.setdefault(variant, []).append(row)
        parts = {
            k: output[at] if self._own[k] is None else self._run(module, k, (inputs[0][at],))
            for k, at in places.items()
        }
        return self._joined(places, parts)

    def _run(self, module: Any, variant: int, inputs: Any) -> Any:
        import torch

        like = next(module.parameters(recurse=False))
        own = {n: one.to(like.device, like.dtype) for n, one in (self._own[variant] or {}).items()}
        self._inside = True
        try:
            return torch.func.functional_call(module, own, inputs)
        finally:
            self._inside = False

    def _joined(
        self, places: Mapping[int, list[int]], parts: Mapping[int, torch.Tensor]
    ) -> torch.Tensor:
        """The rows in their order, filled up to the widest."""
        import torch

        first = next(iter(parts.values()))
        count, widths = sum(map(len, places.values())), {k: p.shape[-1] for k, p in parts.items()}
        whole = first.new_full((count, *first.shape[1:-1], max(widths.values())), -torch.inf)
        for variant, at in places.items():
            whole[at, ..., : widths[variant]] = parts[variant]
        if len({*widths.values()}) > 1:
            self.rows.widths = [widths[k] for k in self.rows.variants or ()]
        return whole
