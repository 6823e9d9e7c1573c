"""CUDA flags while a model is called: no cuDNN attention, TF32 by name, the caller's after.

The flags can be set where there is no GPU, so all but the arithmetic itself is seen on a CPU.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook

import beftkit
from beftkit import accelerator
from beftkit.errors import BeftError, UsageError
from tests.tiny_run import QUICK

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")


def flags() -> dict[str, Any]:
    """All that is changed anywhere."""
    return {
        "cudnn": cuda.cudnn_sdp_enabled(),
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "matmul": cuda.matmul.fp32_precision,
        "conv": torch.backends.cudnn.conv.fp32_precision,
        "rnn": torch.backends.cudnn.rnn.fp32_precision,
    }


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = flags()
    yield
    assert flags() == before


def named(precision: str, device: torch.device = GPU) -> Any:
    """What an Accelerator tells of itself."""
    mixed = "no" if precision in ("fp32", "tf32") else precision
    return SimpleNamespace(device=device, mixed_precision=mixed, allow_tf32=precision == "tf32")


def test_attention_leaves_cudnn_out_and_the_rest_as_it_was() -> None:
    before = flags()
    with accelerator.steady_attention(GPU):
        assert flags() == {**before, "cudnn": False}
    with pytest.raises(ZeroDivisionError), accelerator.steady_attention(GPU):
        raise ZeroDivisionError
    assert flags() == before
    cuda.enable_flash_sdp(False)
    try:
        with accelerator.steady_attention(GPU), accelerator.steady_attention(GPU):
            assert flags() == {**before, "cudnn": False, "flash": False}
        assert flags() == {**before, "flash": False}
    finally:
        cuda.enable_flash_sdp(True)


def test_attention_is_not_touched_elsewhere() -> None:
    with accelerator.steady_attention(CPU), accelerator.arithmetic(named("fp32", CPU)):
        assert cuda.cudnn_sdp_enabled()
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION), accelerator.steady_attention(GPU):
        assert cuda.cudnn_sdp_enabled(), "all that the caller left"


@pytest.mark.parametrize("former", ["none", "ieee", "tf32"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_tf32_by_name_alone(precision: str, former: str) -> None:
    own = cuda.matmul.fp32_precision
    cuda.matmul.fp32_precision = former
    try:
        before = flags()
        wanted = "tf32" if precision == "tf32" else "ieee"
        with pytest.raises(ZeroDivisionError), accelerator.arithmetic(named(precision)):
            assert {flags()[unit] for unit in ("matmul", "conv", "rnn")} == {wanted}
            raise ZeroDivisionError
        assert flags() == before
    finally:
        cuda.matmul.fp32_precision = own
    assert accelerator.precision_of(named(precision)) == precision


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(UsageError, match=r"tf32.*needs an NVIDIA GPU"):
        accelerator.make_accelerator("cpu", "tf32")
    assert accelerator.precision_of(accelerator.make_accelerator("cpu")) == "fp32"
    if not torch.cuda.is_available():
        with pytest.raises(BeftError, match=r"tf32.*needs an NVIDIA GPU"):
            accelerator.make_accelerator(None, "tf32")


def test_every_call_of_a_model_stands_in_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the CPU were a GPU: every forward pass of the journeys sees the flags."""
    monkeypatch.setattr(accelerator, "_has_flags", lambda device: True)
    seen: list[tuple[bool, str]] = []
    data = {"train_file": "train.jsonl", "validation_file": "dev.jsonl"}

    def count() -> int:
        assert seen and set(seen) == {(False, "ieee")}
        seen.clear()
        return 1

    def look(module: Any, _: Any) -> None:
        if isinstance(module, torch.nn.Embedding):
            seen.append((cuda.cudnn_sdp_enabled(), cuda.matmul.fp32_precision))

    handle = register_module_forward_pre_hook(look)
    try:
        short = {**QUICK, "epochs": 1, "train_size": 16, "device": "cpu"}
        beftkit.train("base", **data, **short, output="run")
        count()
        beftkit.evaluate("run", device="cpu")
        count()
        beftkit.predict("run", texts=["good film"], device="cpu")
        count()
        for variant in ("exact", "batch-mean"):
            how = {"variant": variant, "train_size": 8, "device": "cpu"}
            beftkit.fisher("base", train_file="train.jsonl", **how)
            count()
    finally:
        handle.remove()


def test_a_bank_of_adapters_stands_in_it_too(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half precision it would meet a plan of cuDNN's for every batch of another width."""
    from transformers import AutoModelForSequenceClassification

    monkeypatch.setattr(accelerator, "_has_flags", lambda device: True)
    data = {"train_file": "train.jsonl", "validation_file": "dev.jsonl", "device": "cpu"}
    beftkit.train("base", **data, **{**QUICK, "epochs": 1, "train_size": 16}, output="run")
    bank = beftkit.BiasBank(
        AutoModelForSequenceClassification.from_pretrained("base"), {"one": "run"}
    )
    seen: list[bool] = []
    bank.model.register_forward_pre_hook(lambda *_: seen.append(cuda.cudnn_sdp_enabled()))
    bank(names=["one", None], input_ids=torch.ones(2, 3, dtype=torch.int64))
    with bank.rows(["one"]) as model:
        model(input_ids=torch.ones(1, 3, dtype=torch.int64))
    assert seen and not any(seen)


@pytest.mark.gpu
def test_tf32_computes_otherwise_and_fp32_does_not() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 256, 256, device="cuda")
    exact = a.double() @ b.double()

    def apart(precision: str) -> float:
        with accelerator.arithmetic(named(precision)):
            return float((a @ b - exact).norm() / exact.norm())

    cuda.matmul.fp32_precision = "tf32"  # the caller's own
    try:
        assert apart("fp32") < 1e-5
        assert 1e-5 < apart("tf32") < 5e-3
    finally:
        cuda.matmul.fp32_precision = "none"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_run_says_what_it_computed_in(precision: str, workplace: Path) -> None:
    data = {"train_file": "train.jsonl", "validation_file": "dev.jsonl"}
    beftkit.train("base", **data, **QUICK, device="cuda", precision=precision, output="run")
    from beftkit.runs import provenance

    found = provenance.kept(Path("run"))
    assert found is not None and found.precision == precision
