"""`example_square_sum` on every backend, against a loop in float64 and per-example autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from beftkit_kernels import (
    SquareSum,
    example_square_sum,
    example_square_sums,
    reference,
)
from tests.conftest import INTERPRETED, TOLERANCE
from tests.kernels_cases import DTYPES, assert_close, randn

pytestmark = pytest.mark.usefixtures("poisoned")
Engine = tuple[str, str]

SHAPES = [
    (3, 5, 7), (2, 64, 32), (5, 65, 33), (4, 128, 40), (1, 1, 1), (7, 1, 64),
    (1, 4097, 3), (1, 2, 4097), (3, 0, 8), (0, 4, 8), (2, 3, 0),
]  # fmt: skip


def close(found: SquareSum, grad: Tensor, index: list[int] | None, dtype: str) -> None:
    """Both results against the reference."""
    total, single = reference.example_square_sum(grad, index)
    assert_close(found.total, total, TOLERANCE[dtype].rms)
    if found.examples is not None:
        assert_close(found.examples, single, TOLERANCE[dtype].rms)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...], engine: Engine) -> None:
    backend, device = engine
    grad = randn(*shape, seed=1, device=device)
    found = example_square_sum(grad, per_example=True, backend=backend)
    assert found.total.shape == shape[2:]
    assert found.examples is not None and found.examples.shape == (shape[0], shape[2])
    close(found, grad, None, "float32")
    assert example_square_sum(grad, backend=backend).examples is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [48, 49])
def test_dtypes(dtype: str, width: int, engine: Engine) -> None:
    backend, device = engine
    grad = randn(3, 70, width, seed=2, dtype=dtype, device=device)
    close(example_square_sum(grad, per_example=True, backend=backend), grad, None, dtype)


@pytest.mark.parametrize("index", [[0, 0, 0, 0, 0], [4, 3, 2, 1, 0], [1, 3, 1, 0, 3]], ids=str)
def test_rows_of_one_example(index: list[int], engine: Engine) -> None:
    """In any order; an example without rows counts as zero."""
    backend, device = engine
    grad = randn(5, 9, 16, seed=3, device=device)
    found = example_square_sum(grad, index, per_example=True, backend=backend)
    close(found, grad, index, "float32")
    more = example_square_sum(
        grad, torch.tensor(index), examples=7, per_example=True, backend=backend
    )
    assert torch.equal(more.total, found.total)
    assert more.examples is not None and found.examples is not None
    assert torch.equal(more.examples[: len(found.examples)], found.examples)
    assert not more.examples[len(found.examples) :].any()


def views(device: str) -> dict[str, Tensor]:
    """[R, T, D] in every layout."""
    whole = randn(4, 6, 96, seed=4, device=device)
    return {
        "a slice of fused q, k, v": whole[:, :, 32:64],
        "tokens first": whole.transpose(0, 1),
        "every second column": whole[..., ::2],
        "columns first": whole.transpose(1, 2),
        "expanded": torch.ones((), device=device).expand(3, 5, 8),
        "unaligned": randn(4 * 6 * 8 + 1, seed=5, device=device)[1:].view(4, 6, 8),
        "rows at odd distance": randn(4, 6 * 8 + 1, seed=6, device=device)[:, :48].unflatten(
            1, (6, 8)
        ),
        "backwards": whole.flip(0)[::2, :, 8:24],
    }


@pytest.mark.parametrize("name", views("cpu"))
def test_strided(name: str, engine: Engine) -> None:
    backend, device = engine
    grad = views(device)[name]
    close(example_square_sum(grad, per_example=True, backend=backend), grad, None, "float32")


def test_a_group(engine: Engine) -> None:
    """Tensors of several widths, lengths, layouts and dtypes."""
    backend, device = engine
    grads = [
        randn(3, 20, 64, seed=1, device=device),
        randn(3, 20, 16, seed=2, dtype="bfloat16", device=device),
        randn(3, 9, 48, seed=3, device=device)[:, :, 16:32],
        randn(3, 20, 0, seed=4, device=device),
        randn(3, 20, 5, seed=5, dtype="float64", device=device),
    ]
    for index in (None, [1, 0, 1]):
        found = example_square_sums(grads, index, per_example=True, backend=backend)
        for grad, one in zip(grads, found, strict=True):
            close(one, grad, index, "float32")
    assert example_square_sums([], backend="torch") == []


@pytest.mark.parametrize("examples", [1, 5, 70])
def test_dealt_examples(examples: int, engine: Engine) -> None:
    """Few and narrow tensors: their examples go to several programs, at most 64 here."""
    backend, device = engine
    grads = [randn(examples, 2, width, seed=width, device=device) for width in (8, 33)]
    index = [7 * row % examples for row in range(examples)]
    found = example_square_sums(grads, index, per_example=True, backend=backend)
    for grad, one in zip(grads, found, strict=True):
        close(one, grad, index, "float32")
    if backend == "triton":
        from beftkit_kernels.squares import splits_for

        assert [splits_for(n, 40) for n in (1, 24, 300, 512, 864)] == [32, 32, 2, 1, 1]
        assert [splits_for(3, examples), splits_for(1, 0)] == [{1: 1, 5: 4, 70: 64}[examples], 1]


@pytest.mark.skipif(not INTERPRETED, reason="looks at launches of the interpreted kernel")
@pytest.mark.parametrize("rows", [1, 6])
def test_one_launch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dealt or not; and the launch leaves the counts as it found them, so it can be replayed."""
    from beftkit_kernels import squares

    launches: list[tuple[tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = []
    kernel = squares.square_sums_kernel

    class Noting:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def launch(*given: Any, **named: Any) -> None:
                launches.append((grid, given, named))
                kernel[grid](*given, **named)

            return launch

    monkeypatch.setattr(squares, "square_sums_kernel", Noting())
    grads = [randn(rows, 3, width, seed=width) for width in (40, 8)]
    found = example_square_sums(grads, backend="triton")
    ((grid, given, named),) = launches
    splits = {1: 1, 6: 4}[rows]
    assert grid == (2, splits, 2)
    counts, sums = given[3:5]
    assert counts.tolist() == [0] * 4
    # The result is what the kernel wrote: nothing is added up afterwards.
    assert [one.total.data_ptr() for one in found] == [sums[-1, at:].data_ptr() for at in (0, 40)]
    first = sums.clone()

    def again() -> Tensor:
        kernel[grid](*given[:4], sums.fill_(float("nan")), *given[5:], **named)
        return sums

    assert torch.equal(again(), first)
    if splits > 1:
        counts.fill_(-1)  # one fewer has come than there are: nobody is the last to add up
        assert again()[-1].isnan().all()
        assert counts.tolist() == [3, 3, 3, -1]  # two blocks of columns, and one


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_far_from_one(scale: float, engine: Engine) -> None:
    backend, device = engine
    grad = randn(3, 4, 8, seed=8, device=device) * scale
    found = example_square_sum(grad, backend=backend)
    assert found.total.isfinite().all() and found.total.all()
    close(found, grad, None, "float32")


def test_tokens_that_cancel(engine: Engine) -> None:
    """What is left is far below one ulp of the largest term in float32."""
    backend, device = engine
    grad = torch.tensor([[[1e8], [1.0], [-1e8]]], device=device)
    assert example_square_sum(grad, backend=backend).total.tolist() == [1.0]


def test_what_is_not_finite_stays_in_its_column(engine: Engine) -> None:
    backend, device = engine
    grad = randn(4, 70, 24, seed=9, device=device)
    grad[1, 69, 3], grad[2, 0, 20] = float("nan"), float("inf")
    found = example_square_sum(grad, [0, 1, 1, 2], per_example=True, backend=backend)
    close(found, grad, [0, 1, 1, 2], "float32")
    assert (~found.total.isfinite()).nonzero().flatten().tolist() == [3, 20]


def test_the_same_every_time(engine: Engine) -> None:
    backend, device = engine
    grad = randn(16, 33, 24, seed=10, device=device)
    index = [i % 5 for i in range(16)]
    first = example_square_sum(grad, index, backend=backend).total
    for _ in range(2 if INTERPRETED else 20):
        assert torch.equal(example_square_sum(grad, index, backend=backend).total, first)


def test_per_example_autograd(engine: Engine) -> None:
    """The gradient with respect to the bias of a linear layer, example by example."""
    backend, device = engine
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 8, device=device, dtype=torch.float64)
    x = randn(5, 7, 6, seed=11, dtype="float64", device=device)
    index = [0, 1, 1, 2, 0]  # say, premise and hypothesis as rows of one example
    y = layer(x)
    (grad,) = torch.autograd.grad(torch.tanh(y).square().sum(), y)
    found = example_square_sum(grad, index, per_example=True, backend=backend)
    wanted = []
    for example in range(3):
        rows = [row for row, owner in enumerate(index) if owner == example]
        loss = torch.tanh(layer(x[rows])).square().sum()
        wanted.append(torch.autograd.grad(loss, layer.bias)[0])
    assert found.examples is not None
    assert_close(found.examples, torch.stack(wanted), 1e-14)
    assert_close(found.total, torch.stack(wanted).square().sum(0), 1e-14)


G = torch.ones(2, 3, 4)
BAD: list[tuple[Any, Any, Any, type[Exception], str]] = [
    ([G[0]], None, None, ValueError, r"\[R, T, D\] with one R expected, got \[3, 4\]"),
    ([G, G[:1]], None, None, ValueError, r"got \[2, 3, 4\], \[1, 3, 4\]"),
    ([G.long()], None, None, TypeError, "torch.int64; expected float32"),
    ([G], [0], None, ValueError, r"index \[1\] for 2 rows"),
    ([G], [0, -1], None, ValueError, "names example -1"),
    ([G], [0.0, 1.0], None, TypeError, "index of torch.float32"),
    ([G], [0, 3], 3, ValueError, "4 examples in 2 rows, but examples=3"),
    ([G], None, 3, ValueError, "2 examples in 2 rows, but examples=3"),
]


@pytest.mark.parametrize(("grads", "index", "examples", "error", "message"), BAD)
def test_bad_input(
    grads: Any, index: Any, examples: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        example_square_sums(grads, index, examples=examples)
