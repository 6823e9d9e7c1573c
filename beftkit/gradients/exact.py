"""Exact per-example squares: one backward pass of the summed losses of a batch.

What one pass cannot give (a projection applied to something without the example dimension, a bias
that no module adds) is found out beforehand, by shape and by comparing with autograd on single
examples, and then measured example by example.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from beftkit.accelerator import steady_attention
from beftkit.errors import BeftError
from beftkit.gradients.captured import Captured, Graphs, hindrance, of_gpu
from beftkit.gradients.losses import Losses, negative_log_likelihoods
from beftkit.gradients.modes import checkpointed, frozen
from beftkit.gradients.rows import AnyBatch, Rows, as_batch
from beftkit.gradients.taps import BUDGET, Taps, layouts_of

Autocast = Callable[[], AbstractContextManager[Any]]
#: losses are multiplied by this in float16, and by half of it whenever that is too much
FIRST_SCALE = 2.0**16
#: dtype -> how far squares of one pass may be from those of single examples: relative; and
#: relative to the largest of all biases (an inert bias holds nothing but rounding)
_TOLERANCES = {
    torch.float64: (1e-8, 1e-20),
    torch.float32: (1e-3, 1e-10),
    torch.bfloat16: (0.5, 1e-3),
    torch.float16: (0.2, 1e-4),
}


@dataclass(frozen=True)
class Squares:
    """Sums over examples of squared per-example gradients.

    Attributes:
        sums: parameter to float64 ``[D]``, on its device.
        examples: how many were summed.
        alone: parameters that were measured one example at a time.
    """

    sums: dict[str, Tensor]
    examples: int
    alone: tuple[str, ...]


def example_squares(
    model: nn.Module,
    names: Sequence[str],
    batches: Iterable[Any],
    losses: Losses = negative_log_likelihoods,
    *,
    probe: AnyBatch | None = None,
    autocast: Autocast = nullcontext,
    half: torch.dtype | None = None,
    budget: int = BUDGET,
    backend: str = "auto",
    gradient_checkpointing: bool = False,
    graphs: Graphs = "auto",
    recurring: Collection[tuple[int, int]] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Squares:
    """Sum over examples of (d -log p(y_i | x_i) / d b)^2, for many biases at once.

    The model is put into evaluation mode and frozen meanwhile; modes, ``requires_grad`` and hooks
    are as before afterwards, also after an error. Squares are summed in float64.

    Args:
        model: on its device.
        names: parameters, by the model's own names: 1-D, each the ``bias`` of a module or free.
        batches: see `as_batch`.
        losses: gives -log p of each example of a batch, ``[N]``; without it by `negative_log_
            likelihoods`.
        probe: a batch with two examples or more to try things out on; by default two of the first
            batch.
        autocast: entered around the forward pass.
        half: the dtype of that autocast, where it is a half-precision one.
        budget: bytes of gradients that are held for one launch of the kernel.
        backend: of the kernel, ``auto``, ``triton`` or ``torch``.
        gradient_checkpointing: compute activations twice instead of keeping them.
        graphs: replay passes of shapes that recur as CUDA graphs: auto, on GPUs; on, every shape,
            and on the CPU by a stand-in; off, nowhere.
        recurring: rows and width of batches that will come often; None: see how often they come.
        note: told why passes are not captured, where something is in the way.

    Raises:
        BeftError: no examples; the losses are no sum over examples; a gradient that is not finite.
    """
    device = next(model.parameters()).device
    arriving = (as_batch(one, device) for one in batches)
    first = next(arriving, None)
    if first is None:
        raise BeftError("no batches were given; expected at least one example")
    taps = Taps(model, names, budget, backend)
    lowest = half or next(model.parameters()).dtype
    call = partial(_losses, model, losses, autocast)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    scale = FIRST_SCALE if lowest == torch.float16 else 1.0
    measure = _Measure(taps, call, parameters, scale)
    wanted = graphs == "on" or (graphs == "auto" and of_gpu(device))
    reason = hindrance(model, lowest) if wanted else None
    again = checkpointed(model) if gradient_checkpointing else nullcontext()
    with frozen(model), again, steady_attention(device):
        pair = _pair(as_batch(probe, device) if probe is not None else first)
        _drop_unfit(model, pair, measure, lowest)
        if wanted and reason is None and taps.taps:
            measure.captured = Captured(model, taps, call, recurring, graphs == "on")
        examples = 0
        try:
            for rows in chain([first], arriving):
                measure.batch(rows)
                examples += rows.examples
        finally:
            if measure.captured is not None:
                measure.captured.close()
        if measure.captured is not None:
            measure.reached |= measure.captured.reached
            reason = measure.captured.why
    if reason is not None:
        note(f"passes go on eagerly, none is captured: {reason}")
    sums = {tap.name: _total(tap.total, parameters[tap.name]) for tap in taps.taps}
    sums |= measure.singles()
    check_finite(sums)
    if names and not measure.reached:
        raise BeftError(
            f"{type(model).__name__}: no example's loss depends on {names[0]}, nor on any other"
            " bias that was to be measured; do these examples go through another tower (--tower)?"
        )
    return Squares({name: sums[name] for name in names}, examples, tuple(taps.alone))


def check_finite(sums: Mapping[str, Tensor]) -> None:
    """Refuse sums of squares that no finite gradient gives."""
    if _all_finite(sums.values()):
        return
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise BeftError(f"{name}: its gradient is not finite; did the model diverge?")


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all are; of each device one value is waited for."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for one in tensors:
        by_device.setdefault(one.device, []).append(one.flatten())
    return all(bool(torch.isfinite(torch.cat(some)).all()) for some in by_device.values())


def _read(scalars: Iterable[Tensor]) -> list[float]:
    """Numbers that may lie on several devices, in one copy back."""
    some = [*scalars]
    return torch.stack([one.to(some[0].device) for one in some]).tolist() if some else []


@dataclass
class _Measure:
    """Sums what batches give."""

    taps: Taps
    losses: Callable[[Rows], Tensor]
    parameters: dict[str, nn.Parameter]
    scale: float
    reached: bool = False  # some loss depended on some of the biases
    captured: Captured | None = None
    _alone: dict[str, Tensor] = field(default_factory=dict)

    def batch(self, rows: Rows) -> None:
        """Add one batch."""
        if self.captured is None or not self.captured.add(rows):
            while not self.tapped(rows):
                self.scale /= 2
        for example in range(rows.examples if self.taps.alone else 0):
            for name, grad in self.alone(rows.take([example]), self.taps.alone)[1].items():
                self._alone[name] = grad.square() + self._alone.get(name, 0)

    def singles(self) -> dict[str, Tensor]:
        """What was measured one example at a time."""
        return {name: self._alone[name] for name in self.taps.alone}

    def alone(self, one: Rows, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one example and its gradients, float64, by plain autograd."""
        wanted = [self.parameters[name] for name in names]
        if not names:
            with torch.no_grad():
                return self.losses(one).sum(), {}
        for parameter in wanted:
            parameter.requires_grad_(True)
        try:
            while True:
                loss = self.losses(one).sum()
                found: Sequence[Tensor | None] = [None] * len(wanted)
                if loss.requires_grad:  # else none of them takes part
                    found = torch.autograd.grad(loss * self.scale, wanted, allow_unused=True)
                self.reached |= any(grad is not None for grad in found)
                grads = {
                    name: torch.zeros_like(parameter, dtype=torch.float64)
                    if grad is None
                    else grad.double() / self.scale
                    for name, parameter, grad in zip(names, wanted, found, strict=True)
                }
                if self.scale == 1 or _all_finite(grads.values()):
                    return loss.detach(), grads
                self.scale /= 2
        finally:
            for parameter in wanted:
                parameter.requires_grad_(False)

    def tapped(self, rows: Rows) -> bool:
        """One pass of all examples; False: float16 overflowed, and nothing was added."""
        taps = self.taps
        if not taps.taps:
            return True
        # With a scale the pass stands alone until it is known to be finite.
        before = {tap: tap.total for tap in taps.taps if self.scale != 1}
        for tap in before:
            tap.total = None
        with taps.catching(rows.rows, rows.index, rows.examples):
            loss = self.losses(rows).sum() * self.scale
            if loss.requires_grad:
                loss.backward()
        found = (tap.total for tap in taps.taps if tap.total is not None)
        if self.scale > 1 and not _all_finite(found):
            for tap, total in before.items():
                tap.total = total
            return False
        self.reached |= any(tap.total is not None for tap in taps.taps)
        for tap, total in before.items():
            if tap.total is not None and self.scale != 1:
                tap.total = tap.total / self.scale**2
            if total is not None:
                tap.add(total)
        return True


