"""Two live models scored where they lie: on a GPU, or here with the CPU standing in for one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import beftkit
from beftkit.checkpoints import live
from beftkit.diff import on_device
from beftkit.errors import BeftError
from beftkit.scores.statistics import within_rounding
from tests import tiny_models

ON = pytest.param("cuda", marks=pytest.mark.gpu)


class Counts:
    """Tensors copied to the host for their bytes, and copies of results."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.back = 0


@pytest.fixture(params=["cpu", ON])
def device(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, device: str) -> Iterator[Counts]:
    """The path of a GPU on whatever device, and what it copies."""
    counts = Counts()
    raw_bytes, to_host = live.raw_bytes, on_device._to_host

    def reading(tensor: torch.Tensor) -> bytes:
        counts.read.append(str(tensor.shape))
        return raw_bytes(tensor)

    def fetching(values: torch.Tensor) -> Any:
        counts.back += 1
        return to_host(values)

    if device == "cpu":
        monkeypatch.setattr(live.LiveCheckpoint, "on_gpu", True)
    monkeypatch.setattr(live, "raw_bytes", reading)
    monkeypatch.setattr(on_device, "_to_host", fetching)
    yield counts


def two(name: str = "bert", dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A tiny model and what became of it; the key biases stay."""
    pre, post = (tiny_models.build(tiny_models.BY_ID[name]) for _ in range(2))
    post.load_state_dict(pre.state_dict())
    with torch.no_grad():
        for one in (pre, post):
            for index, parameter in enumerate(one.parameters()):
                parameter += 0.1 * torch.cos(torch.arange(parameter.numel()) + index).view_as(
                    parameter
                )
        for key, parameter in post.named_parameters():
            if "key" not in key:
                parameter += 0.1 * parameter.sin()
    return pre, post.to(dtype)


def on_host(pre: Any, post: Any, **options: Any) -> dict[str, Any]:
    """The JSON as the host has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live.LiveCheckpoint, "on_gpu", False)
        found: dict[str, Any] = json.loads(
            json.dumps(beftkit.score(pre, post, **options).to_dict())
        )
    return found


def same(found: Any, wanted: Any) -> None:
    """Equal but for digests, and for the rounding of figures."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys() - {"bias_sha256"}
        for key in found:
            same(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-7, abs=1e-9)
    else:
        assert found == wanted


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nothing_is_copied_but_the_sums(
    name: str, dtype: torch.dtype, device: str, counted: Counts
) -> None:
    """Separate and fused biases, one dtype and two: the same JSON, without digests."""
    pre, post = two(name, dtype)
    wanted = on_host(pre, post)
    counted.read.clear()
    found = beftkit.score(pre.to(device), post.to(device))
    assert (counted.read, counted.back) == ([], 1)
    same(json.loads(json.dumps(found.to_dict())), wanted)
    assert found.pre.bias_sha256 is None and found.target is not None


def test_a_digest_is_made_if_it_is_asked_for(device: str, counted: Counts) -> None:
    """That of the host, though the sums are the device's."""
    pre, post = two()
    wanted = on_host(pre, post)
    found = beftkit.score(pre.to(device), post.to(device), digest=True)
    assert counted.back == 1
    assert found.pre.bias_sha256 == wanted["pre"]["bias_sha256"]
    assert (
        found.post.bias_sha256 == wanted["posts"][0]["post"]["bias_sha256"] != found.pre.bias_sha256
    )
    [again] = beftkit.score_all(pre, [post], digest=True)
    assert again.post == found.post


def test_nothing_changed(device: str, counted: Counts) -> None:
    pre, _ = two()
    found = beftkit.score(pre.to(device), pre.to(device))
    assert not found.changed and any("nothing changed" in note for note in found.notes)
    assert (counted.read, counted.back) == ([], 1)


