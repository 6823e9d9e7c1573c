"""The stand-in for CUDA graphs does what code for graphs relies on; graphs themselves on a GPU."""

from typing import Any

import pytest
import torch

from beftkit.graphs import NotCaptured, Pool, capture, detach_from_past, memory_pool

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_replay_reads_and_writes_the_recorded_tensors(device: str) -> None:
    place = torch.device(device)
    given = torch.zeros(3, device=place)
    weight = torch.full((3,), 2.0, device=place, requires_grad=True)

    def work() -> dict[str, list[torch.Tensor]]:
        (grad,) = torch.autograd.grad((given * weight).square().sum(), [weight])
        return {"grads": [grad]}

    graph = capture(work, device=place, pool=memory_pool(place))
    held = graph.result["grads"][0]
    for value in (1.0, -3.0):
        given.fill_(value)
        assert graph.replay()["grads"][0] is held
        assert held.tolist() == [4 * value * value] * 3


@pytest.mark.parametrize("device", DEVICES)
def test_what_the_host_waits_for_is_not_captured(device: str) -> None:
    place = torch.device(device)
    given = torch.ones(4, device=place)
    for work in (
        lambda: given.sum().item(),
        lambda: given.nonzero(),
        lambda: given[given > 0].sum(),
        lambda: bool((given > 0).all()),
    ):
        with pytest.raises(NotCaptured):
            capture(work, device=place)
        again = capture(lambda: given * 2, device=place)  # nothing is left of it
        assert again.replay().tolist() == [2.0] * 4


def test_warm_ups_run_for_good() -> None:
    count = torch.zeros(())
    graph = capture(lambda: count.add_(1), device=CPU, warmups=2)
    assert count == 3  # the stand-in's recording runs too
    graph.replay()
    assert count == 4


@pytest.mark.parametrize("device", DEVICES)
def test_a_pool_outlives_its_graphs(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's ends with its last graph; so does the stand-in's."""
    place = torch.device(device)
    given = torch.ones(4, device=place)
    pool = memory_pool(place)

    def made(times: float) -> Any:
        return capture(lambda: given * times, device=place, pool=pool)

    one, two = made(2.0), made(3.0)
    first = pool.id
    del one
    assert pool.id == first  # the other one lives
    del two
    three = made(4.0)
    assert pool.id != first and three.replay().tolist() == [4.0] * 4
    with pytest.raises(NotCaptured):
        capture(lambda: given.sum().item(), device=place, pool=pool)
    second = pool.id
    four = made(5.0)  # not into the one of a recording that failed
    assert pool.id == second and [g.replay()[0].item() for g in (three, four)] == [4.0, 5.0]
    if device == "cpu":
        del four
        monkeypatch.setattr(Pool, "id", second)
        with pytest.raises(RuntimeError, match="ended with its last graph"):
            made(6.0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_backward_pass_that_is_kept_stands_in_no_way(device: str) -> None:
    """A loss, or a clone that knows where it is from, keeps the nodes that add up gradients."""
    place = torch.device(device)
    leaf = torch.nn.Parameter(torch.ones(3, device=place))
    added = list[int]()
    leaf.register_post_accumulate_grad_hook(lambda one: added.append(len(one.grad)))
    node = torch.autograd.graph.get_gradient_edge
    held = (leaf * 2).sum()
    node(leaf).node.metadata["kept"] = True
    assert "kept" in node(leaf).node.metadata
    leaf.grad = torch.zeros_like(leaf)
    grad, where = leaf.grad, leaf.data_ptr()
    detach_from_past([leaf])
    assert "kept" not in node(leaf).node.metadata
    assert (leaf.data_ptr(), leaf.dtype, leaf.requires_grad) == (where, torch.float32, True)

    def work() -> None:
        (leaf * 3).sum().backward()

    graph = capture(work, device=place, warmups=1)
    before = leaf.grad.clone()
    graph.replay()
    assert leaf.grad is grad and (grad - before).tolist() == [3.0] * 3
    assert len(added) > 1  # hooks stay
    held.backward()
    assert (grad - before).tolist() == [5.0] * 3
