"""`projection_stats` on every backend, against float64, exact pairs of doubles, and definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from beftkit.scores.statistics import metrics, pair_stats
from beftkit_kernels import COLUMNS, Pairs, pack, projection_ratio, projection_stats, reference
from tests.conftest import INTERPRETED, TOLERANCE
from tests.kernels_cases import (
    DTYPES,
    EPS,
    LENGTHS,
    ULP,
    as_numpy,
    assert_close,
    one_ulp_moves,
    pairs,
    randn,
)

pytestmark = pytest.mark.usefixtures("poisoned")
Engine = tuple[str, str]


def columns_close(found: Tensor, pre: list[Tensor], post: list[Tensor], dtype: str) -> None:
    """Every column on its own, so that small sums are not hidden by large ones; then the scores."""
    wanted = reference.projection_stats(pre, post)
    assert found.shape == wanted.shape == (len(pre), len(COLUMNS))
    for column in range(len(COLUMNS)):
        assert_close(found[:, column], wanted[:, column], TOLERANCE[dtype].rms)
    ratios = projection_ratio(wanted).cpu()
    torch.testing.assert_close(
        projection_ratio(found).cpu(), ratios, rtol=1e-12, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_reference(dtype: str, engine: Engine) -> None:
    backend, device = engine
    pre, post = pairs(LENGTHS, device=device, pre=dtype)
    columns_close(projection_stats(pre, post, backend=backend), pre, post, dtype)


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("float16", "float64")])
def test_two_dtypes(dtypes: tuple[str, str], engine: Engine) -> None:
    backend, device = engine
    pre, post = pairs([5, 768, 4099], device=device, pre=dtypes[0], post=dtypes[1])
    columns_close(projection_stats(pre, post, backend=backend), pre, post, "float32")


def test_all_dtypes_in_one_call(engine: Engine) -> None:
    backend, device = engine
    pre, post = [], []
    for i, dtype in enumerate(DTYPES):
        a, b = pairs([17 + i, 1024], device=device, pre=dtype, post=DTYPES[-i])
        pre, post = pre + a, post + b
    columns_close(projection_stats(pre, post, backend=backend), pre, post, "float32")


def test_scattered_anyhow(engine: Engine) -> None:
    """Unaligned, strided, transposed, of several dimensions: each counts as a vector."""
    backend, device = engine
    base = randn(3000, seed=1, device=device)
    pre = [base[1:770], base[::3][:900], base[:600].view(20, 30).T, base[5:6], base[:8]]
    post = [x.contiguous() + 0.25 for x in pre]
    columns_close(projection_stats(pre, post, backend=backend), pre, post, "float32")
    columns_close(projection_stats(post, pre, backend=backend), post, pre, "float32")


@pytest.mark.parametrize("dtype", list(ULP))
def test_one_ulp(dtype: str, engine: Engine) -> None:
    """The score and the sums behind it where the formula as printed is pure noise."""
    backend, device = engine
    a, b = one_ulp_moves(6000, dtype=dtype, device=device)
    stats = projection_stats([a], [b], backend=backend)
    ours = pair_stats(as_numpy(a)[None], as_numpy(b)[None])  # in pairs of doubles
    scale = 4.0 ** int(ours.exponent[0])
    x, d = as_numpy(a), as_numpy(b) - as_numpy(a)
    for column, name, side in ((2, "pre_d", x), (3, "post_d", x + d)):
        error = abs(float(stats[0, column]) - getattr(ours, name)[0] * scale)
        assert error <= 64 * EPS * np.abs(side * d).sum()
    wanted = metrics(ours)["projection"][0]
    assert float(projection_ratio(stats)) == pytest.approx(
        wanted, rel=TOLERANCE[dtype].score, abs=0
    )


def test_two_coordinates_that_change_places(engine: Engine) -> None:
    """<pre, d> is -(one ulp)^2: in float32, or by the formula as printed, nothing is left of it."""
    backend, device = engine
    ulp = ULP["float32"]
    a = torch.tensor([1 + ulp, 1.0, 3.0, 1e-3], device=device)
    b = torch.tensor([1.0, 1 + ulp, 3.0, 1e-3], device=device)
    stats = projection_stats([a], [b], backend=backend)
    assert float(stats[0, 2]) == -(ulp**2)
    assert float(projection_ratio(stats)) == pytest.approx(
        ulp**2 / float(stats[0, 0]), rel=TOLERANCE["float32"].score, abs=0
    )


@pytest.mark.parametrize("scale", [1e-20, 1e20, 3e-39])
def test_far_from_one(scale: float, engine: Engine) -> None:
    """Squares that float32 does not have, and inputs that are subnormal there."""
    backend, device = engine
    (a,), (b,) = pairs([1000], device="cpu", pre="float64")
    pre, post = [(a * scale).float().to(device)], [(b * scale).float().to(device)]
    stats = projection_stats(pre, post, backend=backend)
    columns_close(stats, pre, post, "float32")
    wanted = metrics(pair_stats(as_numpy(pre[0])[None], as_numpy(post[0])[None]))
    assert float(projection_ratio(stats)) == pytest.approx(
        wanted["projection"][0], rel=1e-12, abs=0
    )
    assert float(stats[0, 0].sqrt()) == pytest.approx(wanted["norm_pre"][0], rel=1e-12, abs=0)


def test_landmarks(engine: Engine) -> None:
    backend, device = engine
    a, zero = randn(65, seed=4, device=device), torch.zeros(65, device=device)
    pre, post = [a, a, zero, zero, a, a[:0]], [a, zero, a, zero, -a, a[:0]]
    ratios = projection_ratio(projection_stats(pre, post, backend=backend))
    assert ratios.tolist() == [0, 1, 1, 0, 2, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_row(bad: float, engine: Engine) -> None:
    backend, device = engine
    pre, post = pairs([9, 9, 5000, 5000], device=device)
    pre[1][8], post[2][4500] = bad, bad
    found = projection_stats(pre, post, backend=backend).cpu()
    torch.testing.assert_close(
        found, reference.projection_stats(pre, post).cpu(), rtol=1e-12, atol=0, equal_nan=True
    )
    assert projection_ratio(found).isnan().tolist() == [False, True, True, False]


@pytest.mark.parametrize("length", [63, 64, 65, 1024, 1025, 64 * 40 + 5])
def test_split_vectors(length: int, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small items, so that many are added up: more than a tile at a time, or by growing items."""
    backend, device = engine
    if backend == "triton":
        from beftkit_kernels import layout

        monkeypatch.setattr(layout, "SPLIT", layout.Tiles(1, 32, 1, 1))
        monkeypatch.setattr(layout, "CHUNK", (64, 64))
        monkeypatch.setattr(layout, "SPLITS", 16 if length < 2000 else 1024)
    pre, post = pairs([5, length, 0, 64], device=device)
    columns_close(projection_stats(pre, post, backend=backend), pre, post, "float32")


