"""What rows have in common is computed once, and gives what each row by itself gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from beftkit.objectives import prefixes
from beftkit.objectives.causal import answer_log_likelihoods
from beftkit.objectives.prefixes import log_likelihoods
from beftkit.tasks import Batch, Encoded
from tests.test_choice import FAMILIES, batch, examples
from tests.tiny_models import build

#: tokens of prompt and answers: single tokens alone, longer ones, both
CASES = {
    "single": ((7, (1, 1)), (3, (1, 1)), (5, (1, 1, 1)), (1, (1, 1)), (19, (1, 1))),
    "longer": ((7, (2, 3)), (6, (4, 2)), (7, (2, 2, 2)), (20, (5, 2))),
    "both": ((7, (1, 1, 2)), (3, (2, 1, 3)), (12, (1, 4, 1)), (1, (1, 1, 1)), (8, (1,))),
}

LONG = {"max_position_embeddings": 96, "n_positions": 96}


def begun(found: Encoded, count: int) -> Encoded:
    """The same behind ``count`` tokens that all rows have in common."""
    same = torch.randint(3, 50, (count,), generator=torch.Generator().manual_seed(9)).int()
    rows = [torch.cat([same, one]) for one in found.ids.tensor_split(found.starts[1:-1])]
    lengths = torch.tensor([0, *map(len, rows)])
    return replace(found, ids=torch.cat(rows), starts=lengths.cumsum(0))


def both_ways(network: Any, given: Batch) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Shared, row by row, and the shapes of tokens that the former put through."""
    seen: list[Any] = []
    handle = network.get_input_embeddings().register_forward_hook(
        lambda module, taken, made: seen.append(tuple(made.shape[:2]))
    )
    with torch.inference_mode():
        shared = log_likelihoods(network, given)
        handle.remove()
        return shared, answer_log_likelihoods(network, given.inputs), seen


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_is_what_each_row_gives(family: str, attention: str) -> None:
    # The softmax of eager attention is float32, whatever the model is.
    exact = [(torch.float64, 1e-10)] if attention == "sdpa" else []
    for dtype, tolerance in (*exact, (torch.float32, 1e-5)):
        network = build(family, dtype, **LONG)
        network.set_attn_implementation(attention)
        for sizes in CASES.values():
            for common in (0, 40):
                given = batch(begun(examples(sizes), common))
                shared, alone, seen = both_ways(network, given)
                assert (shared - alone).abs().max() < tolerance
                tokens = sum(rows * width for rows, width in seen)
                assert tokens < given.inputs["input_ids"].numel()


def test_what_goes_through() -> None:
    network = build("llama", **LONG)
    sizes = ((8, (1, 1)), (8, (1, 1)), (4, (1, 1)))
    assert both_ways(network, batch(examples(sizes)))[2] == [(2, 8), (1, 4)]
    seen = both_ways(network, batch(begun(examples(sizes), 40)))[2]
    assert seen == [(1, 40), (3, 8)]  # the demonstrations, the prompts; of answers nothing
    assert both_ways(network, batch(examples(((8, (1, 3)),))))[2] == [(1, 8), (1, 2)]


def test_no_more_is_held_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    network, given = build("qwen2", torch.float64), batch(examples(CASES["longer"]))
    whole = both_ways(network, given)
    monkeypatch.setattr(prefixes, "MOST_BYTES", 1)
    shared, alone, seen = both_ways(network, given)
    assert (shared - alone).abs().max() < 1e-10
    assert [rows for rows, _ in seen[::2]] == [1] * 4 and len(whole[2]) < len(seen)


@pytest.mark.parametrize("why", ["gradients", "training", "left", "window", "no cache", "own code"])
def test_elsewhere_each_row_goes_through(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("gemma2" if why == "window" else "gpt2")
    network.train(why == "training")
    if why == "no cache":
        monkeypatch.setattr(type(network), "forward", lambda self, input_ids: None)
    if why == "own code":
        monkeypatch.setattr(type(network), "__module__", "transformers_modules.theirs")
    taken: list[Any] = []
    monkeypatch.setattr(
        prefixes, "answer_log_likelihoods", lambda model, inputs: taken.append(inputs)
    )
    with torch.inference_mode(why != "gradients"):
        log_likelihoods(network, batch(examples(), "left" if why == "left" else "right"))
    assert len(taken) == 1


def test_rows_that_share_nothing() -> None:
    network = build("opt", torch.float64)
    shared, alone, seen = both_ways(network, batch(examples(((5, (2,)), (3, (1,))))))
    assert torch.equal(shared, alone) and seen == [(2, 7)]


def test_prompts_that_are_all_the_same_leave_a_place_to_answer_from() -> None:
    network = build("llama", torch.float64, **LONG)
    found = begun(examples(((1, (1, 2)), (1, (2, 2)))), 40)
    ids = found.ids.clone()
    ids[found.starts[:-1] + 40] = 7
    shared, alone, seen = both_ways(network, batch(replace(found, ids=ids)))
    assert seen[0] == (1, 40) and (shared - alone).abs().max() < 1e-10
