"""Compile every kernel for every GPU we know and dtype its launcher can pick; no GPU needed.

A process of its own, without TRITON_INTERPRET (interpreted kernels cannot be compiled). Prints one
JSON list; with ``--write bench/results/aot.csv`` it also writes the table that is committed. With
``--configs`` it is the configurations of bench/kernel_configs.py that are compiled, for sm_90, and
``--write bench/results/aot_configs.csv`` goes with that.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "kernels"), str(ROOT / "bench")]

from beftkit_kernels import layout, projection, squares  # noqa: E402

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
#: what stands in bench/results/aot.csv
FIELDS = (
    "kernel",
    "dtype",
    "aligned",
    "split",
    "tiles",
    "target",
    "registers",
    "spills",
    "local",
    "shared",
    "flight",
    "triton",
)
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

PAIRS = {
    "items": "*i64", "firsts": "*i64", "part": "*fp64", "counts": "*i32", "out": "*fp64",
    "P": "i32", "pre_at": "i64", "post_at": "i64", "pre_step": "i64", "post_step": "i64",
    "length": "i64",
}  # fmt: skip
MEANS = {"stats": "*fp64", "members": "*i64", "firsts": "*i64", "ratios": "*fp64", "means": "*fp64"}
SQUARES = {
    "table": "*i64", "order": "*i64", "firsts": "*i64", "sums": "*fp64", "single": "*fp64",
    "N": "i32", "C": "i32", "group": "i32", "blocks": "i32", "indexed": "i32", "keep": "i32",
}  # fmt: skip
STREAMS = {"items": "*i64", "out": "*fp64", "P": "i32", "turns": "i32"}
TOTALS = {"sums": "*fp64", "total": "*fp64", "S": "i32", "C": "i32"}


class Variant(NamedTuple):
    """One thing a launcher may ask for."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    dtype: str
    aligned: bool
    split: bool = False
    tiles: tuple[Any, ...] = ()
    warps: int = 4

    def wide(self, threads: int) -> int:
        """Loads of 128 bits of one of so many threads at a time, where aligned."""
        elements = {"fp32": 4, "bf16": 8, "fp16": 8}.get(self.dtype)
        if not self.aligned:
            return 0
        # Where threads are more than the lanes of all rows, they share out the loads of each.
        if self.kernel is squares.square_sums_kernel:
            columns, tokens, unroll, *_, size = self.tiles
            loads = max(1, unroll * columns * tokens // threads)
            return 8 if elements is None else loads * (size == 16)
        rows, lanes, unroll, *_ = self.tiles
        return 16 if elements is None else 2 * max(1, unroll * rows * lanes // threads)


def pairs(dtype: Any, aligned: bool, tiles: layout.Tiles, split: bool) -> Variant:
    """One way through pairs."""
    built = layout.constants(dtype, aligned, tiles, split)
    what = str(dtype or "mixed"), aligned, split, tuple(tiles), tiles.warps
    return Variant(projection.pair_sums_kernel, PAIRS, built, *what)


def grads(dtype: Any, aligned: bool, tiles: squares.Tiles) -> Variant:
    """One way through gradients."""
    built = squares.constants(dtype, aligned, tiles)
    what = str(dtype or "mixed"), aligned, False, tuple(tiles), tiles.warps
    return Variant(squares.square_sums_kernel, SQUARES, built, *what)


def variants() -> Iterator[Variant]:
    """All there is to compile for one target, as the launchers put it."""
    for dtype in (*layout.DTYPES.values(), None):
        for aligned in (True, False):
            known = dtype is not None and aligned
            whole = layout.CHOICES[4 if str(dtype) == "fp32" else 2] if known else ()
            some = set(whole) or {layout.tiles_for(dtype, aligned, 1, False, 1)}
            some |= {one._replace(even=False) for one in some}
            yield from (pairs(dtype, aligned, one, False) for one in sorted(some))
            yield pairs(dtype, aligned, layout.tiles_for(dtype, aligned, 1, True, 1), True)
            yield grads(dtype, aligned, squares.tiles_for(dtype, aligned))
    lanes = {"LANES": projection.LANES}
    yield Variant(projection.role_means_kernel, MEANS, lanes, "fp64", False)
    yield Variant(squares.totals_kernel, TOTALS, dict(squares.TOTALS), "fp64", False)


def configurations() -> Iterator[Variant]:
    """What bench/kernel_configs.py and bench/kernel_configs_short.py compare."""
    import kernel_configs as every
    import kernel_configs_short as short
    import kernel_streams as streams

    for name, dtype in (("float32", layout.DTYPES[0]), ("bfloat16", layout.DTYPES[1])):
        long = short.LONG if name == "bfloat16" else ()
        some = [*every.SHORT[name], *every.LONG[name], *short.ANYWHERE[name], *long]
        some += short.even((*short.SHORT[name], *long))
        for tiles in dict.fromkeys(some):
            yield pairs(dtype, True, tiles, False)
            if tiles in every.LONG[name] and tiles.rows == 1:
                yield pairs(dtype, True, tiles, True)
        both = [*every.GRADIENT[name], *short.GRADIENT[name]]
        yield from (grads(dtype, True, one) for one in dict.fromkeys(both))
        built = streams.constants(dtype)
        yield Variant(streams.stream_sums_kernel, STREAMS, built, str(dtype), True, warps=1)


def build(variant: Variant, name: str, target: GPUTarget) -> dict[str, Any]:
    """Compile for one target; what came of it."""
    signature = variant.signature | dict.fromkeys(variant.constants, "constexpr")
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=variant.constants)
    warps = max(1, variant.warps * 32 // target.warp_size)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    nvidia = target.backend == "cuda"
    assembly = compiled.asm["ptx" if nvidia else "amdgcn"]
    usage = nvidia_usage(compiled.asm["cubin"]) if nvidia else amd_usage(assembly)
    # How wide what is loaded from the data is: tables and float64 partial sums apart.
    wide = r"ld\.global\S*\.v4\.b32|ld\.global\S*\.v2\.b64|ld\.global\S*\.v8\.b32"
    wide = wide if nvidia else r"(?:global|buffer)_load_dwordx4"
    return {
        "kernel": variant.kernel.fn.__name__,
        "dtype": variant.dtype,
        "aligned": variant.aligned,
        "split": variant.split,
        "tiles": " ".join(str(int(one)) for one in variant.tiles),
        "target": name,
        **usage,
        "shared": compiled.metadata.shared,
        "triton": triton.__version__,
        "wide_loads": len(re.findall(wide, assembly)),
        "wanted_wide": variant.wide(warps * target.warp_size) if variant.tiles else 0,
        "flight": in_flight(compiled.asm["cubin"]) if name == "sm_90" else "",
        "loads": data_loads(compiled.asm["ttgir"]),
        "narrow_offsets": narrow_offsets(compiled.asm["ttir"]),
        "atomics": re.findall(r"tt\.atomic_rmw (\w+, \w+, \w+)", compiled.asm["ttir"]),
        "barriers": len(re.findall(r"\w+\.barrier", compiled.asm["ttir"])),
    }


def in_flight(cubin: bytes) -> int:
    """The most 128-bit loads in a row before anything is done with what is loaded."""
    most = running = 0
    for line in cuobjdump(cubin, "-sass").splitlines():
        if "LDG.E" in line and ".128" in line:
            running += 1
            most = max(most, running)
        elif re.search(r"\b(?:F2F|DADD|DFMA|DMUL|FADD)\b", line):
            running = 0
    return most


def cuobjdump(cubin: bytes, option: str) -> str:
    """What NVIDIA's tool says of a binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(CUOBJDUMP), option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def nvidia_usage(cubin: bytes) -> dict[str, int]:
    """Registers per thread, spilled ones and local memory, from the binary."""
    report = cuobjdump(cubin, "--dump-resource-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
    assert found, report
    registers, stack, local = map(int, found.groups())
    return {"registers": registers, "spills": stack, "local": local}


def amd_usage(assembly: str) -> dict[str, int]:
    """The same from the metadata of the assembly; spills of vector and scalar registers."""

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        assert found, name
        return int(found[1])

    spills = number("vgpr_spill_count") + number("sgpr_spill_count")
    local = number("private_segment_fixed_size")
    return {"registers": number("vgpr_count"), "spills": spills, "local": local}


def data_loads(ttgir: str) -> int:
    """Loads of tiles from the data: of anything but the float64 partial sums and int64 tables."""
    return len(re.findall(r"tt\.load .*tensor<\d+x\d+x[\dx]*!tt\.ptr<", ttgir))


def narrow_offsets(ttir: str) -> int:
    """Tiles of pointers moved by anything but int64, and products or what is cut to 32 bits."""
    moved = r"tt\.addptr .*tensor<[\dx]+!tt\.ptr<\w+>>, tensor<[\dx]+xi(?!64)"
    narrow = r"arith\.(?:muli|shli|trunci) .*(?:: i32|xi32>|to i32)"
    return len(re.findall(moved, ttir)) + len(re.findall(narrow, ttir))


def main() -> None:
    """Compile all, print JSON, write the table on request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="also write this CSV file")
    parser.add_argument("--configs", action="store_true", help="what the benchmark compares")
    chosen = parser.parse_args()
    targets = {"sm_90": TARGETS["sm_90"]} if chosen.configs else TARGETS
    every = configurations if chosen.configs else variants
    rows = [build(variant, name, target) for name, target in targets.items() for variant in every()]
    if chosen.write:
        with chosen.write.open("w", newline="") as file:
            table = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
