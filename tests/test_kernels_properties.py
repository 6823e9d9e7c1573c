"""What holds for any vectors and gradients, on every backend."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from beftkit_kernels import example_square_sum, pack, projection_ratio, projection_stats
from tests.conftest import INTERPRETED
from tests.kernels_cases import EPS, EXAMPLES, randn

Engine = tuple[str, str]
# `engine` is the same for all examples of a test.
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate] if INTERPRETED else list(Phase),  # shrinking is slow
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
# Of normal size: none becomes subnormal, and thus another number, where it is scaled.
sizes = st.floats(2.0**-40, 2.0**40, width=32)
finite = st.just(0.0) | sizes | sizes.map(lambda x: -x)
pair = st.lists(st.tuples(finite, finite), max_size=20)
batches = st.lists(pair, min_size=1, max_size=4)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9))


def sides(batch: list[Any], device: str) -> tuple[list[Tensor], list[Tensor]]:
    """Two lists of vectors from lists of pairs of numbers."""
    both = [torch.tensor(pairs, device=device).reshape(-1, 2) for pairs in batch]
    # Copies: a view of one element would be contiguous, and unaligned.
    return [x[:, 0].clone() for x in both], [x[:, 1].clone() for x in both]


@quick
@given(batch=batches, data=st.data())
def test_permuting_vectors_permutes_results(
    batch: list[Any], data: st.DataObject, engine: Engine
) -> None:
    backend, device = engine
    pre, post = sides(batch, device)
    order = data.draw(st.permutations(range(len(pre))))
    found = projection_stats(pre, post, backend=backend)
    again = projection_stats([pre[i] for i in order], [post[i] for i in order], backend=backend)
    assert torch.equal(again, found[list(order)])


@quick
@given(batch=batches, power=st.integers(-40, 40))
def test_scaling_both_sides_leaves_the_ratio(batch: list[Any], power: int, engine: Engine) -> None:
    backend, device = engine
    pre, post = sides(batch, device)
    scale = 2.0**power
    found = projection_stats(pre, post, backend=backend)
    scaled = projection_stats([x * scale for x in pre], [x * scale for x in post], backend=backend)
    assert torch.equal(projection_ratio(scaled), projection_ratio(found))
    powers = torch.tensor([2, 2, 2, 2, 1, 2], device=device) * power
    assert torch.equal(scaled, torch.ldexp(found, powers))


@quick
@given(batch=batches)
def test_swapping_sides(batch: list[Any], engine: Engine) -> None:
    """The ratio is symmetric: it looks at the larger side. Sums are, to the bound they state:
    which of two products is fused with their sum is up to the compiler, column by column."""
    backend, device = engine
    pre, post = sides(batch, device)
    there = projection_stats(pre, post, backend=backend)
    back = projection_stats(post, pre, backend=backend)
    mirrored = there[:, [1, 0, 3, 2, 4, 5]] * torch.tensor([1, 1, -1, -1, 1, 1.0]).to(device)
    both = [(a.double(), b.double()) for a, b in zip(post, pre, strict=True)]
    sizes = torch.stack(
        [
            torch.stack(
                [(x * y).abs().sum() for x, y in ((a, a), (b, b), (a, d), (b, d), (1, d), (d, d))]
            )
            for a, b in both
            for d in (b - a,)
        ]
    )
    assert ((back - mirrored).abs() <= 128 * EPS * sizes).all()
    torch.testing.assert_close(projection_ratio(back), projection_ratio(there), rtol=1e-12, atol=0)


@quick
@given(batch=batches)
def test_packed_equals_scattered(batch: list[Any], engine: Engine) -> None:
    backend, device = engine
    pre, post = sides(batch, device)
    (values, offsets), (moved, _) = pack(pre), pack(post)
    found = projection_stats(values, moved, offsets, backend=backend)
    torch.testing.assert_close(
        found, projection_stats(pre, post, backend=backend), rtol=1e-14, atol=0
    )


@quick
@given(batch=batches, zeros=st.integers(1, 9))
def test_zeros_change_nothing(batch: list[Any], zeros: int, engine: Engine) -> None:
    backend, device = engine
    pre, post = sides(batch, device)
    tail = torch.zeros(zeros, device=device)
    longer = [[torch.cat([x, tail]) for x in side] for side in (pre, post)]
    torch.testing.assert_close(
        projection_stats(*longer, backend=backend),
        projection_stats(pre, post, backend=backend),
        rtol=1e-14,
        atol=0,
    )


@quick
@given(shape=shapes, data=st.data(), seed=st.integers(0, 99))
def test_a_split_batch_adds_up(
    shape: tuple[int, int, int], data: st.DataObject, seed: int, engine: Engine
) -> None:
    """Whole examples go to either half."""
    backend, device = engine
    grad = randn(*shape, seed=seed, device=device)
    at = data.draw(st.integers(0, shape[0]))
    whole = example_square_sum(grad, backend=backend).total
    parts = [example_square_sum(part, backend=backend).total for part in (grad[:at], grad[at:])]
    torch.testing.assert_close(parts[0] + parts[1], whole, rtol=1e-13, atol=0)


@quick
@given(shape=shapes, data=st.data(), seed=st.integers(0, 99))
def test_rows_of_zeros_change_nothing(
    shape: tuple[int, int, int], data: st.DataObject, seed: int, engine: Engine
) -> None:
    """As more tokens, as more examples, as more rows of an example."""
    backend, device = engine
    grad = randn(*shape, seed=seed, device=device)
    index = data.draw(st.lists(st.integers(0, 3), min_size=shape[0], max_size=shape[0]))
    wanted = example_square_sum(grad, index, backend=backend).total
    tokens = torch.cat([grad, torch.zeros_like(grad)], dim=1)
    rows = torch.cat([torch.zeros_like(grad), grad])
    for padded, owners in ((tokens, index), (rows, [5] * shape[0] + index), (rows, index * 2)):
        found = example_square_sum(padded, owners, backend=backend).total
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-30)


@quick
@given(shape=shapes, data=st.data(), seed=st.integers(0, 99))
def test_permuting_rows_changes_nothing(
    shape: tuple[int, int, int], data: st.DataObject, seed: int, engine: Engine
) -> None:
    backend, device = engine
    grad = randn(*shape, seed=seed, device=device)
    index = data.draw(st.lists(st.integers(0, 2), min_size=shape[0], max_size=shape[0]))
    order = list(data.draw(st.permutations(range(shape[0]))))
    found = example_square_sum(grad[order], [index[i] for i in order], backend=backend).total
    wanted = example_square_sum(grad, index, backend=backend).total
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-30)
