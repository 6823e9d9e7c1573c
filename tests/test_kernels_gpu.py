"""What only a device shows: graphs, streams, synchronisation, launches, memory beyond 2^31."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from beftkit_kernels import (
    Pairs,
    SquareSums,
    Track,
    example_square_sum,
    example_square_sums,
    reference,
)
from tests.kernels_cases import assert_close, pairs, randn

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[1]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Any wait of the host for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def kernels_of(call: Callable[[], Any]) -> list[str]:
    """Names of the kernels a call launches, copies and fills included."""
    from torch.profiler import ProfilerActivity, profile

    call()  # compiles
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        call()
        torch.cuda.synchronize()
    return [e.name for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]


def tracked() -> tuple[list[Tensor], Track]:
    vectors = [randn(700 + i, seed=i, device="cuda") for i in range(6)]
    named = {str(i): vector for i, vector in enumerate(vectors)}
    return vectors, Track(named, {name: "qk"[int(name) % 2] for name in named})


def test_auto_is_triton() -> None:
    one = [torch.ones(1, device="cuda")]
    assert Pairs(one, one).backend == "triton"


def test_one_launch() -> None:
    """Ragged, mixed, split and of many vectors; scattered."""
    pre, post = pairs([768] * 36 + [3, 90_000, 0], device="cuda", post="bfloat16")
    found = Pairs(pre, post)
    out = torch.empty((len(found), 6), dtype=torch.float64, device="cuda")
    assert kernels_of(lambda: found.stats(out=out)) == ["pair_sums_kernel"]


def test_few_launches_for_a_group_of_gradients() -> None:
    """One, and a small one where examples are dealt out; with them the table, in one copy."""
    grads = [randn(4, 64, 768, seed=i, device="cuda") for i in range(36)]
    narrow = [randn(64, 32, width, seed=width, device="cuda") for width in (40, 64)]
    two = ["square_sums_kernel", "totals_kernel"]
    for group in (grads, narrow):
        names = kernels_of(lambda group=group: example_square_sums(group))  # type: ignore[misc]
        assert [name for name in names if "Memcpy" not in name] == two
        assert len(names) <= 3
        prepared = SquareSums(group)
        assert kernels_of(lambda: prepared.run(group)) == two  # noqa: B023


def test_prepared_gradients_in_a_graph() -> None:
    """What is replayed reads the gradients where they lay, whatever ran in between."""
    grads = [randn(4, 70, width, seed=width, device="cuda") for width in (64, 40)]
    others = [randn(4, 70, width, seed=width + 1, device="cuda") for width in (64, 40)]
    index = [0, 1, 1, 2]
    prepared = SquareSums(grads, index, per_example=True)
    prepared.run(others)  # compiles
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    with no_synchronisation():
        prepared.run(others)
        prepared.run(grads)
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for grad in grads:
            grad.mul_(0.5)
        found = prepared.run(grads)
    for _ in range(3):
        for other, one in zip(others, prepared.run(others), strict=True):
            assert_close(one.total, reference.example_square_sum(other, index)[0], 1e-14)
        graph.replay()
        for grad, one in zip(grads, found, strict=True):
            total, single = reference.example_square_sum(grad, index)
            assert one.examples is not None
            assert_close(one.total, total, 1e-14)
            assert_close(one.examples, single, 1e-14)
    with (
        pytest.raises(ValueError, match="captured before"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        prepared.run(others)
    with pytest.raises(ValueError, match="one call"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        example_square_sums(grads)


def test_long_vectors_many_times() -> None:
    """Programs that race to be the last one: the result is the same to the bit every time."""
    pre, post = pairs([5_000_000, 300_000, 4097] + [768] * 200, device="cuda")
    found = Pairs(pre, post)
    first = found.stats().clone()
    assert_close(first, reference.projection_stats(pre, post), 1e-14)
    out = torch.empty_like(first)
    for _ in range(300):
        found.stats(out=out.fill_(float("nan")))
        assert torch.equal(out, first)


def test_dealt_examples_many_times() -> None:
    """The same race for gradients."""
    grads = [randn(300, 9, width, seed=width, device="cuda") for width in (40, 33, 8)]
    first = [one.total for one in example_square_sums(grads)]
    for grad, total in zip(grads, first, strict=True):
        assert_close(total, reference.example_square_sum(grad)[0], 1e-14)
    for _ in range(300):
        found = [one.total for one in example_square_sums(grads)]
        assert all(map(torch.equal, found, first))


def test_track_neither_waits_nor_allocates() -> None:
    vectors, track = tracked()
    track.step()
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    with no_synchronisation():
        for vector in vectors:
            vector.mul_(1.01)
        track.step()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_track_in_a_graph(backend: str) -> None:
    vectors = {str(i): randn(700 + i, seed=i, device="cuda") for i in range(6)}
    roles = {name: "qk"[int(name) % 2] for name in vectors}
    track = Track(vectors, roles, backend=backend)
    eager = Track(vectors, roles, backend=backend)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        track.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for vector in vectors.values():
            vector.mul_(0.9)
        found = track.step()
    for _ in range(3):
        graph.replay()
        assert found.tolist() == eager.step().tolist()
        assert 0 < float(found[0]) < 1


def test_another_stream() -> None:
    """The kernel waits for what its own stream has to do first, and for nothing else."""
    pre, post = pairs([4096] * 50, device="cuda")
    found, wanted = Pairs(pre, post), reference.projection_stats(pre, [4 * x for x in post])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        torch._foreach_mul_(post, 4.0)
        stats = found.stats()
    stream.synchronize()
    assert_close(stats, wanted, 1e-14)


def test_another_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one device")
    pre, post = pairs([768, 9000], device="cuda:1")
    assert_close(Pairs(pre, post).stats(), reference.projection_stats(pre, post), 1e-14)


def test_vectors_beyond_32_bits() -> None:
    need_memory(12)
    length = 2**31 + 12345
    vector = torch.ones(length, dtype=torch.bfloat16, device="cuda")
    vector[-1] = 3.0
    stats = Pairs([vector[1:]], [vector[:-1]]).stats()[0]  # unaligned, too
    assert stats.tolist() == [length - 2 + 9, length - 1, -6 + 0, -2 + 0, 2, 4]


def test_strides_beyond_32_bits() -> None:
    need_memory(12)
    memory = torch.zeros(2**31 + 64, dtype=torch.bfloat16, device="cuda")
    grad = memory.as_strided((2, 2, 32), (2**31, 32, 1))
    grad.copy_(randn(2, 2, 32, seed=1, dtype="bfloat16", device="cuda"))
    found = example_square_sum(grad, per_example=True)
    total, single = reference.example_square_sum(grad)
    assert found.examples is not None
    assert_close(found.examples, single, 1e-14)
    assert_close(found.total, total, 1e-14)


@pytest.mark.slow
def test_the_memory_checker_finds_nothing() -> None:
    """compute-sanitizer over the shapes with the most edges."""
    checker = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(checker).exists():
        pytest.skip("no compute-sanitizer")
    which = "triton-cuda and (split or packed or strided or index or group)"
    files = [f"tests/test_kernels_{name}.py" for name in ("projection", "squares")]
    done = subprocess.run(
        [checker, "--tool", "memcheck", "--error-exitcode", "9",
         sys.executable, "-m", "pytest", "-q", "-k", which, *files],
        cwd=ROOT, env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def need_memory(gigabytes: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GiB of device memory")
