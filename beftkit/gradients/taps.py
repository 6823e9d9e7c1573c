"""Gradients of module outputs, caught in the backward pass and summed as they come.

For ``y = f(x) + b`` the gradient of b is the sum of dL/dy over all places where b was added, so
the gradient of y holds every example's gradient of b (facts behind the method, section 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from beftkit.biases import ADDED
from beftkit.errors import BeftError

#: bytes of gradients that may wait for the next launch
BUDGET = 64 << 20
#: launches that stay prepared: shapes of batches, and groups that the budget makes
PREPARED = 128


#: where an output counts the R rows of a batch -> its gradient as ``[R, T, D]``
LAYOUTS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "[R, ..., D]": lambda grad, rows: grad.reshape(rows, -1, grad.shape[-1]),
    "[R, D, ...]": lambda grad, rows: grad.flatten(2).transpose(1, 2),
    "[T, R, D]": lambda grad, rows: grad.transpose(0, 1),
    "[R*T, D]": lambda grad, rows: grad.reshape(rows, -1, grad.shape[-1]),
    "[T*R, D]": lambda grad, rows: grad.reshape(-1, rows, grad.shape[-1]).transpose(0, 1),
}


def layouts_of(
    shapes: Sequence[tuple[int, Sequence[tuple[int, ...]]]], width: int | None = None
) -> list[str]:
    """The layouts that some outputs can have.

    Args:
        shapes: how many rows a batch had, and the shapes of the outputs it gave; of two batches or
            more that differ in their examples alone.
        width: of the bias, D; without it the last dimension is taken for its place.
    """

    def all_are(fits: Callable[[int, tuple[int, ...]], bool]) -> bool:
        return all(seen and all(fits(rows, shape) for shape in seen) for rows, seen in shapes)

    def at(shape: tuple[int, ...], place: int) -> bool:
        return width is None or shape[place] == width

    found = []
    if all_are(lambda rows, shape: len(shape) > 1 and shape[:1] == (rows,) and at(shape, -1)):
        found.append("[R, ..., D]")
    if width and all_are(lambda rows, shape: len(shape) > 2 and shape[:2] == (rows, width)):
        found.append("[R, D, ...]")  # a convolution's channels
    if all_are(lambda rows, shape: len(shape) == 3 and shape[1] == rows):
        found.append("[T, R, D]")
    if all_are(lambda rows, shape: len(shape) == 2 and shape[0] % rows == 0):
        tokens = {shape[0] // rows for rows, seen in shapes for shape in seen}
        if len(tokens) == 1 and tokens != {1}:
            found += ["[R*T, D]", "[T*R, D]"]
    return found


class Tap:
    """One module whose output has a bias added last.

    Attributes:
        name: of the parameter.
        module: the module.
        layouts: keys of `LAYOUTS` that its output can have; the first is used.
        total: float64 ``[D]``, sum over examples of the squared gradient.
        calls: how often the current forward pass used the module.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module
        self.layouts = ["[R, ..., D]"]
        self.total: Tensor | None = None
        self.calls = 0
        self.single: Tensor | None = None  # [N, D], where one forward pass used the module twice

    def shaped(self, grad: Tensor, rows: int) -> Tensor:
        """The gradient as ``[R, T, D]``."""
        try:
            shaped = LAYOUTS[self.layouts[0]](grad, rows)
        except RuntimeError:
            shaped = grad[:0]
        if len(shaped) != rows:
            raise BeftError(
                f"{self.name}: its output {list(grad.shape)} does not count the {rows} rows of "
                f"its batch as {self.layouts[0]}, which it did before"
            )
        return shaped

    def add(self, squares: Tensor) -> None:
        """Add to the total."""
        # A launch's results lie where its next ones will.
        self.total = squares.clone() if self.total is None else self.total + squares


def add_all(found: Sequence[tuple[Tap, Tensor]], keep: bool) -> None:
    """Add to the totals of taps, in few launches.

    Args:
        found: taps of one device, and sums of their squares.
        keep: these lie where nothing else will: a first one is the total, as it is.
    """
    first = [(tap, one) for tap, one in found if tap.total is None]
    more = [(tap.total, one) for tap, one in found if tap.total is not None]
    if more:
        torch._foreach_add_([total for total, _ in more], [one for _, one in more])
    for tap, one in first:
        tap.total = one if keep else one.clone()