def test_rounding_only(device: str, counted: Counts) -> None:
    """A copy in bfloat16 is no fine-tuning; one element beyond half a unit is a change."""
    pre, _ = two()
    post = two()[0].bfloat16()
    wanted = on_host(pre, post)
    counted.read.clear()
    pre, post = pre.to(device), post.to(device)
    found = beftkit.score(pre, post)
    assert any("rounding only" in note for note in found.notes) and found.target is None
    same(json.loads(json.dumps(found.to_dict())), wanted)
    bias = next(p for n, p in post.named_parameters() if "value.bias" in n)
    with torch.no_grad():
        bias[1] = bias[1] * (1 + 2.0**-6)
    assert beftkit.score(pre, post).target is not None
    assert (counted.read, counted.back) == ([], 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_what_the_host_says(dtype: str) -> None:
    """Halves of a unit to either side, subnormals, zeros; pair by pair."""
    kind, name = getattr(torch, dtype), {"bfloat16": "BF16", "float16": "F16"}[dtype]
    generator = torch.Generator().manual_seed(0)
    fine = [torch.randn(40, generator=generator) * 10.0**power for power in (-44, -8, -5, 0, 3)]
    fine += [torch.tensor([1 + 2.0**-8, 1 + 2.0**-11, 0.0]), torch.zeros(0)]
    pairs = [(one, one.to(kind)) for one in fine]
    pairs += [(one, torch.nextafter(half, torch.full_like(half, 99))) for one, half in pairs]
    found = on_device._beyond_rounding(*map(list, zip(*pairs, strict=True)), [("F32", name)] * 14)
    swapped = on_device._beyond_rounding(
        [b for _, b in pairs], [a for a, _ in pairs], [(name, "F32")] * 14
    )
    wanted = [within_rounding(*(x.double().numpy() for x in pair), "F32", name) for pair in pairs]
    assert (found == 0).tolist() == (swapped == 0).tolist() == wanted
    assert np.unique(wanted).size == 2


def spoil(match: str) -> Callable[[Any], str]:
    def run(model: Any) -> str:
        name, parameter = next((n, p) for n, p in model.named_parameters() if match in n)
        with torch.no_grad():
            parameter[1] = float("nan")
        return str(name)

    return run


@pytest.mark.parametrize("match", ["value.bias", "pooler.dense.bias"])
def test_what_is_not_finite_is_named(match: str, device: str, counted: Counts) -> None:
    """Of a role or beside them all, matched or not; allowed, it is scored as by the host."""
    pre, post = two()
    name = spoil(match)(post)
    wanted = on_host(pre, post, allow_nonfinite=True)
    pre, post = pre.to(device), post.to(device)
    found = beftkit.score(pre, post, allow_nonfinite=True)
    assert found.to_dict() == wanted and found.pre.bias_sha256
    assert any(name in note for note in found.notes)
    if "value" in match:
        with pytest.raises(BeftError, match=f"{name} holds NaN or infinity"):
            beftkit.score(pre, post)


def test_doubles_are_left_to_the_host(device: str, counted: Counts) -> None:
    """Their squares overflow."""
    pre, post = (one.double() for one in two())
    found = beftkit.score(pre.to(device), post.to(device))
    assert counted.back == 0 and found.pre.bias_sha256
    assert found.to_dict() == on_host(pre, post)


def floats(change: Callable[[torch.Tensor, int], torch.Tensor]) -> Callable[[Any], Any]:
    """A state dict whose vectors of floats are others, by their number."""

    def run(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        vectors = [k for k, v in state.items() if v.is_floating_point() and v.dim() == 1]
        return state | {key: change(state[key], at) for at, key in enumerate(vectors)}

    return run


def beside(dtype: torch.dtype, value: float) -> Callable[[Any], Any]:
    """One that no role has."""

    def run(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(key for key in state if "pooler.dense.bias" in key)
        return state | {name: torch.full_like(state[name], value, dtype=dtype)}

    return run


def tied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One tensor for the value biases of all layers."""
    names = [key for key in state if key.endswith("value.bias")]
    return state | dict.fromkeys(names, state[names[0]])


#: what the device path takes, however the tensors lie; applied to PRE, to POST
LAID: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "strided": (floats(lambda x, _: torch.stack([x, x], -1)[:, 0]),) * 2,
    "odd addresses": (floats(lambda x, _: torch.cat([x[:1], x])[1:]), dict),
    "odd addresses, 16 bits": (dict, floats(lambda x, _: torch.cat([x[:1], x]).bfloat16()[1:])),
    "dtypes of each": (
        floats(lambda x, at: x.to((torch.float32, torch.float16)[at % 2])),
        floats(lambda x, at: x.to((torch.bfloat16, torch.float32, torch.float16)[at % 3])),
    ),
    "tied": (dict, tied),
    "tied, both": (tied, tied),
    "integers beside": (dict, beside(torch.int64, 3)),
    "8 bits beside": (dict, beside(torch.float8_e4m3fn, 3)),
    "doubles beside": (dict, beside(torch.float64, 3)),
    "empty beside": (lambda x: x | {"e.bias": x[next(iter(x))][:0, 0]},) * 2,
}


@pytest.mark.parametrize("case", LAID)
def test_however_tensors_lie(case: str, device: str, counted: Counts) -> None:
    pre, post = (
        change(dict(one.to(device).state_dict()))
        for change, one in zip(LAID[case], two(), strict=True)
    )
    wanted = on_host(pre, post)
    counted.read.clear()
    found = beftkit.score(pre, post)
    assert (counted.read, counted.back) == ([], 1)
    same(json.loads(json.dumps(found.to_dict())), wanted)


def test_values_that_no_pair_shows_are_looked_at(device: str, counted: Counts) -> None:
    """Though a pair's vector begins where they do, with as many: it shows others of them."""
    pre, post = (dict(one.to(device).state_dict()) for one in two())
    name = next(key for key in post if "value.bias" in key)
    width = len(post[name])
    whole = torch.ones(2 * width, device=device)
    whole[2 * width - 2] = float("nan")
    post |= {name: whole[:width], "odd.bias": whole[::2]}
    pre |= {"odd.bias": torch.ones(width, device=device)}
    found = beftkit.score(pre, post)
    assert any("odd.bias" in note for note in found.notes)
    assert found.to_dict() == on_host(pre, post)


def test_squares_beyond_float64_are_left_to_the_host(device: str, counted: Counts) -> None:
    pre, post = (dict(one.to(device).state_dict()) for one in two())
    post = beside(torch.float64, 1e200)(post)
    assert beftkit.score(pre, post).to_dict() == on_host(pre, post)


@pytest.mark.parametrize("match", ["value.bias", "pooler.dense.bias", "bias"])
def test_what_has_no_values_is_named(match: str, device: str, counted: Counts) -> None:
    """A model that a device map has offloaded, in part or whole: tensors of two devices."""
    pre, post = (dict(one.to(device).state_dict()) for one in two())
    post |= {key: post[key].to("meta") for key in post if match in key}
    with pytest.raises(BeftError, match=f"{match} is on the meta device.*weights are loaded"):
        beftkit.score(pre, post)
    assert counted.back == 0


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_column_of_a_matrix_is_read(count: int) -> None:
    """Of one scalar or none torch takes any stride for contiguous."""
    column = torch.arange(8.0).view(4, 2)[:count, 1]
    assert live.raw_bytes(column) == np.array([1.0, 3.0, 5.0], np.float32)[:count].tobytes()