def _losses(model: nn.Module, losses: Losses, autocast: Autocast, rows: Rows) -> Tensor:
    with autocast():
        found = losses(model, rows.given)
    if found.shape != (rows.examples,):
        raise BeftError(
            f"the losses of {type(model).__name__} have shape {list(found.shape)}, expected one "
            f"for each of {rows.examples} examples: their mean or sum cannot be taken apart"
        )
    return found if found.dtype == torch.float64 else found.float()


def _pair(rows: Rows) -> Rows:
    return rows.take([0, 1] if rows.examples > 1 else [0, 0])


def _drop_unfit(model: nn.Module, pair: Rows, measure: _Measure, dtype: torch.dtype) -> None:
    """Hold one pass of two examples to autograd on each; what differs is measured alone.

    The shapes of outputs with one example and with two tell where they count rows.
    """
    taps = measure.taps
    names = [tap.name for tap in taps.taps]
    with taps.shapes() as seen, torch.no_grad():
        together = measure.losses(pair)
    shapes, apart = [(pair.rows, seen)], []
    expected: dict[str, Tensor] = {}
    for at in range(2):
        single = pair.take([at])
        with taps.shapes() as seen:
            loss, grads = measure.alone(single, names)
        shapes.append((single.rows, seen))
        apart.append(loss)
        for name, grad in grads.items():
            expected[name] = grad.square() + expected.get(name, 0)
    _check_apart(model, together, torch.stack(apart).to(together.device), measure, dtype)
    for tap in taps.taps:
        width = len(measure.parameters[tap.name])
        tap.layouts = layouts_of([(rows, found[tap.name]) for rows, found in shapes], width)
    taps.refuse([tap.name for tap in taps.taps if not tap.layouts])
    relative, noise = _TOLERANCES.get(dtype, _TOLERANCES[torch.float32])
    sizes = dict(zip(expected, _read(one.sum() for one in expected.values()), strict=True))
    largest = max(sizes.values(), default=0.0)
    off = taps.taps
    while off:
        while not measure.tapped(pair):
            measure.scale /= 2
        off = []
        found = [_total(tap.total, measure.parameters[tap.name]) for tap in taps.taps]
        gaps = _read(
            (one - expected[tap.name]).abs().sum()
            for tap, one in zip(taps.taps, found, strict=True)
        )
        for tap, gap in zip(taps.taps, gaps, strict=True):
            if not gap <= relative * sizes[tap.name] + noise * largest:
                off.append(tap)
            tap.total = None
        for tap in off:
            del tap.layouts[0]
        taps.refuse([tap.name for tap in off if not tap.layouts])