class Taps:
    """The modules of a model whose biases are wanted.

    Args:
        model: a module.
        names: parameters, by the model's own names.
        budget: bytes of gradients that may wait to be summed in one launch.
        backend: of `beftkit_kernels.example_square_sums`.

    Attributes:
        taps: by parameter; several modules may share one, each has its tap.
        alone: parameters that no module adds as its ``bias``.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], budget: int = BUDGET, backend: str = "auto"
    ) -> None:
        self.budget, self.backend = budget, backend
        parameters = dict(model.named_parameters(remove_duplicate=False))
        owners: dict[int, list[nn.Module]] = {}
        for module in model.modules():
            # An added bias is added by a hook that runs before a tap's.
            for bias in (getattr(module, "bias", None), getattr(module, ADDED, None)):
                if isinstance(bias, Tensor):
                    owners.setdefault(id(bias), []).append(module)
        of = {name: owners.get(id(parameters[name]), []) for name in names}
        self.taps = [Tap(name, mine[0]) for name, mine in of.items() if len(mine) == 1]
        # Free, or of several modules, whose gradients would have to be added first.
        self.alone = [name for name, mine in of.items() if len(mine) != 1]
        self._prepared: dict[Any, Any] = {}
        self._recording, self._launched = False, 0
        self._waiting: list[tuple[Tap, Tensor]] = []
        self._bytes = 0

    def refuse(self, names: Sequence[str]) -> None:
        """Give up the taps of these parameters; they are then `alone`."""
        gone = set(names)
        self.taps = [tap for tap in self.taps if tap.name not in gone]
        self.alone += names

    @contextmanager
    def preparing(self) -> Iterator[dict[Any, Any]]:
        """Launches of passes within are prepared for themselves: a graph keeps them to its end.

        Each launch of a pass is another one, however alike they are: a graph brings the addresses
        of each to the device once, and what it found lies there until the next replay.
        """
        before, self._prepared, self._recording = self._prepared, {}, True
        try:
            yield self._prepared
        finally:
            self._prepared, self._recording = before, False

    @contextmanager
    def shapes(self) -> Iterator[Mapping[str, list[tuple[int, ...]]]]:
        """The shapes of the outputs of every forward pass within."""
        found: dict[str, list[tuple[int, ...]]] = {tap.name: [] for tap in self.taps}

        def seen(tap: Tap) -> Any:
            def hook(module: nn.Module, given: Any, output: Any) -> None:
                found[tap.name].append(tuple(output.shape) if isinstance(output, Tensor) else ())

            return hook

        handles = [tap.module.register_forward_hook(seen(tap)) for tap in self.taps]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def catching(self, rows: int, index: Tensor | None, examples: int) -> Iterator[None]:
        """Sum the squares of one forward and backward pass within.

        Args:
            rows: of the batch, R.
            index: int64 [R], examples of the rows; None: each row is one.
            examples: of the batch, N.
        """
        self._place = rows, index, examples
        self._in_backward, self._launched = False, 0
        for tap in self.taps:
            tap.calls, tap.single = 0, None
        handles = [tap.module.register_forward_hook(self._forward(tap)) for tap in self.taps]
        try:
            yield
            self._flush()
            for tap in self.taps:
                if tap.single is not None:
                    tap.add(tap.single.square().sum(0))
        finally:
            self._waiting, self._bytes = [], 0
            for tap in self.taps:
                tap.single = None
            for handle in handles:
                handle.remove()

    def _forward(self, tap: Tap) -> Any:
        def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled():
                return None
            if not self._in_backward:  # else a checkpointed layer runs again, for its graph alone
                tap.calls += 1
            started = None
            if not output.requires_grad:
                # The graph begins here: nothing below the first bias is kept or differentiated.
                started = output = output + output.new_zeros((), requires_grad=True)
            output.register_hook(lambda grad: self._caught(tap, grad))
            return started

        return hook

    def _caught(self, tap: Tap, grad: Tensor) -> None:
        self._in_backward = True
        self._waiting.append((tap, tap.shaped(grad, self._place[0])))
        self._bytes += grad.numel() * grad.element_size()
        if self._bytes >= self.budget:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        _, index, examples = self._place
        by_device: dict[Any, list[tuple[Tap, Tensor]]] = {}
        for tap, grad in waiting:
            by_device.setdefault(grad.device, []).append((tap, grad))
        for held in by_device.values():
            several = any(tap.calls > 1 for tap, _ in held)
            grads = [grad for _, grad in held]
            sums = self._launch(grads, index, examples, several).run(grads)
            found = []
            for (tap, _), one in zip(held, sums, strict=True):
                if tap.calls > 1:
                    assert one.examples is not None
                    mine = one.examples.double()
                    tap.single = mine.clone() if tap.single is None else tap.single + mine
                else:
                    found.append((tap, one.total))
            add_all(found, keep=self._recording)

    def _launch(
        self, grads: Sequence[Tensor], index: Tensor | None, examples: int, several: bool
    ) -> Any:
        """The kernel, prepared once for gradients of such shapes."""
        from beftkit_kernels import SquareSums

        owners = None if index is None else tuple(index.tolist())
        aligned = all(grad.data_ptr() % 16 == 0 for grad in grads)
        layout = tuple((grad.shape, grad.stride(), grad.dtype, grad.device) for grad in grads)
        number = self._launched if self._recording else 0
        self._launched += 1
        key = number, layout, owners, examples, several, aligned
        if key not in self._prepared:
            if len(self._prepared) >= PREPARED and not self._recording:
                self._prepared.clear()
            how: dict[str, Any] = {"examples": examples, "per_example": several}
            how["once"] = not self._recording  # nothing is pinned for what no graph reads
            self._prepared[key] = SquareSums(grads, index, **how, backend=self.backend)
        return self._prepared[key]
