"""`example_square_sum` on every backend, against a loop in float64 and per-example autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from beftkit_kernels import (
    SquareSum,
    SquareSums,
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
    """In any order; an example without rows counts as zero, and changes nothing.

    Not a bit with Triton, whose groups of examples depend on their length alone; torch adds up
    examples as it sees fit.
    """
    backend, device = engine
    grad = randn(5, 9, 16, seed=3, device=device)
    found = example_square_sum(grad, index, per_example=True, backend=backend)
    close(found, grad, index, "float32")
    more = example_square_sum(
        grad, torch.tensor(index), examples=7, per_example=True, backend=backend
    )
    if backend == "triton":
        assert torch.equal(more.total, found.total)
    assert_close(more.total, found.total, TOLERANCE["float32"].rms)
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
    """Short examples: many to a program, and several programs where there are more."""
    backend, device = engine
    grads = [randn(examples, 2, width, seed=width, device=device) for width in (8, 33)]
    index = [7 * row % examples for row in range(examples)]
    found = example_square_sums(grads, index, per_example=True, backend=backend)
    for grad, one in zip(grads, found, strict=True):
        close(one, grad, index, "float32")


@pytest.mark.parametrize(("rows", "tokens"), [(3, 70), (40, 3)])
def test_another_number_of_examples(rows: int, tokens: int, engine: Engine) -> None:
    """Empty examples, however many, and whether or not they make more groups."""
    backend, device = engine
    if backend != "triton":
        pytest.skip("of the Triton kernel")
    grad = randn(rows, tokens, 8, seed=12, device=device)
    index = [3 * row % rows for row in range(rows)]
    wanted = example_square_sum(grad, index, backend=backend).total
    for examples in (rows + 1, rows + 30) if INTERPRETED else (rows + 1, 65, 130, 1000):
        found = example_square_sum(grad, index, examples=examples, backend=backend)
        assert torch.equal(found.total, wanted)


def test_groups_depend_on_length_alone() -> None:
    pytest.importorskip("triton")
    from beftkit_kernels.squares import group_of

    assert [group_of(n) for n in (0, 1, 2, 9, 20, 32, 63, 64, 128)] == [
        64,
        64,
        32,
        8,
        4,
        2,
        2,
        1,
        1,
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tiles", [(64, 2, 8, 4, 8), (32, 1, 4, 1, 16)], ids=str)
@pytest.mark.parametrize("narrow", [False, True])
def test_tiles(tiles: tuple[int, ...], narrow: bool, dtype: str, engine: Engine) -> None:
    """However a launch goes through columns and tokens; narrow ones keep the bound they state."""
    backend, device = engine
    if backend != "triton":
        pytest.skip("of the Triton kernel")
    from beftkit_kernels.squares import Launch, Tiles

    grads = [randn(3, 37, width, seed=width, dtype=dtype, device=device) for width in (264, 40)]
    grads[0][1, 5] *= 1e4
    launch = Launch(grads, None, 3, True)
    columns, tokens, unroll, warps, load = tiles
    launch.tiles = Tiles(columns, tokens, unroll, warps, narrow, load)
    launch.run(grads)
    single = torch.cat([reference.example_square_sum(grad)[1] for grad in grads], 1)
    if narrow:
        sizes = torch.cat([grad.double().abs().sum(1) for grad in grads], 1)
        assert ((launch.single - single).abs() <= unroll * 2.0**-24 * sizes).all()
    else:
        assert_close(launch.single, single, TOLERANCE[dtype].rms)
    wanted = launch.single.square().sum(0)
    assert_close(launch.total, wanted, TOLERANCE[dtype].rms)


def test_prepared_once_and_run_often(engine: Engine) -> None:
    """Batches of one layout, wherever they lie; anything else is refused."""
    backend, device = engine
    batches = [
        [randn(3, 20, width, seed=seed + width, device=device) for width in (64, 24)]
        for seed in (0, 100)
    ]
    index = [1, 0, 1]
    prepared = SquareSums(batches[0], index, per_example=True, backend=backend)
    for grads in (*batches, batches[0]):
        for grad, one in zip(grads, prepared.run(grads), strict=True):
            close(one, grad, index, "float32")
    if backend == "triton":  # in the same memory
        first, second = (prepared.run(grads)[0].total.data_ptr() for grads in batches)
        assert first == second
    message = "of other shapes, strides, dtypes or device than those prepared for"
    for other in (
        batches[0][:1],
        [one[:2] for one in batches[0]],
        [one.bfloat16() for one in batches[0]],
        [one.mT.contiguous().mT for one in batches[0]],
    ):
        with pytest.raises(ValueError, match=message):
            prepared.run(other)
    with pytest.raises(ValueError, match="no gradients to prepare for"):
        SquareSums([], backend="torch")
    if backend == "triton":
        moved = [torch.zeros(one.numel() + 1, device=device)[1:].view_as(one) for one in batches[0]]
        with pytest.raises(ValueError, match="unaligned address"):
            prepared.run(moved)


@pytest.mark.skipif(not INTERPRETED, reason="looks at launches of the interpreted kernel")
@pytest.mark.parametrize("rows", [1, 90])
def test_few_launches(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One; with several groups of examples a second, small one."""
    from beftkit_kernels import squares

    grids: list[tuple[int, ...]] = []

    def noting(kernel: Any) -> Any:
        class Noting:
            def __getitem__(self, grid: tuple[int, ...]) -> Any:
                grids.append(grid)
                return kernel[grid]

        return Noting()

    for name in ("square_sums_kernel", "totals_kernel"):
        monkeypatch.setattr(squares, name, noting(getattr(squares, name)))
    example_square_sums([randn(rows, 3, width, seed=1) for width in (40, 8)], backend="triton")
    assert grids == {1: [(1, 2)], 90: [(3, 2), (1,)]}[rows]


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