def test_the_same_every_time(engine: Engine) -> None:
    """To the bit, and after each call the table is ready for the next."""
    backend, device = engine
    vectors = pairs([768, 9000, 4097], device=device)
    found = Pairs(*vectors, backend=backend)
    first = found.stats().clone()
    for _ in range(2 if INTERPRETED else 20):
        assert torch.equal(found.stats(), first)
    assert torch.equal(projection_stats(*vectors, backend=backend), first)


def test_pairs_follow_their_tensors(engine: Engine) -> None:
    """Contiguous or not: what was changed in place is seen."""
    backend, device = engine
    whole = randn(24, seed=1, device=device)
    pre, post = [torch.ones(8, device=device)] * 2, [whole[:8], whole[8:].view(8, 2)[:, 0]]
    found = Pairs(pre, post, backend=backend)
    assert len(found) == 2
    for value in (1.0, 2.0):
        whole.fill_(value)
        assert found.stats()[:, 1].tolist() == [8 * value**2] * 2


@pytest.mark.parametrize("lengths", [[768] * 3, [3, 0, 8, 100, 4099], []])
def test_packed(lengths: list[int], engine: Engine) -> None:
    backend, device = engine
    pre, post = pairs(lengths, device=device, pre="bfloat16")
    (values, offsets), (moved, _) = pack(pre), pack(post)
    found = projection_stats(values.to(device), moved.to(device), offsets, backend=backend)
    columns_close(found, pre, post, "bfloat16")
    ends = torch.tensor([0, *lengths]).cumsum(0)  # tightly: most vectors are unaligned
    nothing = torch.zeros(0, dtype=torch.bfloat16, device=device)
    tight = [torch.cat([nothing, *side]) for side in (pre, post)]
    columns_close(projection_stats(*tight, ends, backend=backend), pre, post, "bfloat16")


