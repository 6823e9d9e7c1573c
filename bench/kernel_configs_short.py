"""What `kernel_configs.py` left open, in under 45 s: can ours reach torch.compile everywhere?

    python bench/gpu_kernels.py --configs --short

Short vectors that lie at equal distances (addresses counted, not looked up) and anywhere, loads
asked for ahead, fewer lanes to a vector, few programs that never stop (kernel_streams.py);
gradients in bfloat16 with float64 throughout; chunks of few long vectors. Afterwards the best of
each case is printed beside torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kernel_configs import BERT, Case, P, S, gradient_case, pair_case
from kernel_streams import PROGRAMS

from beftkit_kernels.layout import CHOICES

#: seconds after which no further row is begun
BUDGET = 42.0
MANY = BERT * 4096

#: rows, lanes, loads at a time, warps, whether the next loads are asked for ahead
SHORT = {
    "float32": (
        P(8, 32, 2, 4), P(1, 32, 8, 1), P(2, 32, 2, 1, True), P(4, 8, 8, 1), P(2, 32, 2, 1),
        P(1, 32, 2, 1, True), P(4, 8, 4, 1, True), P(8, 32, 2, 4, True),
    ),
    "bfloat16": (
        P(2, 32, 1, 1), P(1, 32, 4, 1), P(1, 32, 1, 1, True), P(2, 32, 1, 1, True),
        P(4, 8, 4, 1), P(4, 8, 2, 1, True), P(2, 16, 2, 1, True), P(2, 16, 2, 1),
        P(1, 32, 2, 1),
    ),
}  # fmt: skip
ANYWHERE = {
    "float32": (P(2, 32, 2, 1), P(2, 32, 2, 1, True), P(4, 8, 8, 1)),
    "bfloat16": (P(2, 32, 1, 1, True), P(4, 8, 4, 1), P(2, 16, 2, 1, True)),
}
LONG = (P(1, 64, 4, 2), P(1, 64, 2, 2, True), P(1, 64, 1, 2, True))
GRADIENT = {
    "bfloat16": (
        S(64, 1, 8, 2, False, 8), S(64, 1, 8, 2, True, 8), S(64, 2, 4, 4, False, 8),
        S(64, 1, 4, 2, False, 8), S(32, 1, 8, 1, False, 8), S(64, 2, 8, 4, False, 8),
    ),
    "float32": (S(64, 1, 4, 2), S(32, 1, 8, 1), S(64, 1, 8, 2)),
}  # fmt: skip
FEW = {
    "float32": (P(1, 128, 2, 4), P(1, 32, 8, 1)),
    "bfloat16": (P(1, 64, 2, 2), P(1, 32, 4, 1)),
}


def even(tiles: tuple[P, ...]) -> list[P]:
    """The same with addresses that are counted."""
    return [one._replace(even=True) for one in tiles]


def cases() -> Iterator[Callable[[], Case]]:
    """From the most valuable on."""
    both = "bfloat16", "float32"
    for dtype in both:
        yield lambda dtype=dtype: pair_case(
            "4096 x 36 x 768", MANY, dtype, even(SHORT[dtype]), programs=PROGRAMS
        )
    for shape in ((32, 128), (128, 128)):
        yield lambda shape=shape: gradient_case(*shape, "bfloat16", GRADIENT["bfloat16"])
    for dtype in both:
        name = "4096 x 36 x 768, anywhere"
        yield lambda dtype=dtype, name=name: pair_case(
            name, MANY, dtype, ANYWHERE[dtype], programs=PROGRAMS
        )
    yield lambda: gradient_case(32, 128, "float32", GRADIENT["float32"])
    long = [*LONG, *even((CHOICES[2][-1], *LONG))]
    yield lambda: pair_case("8192 x 8192", [8192] * 8192, "bfloat16", long)
    for name, widths in (("64 x 36 x 768", BERT * 64), ("36 x 768", BERT)):
        for dtype in both:
            some = [*FEW[dtype], *even(FEW[dtype]), CHOICES[4 if dtype == "float32" else 2][1]]
            yield lambda name=name, widths=widths, dtype=dtype, some=some: pair_case(
                name, widths, dtype, some
            )
    ragged = [8192, 1024, 1024] * 80
    for dtype in both:
        yield lambda dtype=dtype: pair_case("Qwen2.5-72B q k v", ragged, dtype, ())
