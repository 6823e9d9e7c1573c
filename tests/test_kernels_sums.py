"""What `example_square_sums` promises: how exact sums are, and which addresses a launch reads."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from beftkit_kernels import example_square_sum
from tests.kernels_cases import randn

pytestmark = pytest.mark.usefixtures("poisoned")
Engine = tuple[str, str]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("index", [None, [0, 2, 2, 1, 0, 2]], ids=str)
def test_the_bound_that_is_stated(index: list[int] | None, dtype: str, engine: Engine) -> None:
    """Against exact sums, of tokens that are far apart in size and cancel."""
    backend, device = engine
    grad = randn(6, 67, 16, seed=13)
    powers = torch.randint(-20, 20, grad.shape, generator=torch.Generator().manual_seed(13))
    grad = torch.ldexp(grad, powers)
    grad[:, 1::2] = -grad[:, :-1:2]
    grad[:, -1] = torch.ldexp(grad[:, -1], torch.tensor(-30))
    order = torch.randperm(
        67, generator=torch.Generator().manual_seed(13)
    )  # or pairs are neighbours
    grad = grad[:, order].to(getattr(torch, dtype))
    there = grad.to(device)
    found = example_square_sum(there, index, per_example=True, backend=backend)
    assert found.examples is not None
    single, eps = found.examples.cpu(), 2.0**-53
    for example in range(len(single)):
        rows = [r for r in range(6) if (index or range(6))[r] == example]
        terms = grad[rows].double().flatten(0, 1)
        for column, values in enumerate(terms.T.tolist()):
            bound = len(values) * eps * math.fsum(map(abs, values))
            assert abs(float(single[example, column]) - math.fsum(values)) <= bound
    for column, values in enumerate(single.T.tolist()):
        exact = sum(Fraction(value) ** 2 for value in values)
        error = abs(Fraction(float(found.total[column])) - exact)
        assert error <= (len(values) + 1) * Fraction(eps) * exact


def test_addresses_are_brought_anew_after_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph leaves its own there; a GPU has it in tests/test_kernels_gpu.py."""
    pytest.importorskip("triton")
    from beftkit_kernels.squares import Launch

    capturing = False
    monkeypatch.setattr(
        torch._C, "_cuda_isCurrentStreamCapturing", lambda: capturing, raising=False
    )
    launch = Launch([randn(2, 3, 8, seed=1)], None, 2, False)
    launch.device, launch._of_graph = torch.device("cuda"), launch._host.clone()
    there = lambda: int(launch._table[0, 0])  # noqa: E731
    launch._look_up([64])
    capturing = True
    launch._look_up([128])
    recorded = launch._of_graph.clone()
    capturing = False
    for _ in range(2):
        launch._look_up([64])
        assert there() == 64
        launch._table.copy_(launch._of_graph)  # a replay
        assert there() == 128
    capturing = True
    launch._table.zero_()
    launch._look_up([128])  # once more in a graph, maybe another one, which has to bring it too
    assert there() == 128 and torch.equal(launch._of_graph, recorded)
    with pytest.raises(ValueError, match="captured before"):
        launch._look_up([64])