def test_out_is_filled(engine: Engine) -> None:
    backend, device = engine
    pre, post = pairs([3, 5], device=device)
    out = torch.full((2, 6), float("nan"), dtype=torch.float64, device=device)
    found = Pairs(pre, post, backend=backend)
    assert found.stats(out=out) is out
    columns_close(out, pre, post, "float32")
    for bad, message in (
        (out.float(), r"out is torch.float32 \[2, 6\]"),
        (out[:1], r"\[1, 6\].*expected torch.float64 \[2, 6\]"),
        (out.T.contiguous().T, "not contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            found.stats(out=bad)


def test_parameters_and_no_vectors(engine: Engine) -> None:
    backend, device = engine
    parameter = torch.nn.Parameter(torch.ones(3, device=device))
    found = projection_stats([parameter], [parameter], backend=backend)
    assert not found.requires_grad
    assert found.tolist() == [[3, 3, 0, 0, 0, 0]]
    assert projection_stats([], [], backend="torch").shape == (0, 6)


BAD: list[tuple[Any, Any, Any, type[Exception], str]] = [
    ([torch.ones(1)], [torch.ones(1)] * 2, None, ValueError, "1 vectors in pre, 2 in post"),
    ([torch.ones(2)], [torch.ones(3)], None, ValueError, "pair 0: 2 elements in pre, 3 in post"),
    ([torch.ones(2).int()], [torch.ones(2)], None, TypeError, "torch.int32; expected float32"),
    (torch.ones(2), torch.ones(2), None, TypeError, "two tensors and offsets"),
    ([torch.ones(2)], [torch.ones(2)], [0, 2], TypeError, "two sequences of tensors"),
    (torch.ones(4), torch.ones(4), [0, 5], ValueError, "at most 4 values"),
    (torch.ones(4), torch.ones(4), [0, 3, 2], ValueError, "offsets have to rise"),
    (torch.ones(4), torch.ones(4), [0.0, 4.0], ValueError, "integers"),
]


@pytest.mark.parametrize(("pre", "post", "offsets", "error", "message"), BAD)
def test_bad_input(pre: Any, post: Any, offsets: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        projection_stats(pre, post, offsets)


#: rows, lanes, loads at a time, warps: several items a program, several of a warp, a few loads
TILES = [(1, 128, 2, 4), (2, 32, 1, 1), (8, 32, 1, 4), (1, 32, 2, 1, True), (8, 8, 2, 2, True)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tiles", TILES, ids=str)
def test_tiles(tiles: tuple[int, ...], dtype: str, engine: Engine) -> None:
    """However a launch goes through its vectors, ragged and with rows left over: the same sums."""
    backend, device = engine
    if backend != "triton":
        pytest.skip("of the Triton kernel")
    from beftkit_kernels import layout

    lengths = [768, 3, 0, 768, 1030, 8, 700, 256, 1]
    pre, post = pairs(lengths, device=device, pre=dtype)
    pre[3][5] = float("nan")  # stays in its row
    found = Pairs(pre, post, backend=backend)
    assert found._table is not None and found._table.aligned and not found._table.split
    found._table = layout.with_tiles(found._table, layout.Tiles(*tiles))
    columns_close(found.stats(), pre, post, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tiles", [(1, 32, 2, 1), (4, 8, 1, 1, True)], ids=str)
def test_vectors_at_equal_distances(tiles: tuple[int, ...], dtype: str, engine: Engine) -> None:
    """Addresses that are counted lead where those of the table do, past the last vector too."""
    backend, device = engine
    if backend != "triton":
        pytest.skip("of the Triton kernel")
    from beftkit_kernels import layout

    chosen = layout.Tiles(*tiles)
    for width in (64, 339):  # the second with a few elements over, at distances of its own
        whole = randn(7, 2, 352, seed=width, dtype=dtype, device=device)
        pre, post = list(whole[:, 0, :width]), list(whole[:, 1].contiguous()[:, :width])
        pre[2][5] = float("inf")  # stays in its row
        found = Pairs(pre, post, backend=backend)
        assert found._table is not None and found._table.places != layout.NOWHERE
        found._table = layout.with_tiles(found._table, chosen._replace(even=True))
        assert found._table.tiles.even
        columns_close(found.stats(), pre, post, dtype)
    others = [(pre[:3] + pre[4:], post[1:]), (pre[1:], post[:3] + post[4:])]  # one side is not
    others += [([*pre[:6], pre[6][:8]], [*post[:6], post[6][:8]])]
    for some in (*others, (pre[:1], post[:1])):
        table = Pairs(*some, backend=backend)._table
        assert table is not None and table.places == layout.NOWHERE
        assert not layout.with_tiles(table, chosen._replace(even=True)).tiles.even


def test_choices() -> None:
    """By length, number and whether addresses can be counted; else they are looked up."""
    pytest.importorskip("triton")
    from beftkit_kernels import layout as p

    for size, dtype in ((4, p.DTYPES[0]), (2, p.DTYPES[1]), (2, p.DTYPES[2])):
        cases = ((768, 36, True), (768, 5000, False), (768, 5000, True), (8192, 5000, True))
        found = [p.tiles_for(dtype, True, n, False, count, even) for n, count, even in cases]
        assert found == list(p.CHOICES[size])
        assert not any(one.even for one in (p.SPLIT, p.MIXED, p.UNALIGNED, found[1]))


def test_depth_is_what_is_promised() -> None:
    """No term of a vector up to 2^22 goes through more than 64 additions, whatever is chosen."""
    pytest.importorskip("triton")
    from beftkit_kernels import layout as p

    for dtype in (*p.DTYPES.values(), None):
        for aligned in (True, False):
            for length in (1, 768, 2048, 8192, p.CHUNK[1], 2**18, 2**22):
                split = length > p.CHUNK[1]
                for count, evenly in ((1, False), (1 << 20, False), (1 << 20, True)):
                    how = min(length, p.CHUNK[1]), split, count, evenly
                    tiles = p.tiles_for(dtype, aligned, *how)
                    width = p.constants(dtype, aligned, tiles, split)["WIDTH"]
                    assert p.depth(length, p.CHUNK[1], tiles, width) <= 64


@pytest.mark.skipif(not INTERPRETED, reason="counts launches of the interpreted kernel")
def test_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the vectors are: ragged, mixed, split."""
    from beftkit_kernels import projection

    launches = []
    kernel = projection.pair_sums_kernel

    class Counting:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            launches.append(grid)
            return kernel[grid]

    monkeypatch.setattr(projection, "pair_sums_kernel", Counting())
    pre, post = pairs([3, 9000, 768], device="cpu", post="bfloat16")
    Pairs(pre, post, backend="triton").stats()
    assert launches == [(1 + 3 + 1,)]
