"""The stand-in for CUDA graphs does what code for graphs relies on; graphs themselves on a GPU."""

import pytest
import torch

from beftkit.graphs import NotCaptured, capture, memory_pool

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