def _check_apart(
    model: nn.Module, together: Tensor, apart: Tensor, measure: _Measure, dtype: torch.dtype
) -> None:
    """Refuse losses that are not finite, or that depend on the other examples of a batch."""
    kind = type(model).__name__
    if not torch.isfinite(apart).all():
        raise BeftError(_not_finite(kind, measure.parameters))
    tolerance = _TOLERANCES.get(dtype, _TOLERANCES[torch.float32])[0] ** 0.5
    if not torch.allclose(together, apart, rtol=tolerance, atol=tolerance):
        raise BeftError(
            f"{kind}: the loss of an example depends on the others of its batch ("
            f"{together[0]:.6g} beside another, {apart[0]:.6g} alone), so it has no Fisher score "
            "of its own; use batches of one example"
        )


def _not_finite(kind: str, parameters: Mapping[str, nn.Parameter]) -> str:
    for name, parameter in parameters.items():
        if not torch.isfinite(parameter).all():
            return f"{name}: holds values that are not finite; did the model diverge?"
    return f"{kind}: the loss of an example is not finite; did the model diverge, or overflow?"


def _total(total: Tensor | None, parameter: nn.Parameter) -> Tensor:
    """A sum, zeros where no example ever reached the bias."""
    return torch.zeros_like(parameter, dtype=torch.float64) if total is None else total
