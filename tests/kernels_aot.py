"""Compile every kernel for every GPU we know and dtype its launcher can pick; no GPU needed.

A process of its own, without TRITON_INTERPRET (interpreted kernels cannot be compiled). Prints one
JSON list; with ``--write bench/results/aot.csv`` it also writes the table that is committed.
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
sys.path.insert(0, str(ROOT / "kernels"))

from beftkit_kernels import projection, squares  # noqa: E402

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
    "target",
    "registers",
    "spills",
    "local",
    "shared",
    "triton",
)
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

PAIRS = {"items": "*i64", "firsts": "*i64", "part": "*fp64", "counts": "*i32", "out": "*fp64"}
MEANS = {"stats": "*fp64", "members": "*i64", "firsts": "*i64", "ratios": "*fp64", "means": "*fp64"}
SQUARES = {
    "table": "*i64", "order": "*i64", "firsts": "*i64", "counts": "*i64",
    "sums": "*fp64", "single": "*fp64", "N": "i32", "C": "i32", "indexed": "i32", "keep": "i32",
}  # fmt: skip


class Variant(NamedTuple):
    """One thing a launcher may ask for."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    dtype: str
    aligned: bool


def variants() -> Iterator[Variant]:
    """All there is to compile for one target, as the launchers put it."""
    for dtype in (*projection.DTYPES.values(), None):
        for aligned in (True, False):
            name = str(dtype or "mixed")
            pairs = projection.constants(dtype, aligned)
            yield Variant(projection.pair_sums_kernel, PAIRS, pairs, name, aligned)
            tiles = squares.constants(dtype, aligned)
            yield Variant(squares.square_sums_kernel, SQUARES, tiles, name, aligned)
    lanes = {"LANES": projection.LANES}
    yield Variant(projection.role_means_kernel, MEANS, lanes, "fp64", False)


def build(variant: Variant, name: str, target: GPUTarget) -> dict[str, Any]:
    """Compile for one target; what came of it."""
    signature = variant.signature | dict.fromkeys(variant.constants, "constexpr")
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=variant.constants)
    options = {"num_warps": 128 // target.warp_size}
    compiled = triton.compile(source, target=target, options=options)
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
        "target": name,
        **usage,
        "shared": compiled.metadata.shared,
        "triton": triton.__version__,
        "wide_loads": len(re.findall(wide, assembly)),
        "loads": data_loads(compiled.asm["ttgir"]),
        "narrow_offsets": narrow_offsets(compiled.asm["ttir"]),
        "warps_storing": warps_storing(compiled.asm["ttgir"]),
        "atomics": re.findall(r"tt\.atomic_rmw (\w+, \w+, \w+)", compiled.asm["ttir"]),
        "barriers": len(re.findall(r"\w+\.barrier", compiled.asm["ttir"])),
    }


def nvidia_usage(cubin: bytes) -> dict[str, int]:
    """Registers per thread, spilled ones and local memory, from the binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
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


def warps_storing(ttgir: str) -> list[int]:
    """How many warps take part in stores of rows of float64."""
    layouts = re.findall(
        r"(#\w+) = #ttg.blocked<\{sizePerThread = \[(\d+)\], threadsPerWarp = \[(\d+)\],", ttgir
    )
    per_warp = {name: int(each) * int(threads) for name, each, threads in layouts}
    stores = re.findall(r"tt\.store .*tensor<(\d+)x!tt\.ptr<f64>, (#\w+)>", ttgir)
    return sorted({-(-int(length) // per_warp[layout]) for length, layout in stores})


def main() -> None:
    """Compile all, print JSON, write the table on request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="also write this CSV file")
    chosen = parser.parse_args()
    rows = [
        build(variant, name, target) for name, target in TARGETS.items() for variant in variants()
    ]
    if chosen.write:
        with chosen.write.open("w", newline="") as file:
            table = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
