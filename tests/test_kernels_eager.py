"""How the torch path uses its scratch memory; its results are in the tests of each reduction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from beftkit_kernels import Pairs, eager, example_square_sum, reference
from tests.conftest import TOLERANCE
from tests.kernels_cases import assert_close, pairs, randn


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_little_scratch_for_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a vector, one vector, or several at a time, with a rest."""
    monkeypatch.setattr(eager, "BLOCK", block)
    memory = torch.empty((4, block), dtype=torch.float64)
    monkeypatch.setattr(eager, "scratch", lambda device: memory)
    pre, post = pairs([64] * 5 + [0, 3, 130], device="cpu")
    wanted = reference.projection_stats(pre, post)
    assert_close(Pairs(pre, post).stats(), wanted, TOLERANCE["float32"].rms)
    packed = Pairs(torch.cat(pre[:5]), torch.cat(post[:5]), [64 * i for i in range(6)])
    assert_close(packed.stats(), wanted[:5], TOLERANCE["float32"].rms)


@pytest.mark.parametrize("room", [1, 2, 7, 30, 35, 140, 1000])
def test_little_scratch(room: int) -> None:
    """Whatever fits at a time: a coordinate, tokens of a row, a row, or several, with a rest."""
    grad = randn(3, 5, 7, seed=1)
    memory = torch.empty((1, room), dtype=torch.float64)
    total, single = eager.square_sums(grad, None, 3, memory)
    wanted, by_example = reference.example_square_sum(grad)
    assert_close(total, wanted, TOLERANCE["float32"].rms)
    assert_close(single, by_example, TOLERANCE["float32"].rms)


def test_scratch_is_kept_by_each_thread() -> None:
    """Also where it was first needed in inference mode, whose tensors others may not write to."""
    grad = randn(3, 5, 7, seed=1)

    def first_in_inference_mode() -> int:
        with torch.inference_mode():
            example_square_sum(grad)
        found = example_square_sum(grad).total
        assert_close(found, reference.example_square_sum(grad)[0], TOLERANCE["float32"].rms)
        return eager.scratch(grad.device).data_ptr()

    here = eager.scratch(grad.device)
    assert eager.scratch(grad.device) is here
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(first_in_inference_mode).result() != here.data_ptr()
