"""Packed rows of `bench/packing.py`: losses and gradients of padded rows, and of rows alone.

On a CPU sdpa under a mask of blocks stands in for torch's variable-length attention.
"""

import csv
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from beftkit.objectives import make_objective
from beftkit.tasks import plan
from beftkit.tasks.resident import Resident
from beftkit.tasks.widths import Costs
from beftkit.tuning.added import add
from bench import packed, packed_runs, packing
from bench.packed_runs import WAYS, Way, trainer_of

CPU = torch.device("cpu")
LENGTHS = torch.tensor([4, 1, 12, 7, 3, 9, 2])
#: examples of a batch; of the last two slots one is empty
EXAMPLES = torch.tensor([3, 2, 1, 5, 0])
THERE = torch.tensor([True, True, True, True, False])
WEIGHTS = torch.tensor([0.3, 1.0, 0.5, 0.7, 0.0], dtype=torch.float64)
TOTAL = 7 + 12 + 1 + 9


def llama() -> tuple[Any, list[Tensor]]:
    """A decoder of shared heads in float64, and the biases added at v, not zero."""
    model = packed_runs.build("cpu", small=True).double()
    add(model, "v")
    return model, drawn(model, "added_bias", "v_proj")


def gpt2() -> tuple[Any, list[Tensor]]:
    """One that learns absolute positions, and its biases of attention."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.0,
        resid_pdrop=0.0, embd_pdrop=0.0, initializer_range=0.3,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).double()
    return model, drawn(model, "bias", "c_attn")


def drawn(model: Any, *words: str) -> list[Tensor]:
    """What trains, drawn; the rest is frozen."""
    torch.manual_seed(1)
    found = []
    for name, value in model.named_parameters():
        value.requires_grad_(value.dim() == 1 and all(word in name for word in words[1:]))
        if value.requires_grad:
            value.data.normal_(0, 0.5)
            found.append(value)
    assert found
    return found


@pytest.fixture(params=[llama, gpt2])
def made(request: pytest.FixtureRequest) -> tuple[Any, list[Tensor]]:
    return request.param()


def of_padded(model: Any, leaves: list[Tensor]) -> list[Tensor]:
    """Losses and gradients of the same examples as the product's padded batch."""
    model.set_attn_implementation("sdpa")
    data = packed_runs.encoded(LENGTHS, 300)
    batch = Resident(data, CPU).batch(EXAMPLES, 12)
    losses, _ = make_objective("choice", ("no", "yes")).losses(model, batch)
    return [losses.detach(), *torch.autograd.grad((losses * WEIGHTS).sum(), leaves)]


def of_rows(model: Any, leaves: list[Tensor]) -> list[Tensor]:
    """The same, each example by itself, without any of our code."""
    model.set_attn_implementation("sdpa")
    data = packed_runs.encoded(LENGTHS, 300)
    assert data.among is not None
    losses = []
    for example in EXAMPLES.tolist():
        ids = data.ids[data.starts[example] : data.starts[example + 1]].long()
        logs = model(input_ids=ids[None], use_cache=False).logits[0, -1].log_softmax(-1)
        two = logs[data.among[example]]
        losses.append(functional.cross_entropy(two, data.targets[example]))
    found = torch.stack(losses)
    return [found.detach(), *torch.autograd.grad((found * WEIGHTS).sum(), leaves)]


def of_pack(
    model: Any, leaves: list[Tensor], budget: int = TOTAL + 9,
    change: Callable[[packing.Pack], packing.Pack] = lambda pack: pack,
) -> list[Tensor]:  # fmt: skip
    """The same of a pack, changed perhaps."""
    packing.use_packed_attention(model)
    packs = packing.Packs(packed_runs.encoded(LENGTHS, 300), CPU)
    pack = change(packs.cut(EXAMPLES, THERE, budget))
    scores = packing.scores(model, pack, packs.among[EXAMPLES])
    losses = functional.cross_entropy(scores, packs.targets[EXAMPLES], reduction="none")
    return [losses.detach(), *torch.autograd.grad((losses * WEIGHTS).sum(), leaves)]


def apart(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, of the losses that count and, by norm, of all gradients."""
    loss = float((found[0] - wanted[0])[THERE].abs().max())
    one, other = (torch.cat([*map(torch.flatten, each[1:])]) for each in (found, wanted))
    assert float(other.norm()) > 1e-3
    return max(loss, float((one - other).norm() / other.norm()))


def test_packed_is_padded_is_alone(made: tuple[Any, list[Tensor]]) -> None:
    alone, mine = of_rows(*made), of_pack(*made)
    assert mine[0].dtype == torch.float64
    assert apart(mine, alone) < 1e-10
    assert apart(of_padded(*made), alone) < 1e-10


def merged(at: int) -> Callable[[packing.Pack], packing.Pack]:
    """One example sees the one before it."""

    def change(pack: packing.Pack) -> packing.Pack:
        kept = [place for place in range(len(pack.bounds)) if place != at]
        return pack._replace(bounds=pack.bounds[kept])

    return change


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_leak_shows(at: int) -> None:
    made = llama()
    assert apart(of_pack(*made, change=merged(at)), of_rows(*made)) > 1e-3


def test_a_wrong_position_shows() -> None:
    """Rotary positions tell distances alone, so it takes a model of absolute ones."""
    made = gpt2()
    goes_on = torch.arange(TOTAL + 9)[None]
    for wrong in (goes_on, torch.zeros_like(goes_on)):
        found = of_pack(*made, change=lambda pack, wrong=wrong: pack._replace(positions=wrong))
        assert apart(found, of_rows(*made)) > 1e-3


def test_filling_changes_nothing() -> None:
    made = llama()
    alone = of_rows(*made)
    for more in (0, 1, 50):
        assert apart(of_pack(*made, budget=TOTAL + more), alone) < 1e-10
    packs = packing.Packs(packed_runs.encoded(LENGTHS, 300), CPU)
    pack = packs.cut(EXAMPLES, THERE, TOTAL + 50)
    assert pack.bounds[0] == 0 and pack.bounds[-1] == TOTAL + 50 == pack.ids.shape[1]
    # Behind the longest, torch's kernel would write nothing.
    assert int(pack.bounds.diff().max()) <= pack.longest == 12
    assert int(pack.positions.max()) < 12
    other = packs.cut(torch.tensor([1, 1, 1, 1, 1]), THERE, TOTAL + 50)
    assert other.bounds.shape == pack.bounds.shape  # one graph for both


def run_of(way: Way, count: int = 21) -> Any:
    """Two epochs on the CPU with the stand-in graph; the last batch is short."""
    trainer = trainer_of(way, packed.drawn_lengths("sst2", count), 4, "cpu", small=True)
    trainer.total_steps = 2 * trainer.steps_per_epoch
    trainer.run()
    return trainer


def test_packed_updates_are_those_of_widths() -> None:
    runs = {way.kind: run_of(way) for way in WAYS if way.grouped}
    values = {
        kind: torch.cat([one.detach().flatten() for one in run.job.tuner.values]).double()
        for kind, run in runs.items()
    }
    assert set(values) == {"eager", "widths", "one", "budgets"}
    assert float(values["eager"].norm()) > 1e-2
    for kind, found in values.items():
        off = float((found - values["eager"]).norm() / values["eager"].norm())
        assert off < 1e-4, (kind, off)
    graphs = {kind: sum(n == "update" for n, _ in run.stepper.graphs) for kind, run in runs.items()
              if kind != "eager"}  # fmt: skip
    assert graphs["one"] == 1 < graphs["budgets"] <= 12


def test_a_wrong_pack_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = packed.drawn_lengths("sst2", 16)
    trainer = trainer_of(WAYS[1], lengths, 4, "cpu", small=True)
    found = packed_runs.check(trainer)
    assert found["differs"] < 1e-4 < found["leaking differs"]
    assert not any(bool(one.any()) for one in (*trainer.stepper.grads, trainer.stepper.loss))
    masked = packing.masked
    monkeypatch.setattr(
        packing, "masked", lambda q, k, v, bounds, *rest: masked(q, k, v, bounds[::2], *rest)
    )
    with pytest.raises(packed_runs.Wrong, match="differs from padded"):
        packed_runs.check(trainer)


def varlen_of_2_10(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int,
                   max_k: int, is_causal: bool = False) -> Tensor:  # fmt: skip
    assert is_causal and cu_seq_q is cu_seq_k and cu_seq_q.dtype == torch.int32
    assert max_q == max_k >= int(cu_seq_q.diff().max())
    if query.shape[1] != key.shape[1]:
        raise RuntimeError("heads")
    q, k, v = (one.transpose(0, 1)[None] for one in (query, key, value))
    return packing.masked(q, k, v, cu_seq_q, max_q, query.shape[2] ** -0.5)[0]


def varlen_of_2_11(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int,
                   max_k: int, *, scale: float | None = None,
                   window_size: tuple[int, int] = (-1, -1)) -> Tensor:  # fmt: skip
    """Shares heads, as the kernel below it does, with no word said."""
    assert window_size == (-1, 0) and scale is not None and cu_seq_q.dtype == torch.int32
    q, k, v = (one.transpose(0, 1)[None] for one in (query, key, value))
    return packing.masked(q, k, v, cu_seq_q, max_q, scale)[0]


def varlen_of_2_13(query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int,
                   max_k: int, *, scale: float | None = None,
                   window_size: tuple[int, int] = (-1, -1),
                   enable_gqa: bool = False) -> Tensor:  # fmt: skip
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return varlen_of_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale,
                          window_size=window_size)  # fmt: skip


@pytest.mark.parametrize("function", [varlen_of_2_10, varlen_of_2_11, varlen_of_2_13])
def test_torchs_attention_is_called_as_it_is_in(
    function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn.attention import varlen

    installed = inspect.signature(varlen.varlen_attn).parameters
    assert {"window_size", "scale", "enable_gqa"} <= {*installed}
    monkeypatch.setattr(varlen, "varlen_attn", function)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 20, 8) for heads in (6, 2, 2))
    bounds = torch.tensor([0, 5, 5, 14, 20], dtype=torch.int32)
    how = query, key, value, bounds, 9, 8**-0.5
    assert torch.allclose(packing.varlen(*how), packing.masked(*how), atol=1e-6)
    if function is not varlen_of_2_13:  # that one has a word for it
        assert packing.takes_fewer_heads(function, CPU) == (function is varlen_of_2_11)
    if function is varlen_of_2_10:
        with pytest.raises(ValueError, match="scaled by"):
            packing.varlen(*how[:5], 1.0)


@pytest.mark.parametrize("grouped", [True, False])
def test_budgets_hold_their_batches(grouped: bool) -> None:
    """Several have under 10 % more tokens, as widths; one has as many as the largest batch."""
    from beftkit.tasks.costs import costs_of

    lengths = packed.drawn_lengths("sst2", 1000)
    costs = costs_of(packed_runs.build("meta"), half=True)
    totals = packing.planned_totals(lengths, 8, 5, 0, grouped)
    batches = plan(lengths, 8, seed=0, epoch=3, grouped=grouped)
    assert totals[3] == [int(lengths[one].sum()) for one in batches]
    one = packing.choose_budgets(totals, costs, one=True, everything=False)
    several = packing.choose_budgets(totals, costs, one=False, everything=False)
    assert one.chosen == (max(map(max, totals)),) and one.added > 0.5
    assert 1 < len(several.chosen) <= 12 and several.added < 0.1
    for total in totals[3]:
        assert total <= several.of(total)[0] <= one.of(total)[0] and one.of(total)[1]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(packed, "LENGTHS", {"sst2": packed.LENGTHS["sst2"]})
    yield


def rows_in(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return [*csv.DictReader(lines)]


def test_dry(short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--dry", "--examples", "24", "--batches", "4", "--output", str(tmp_path)]
    assert packed.main(given) == 0, capsys.readouterr().out
    rows = rows_in(tmp_path / "packed-cpu-dry.csv")
    assert [row["way"] for row in rows] == [way.name for way in WAYS]
    assert all(float(row["update ms"]) > 0 for row in rows)
    assert all(bool(row["differs"]) == row["way"].startswith("packed") for row in rows)
    assert "| packed, one budget |" in (tmp_path / "packed-cpu-dry.md").read_text()
    assert packed.main([*given, "--seconds", "0"]) == 0
    assert {row["failed"] for row in rows_in(tmp_path / "packed-cpu-dry.csv")} == {"no time"}


def test_a_row_that_fails(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_runs, "AGREE", {"fp32": -1.0})
    monkeypatch.setattr(packed, "WAYS", WAYS[:2])
    given = ["--dry", "--examples", "24", "--batches", "4", "--output", str(tmp_path)]
    assert packed.main(given) == 1
    widths, budgets = rows_in(tmp_path / "packed-cpu-dry.csv")
    assert widths["update ms"] and not widths["failed"]
    assert budgets["failed"].startswith("Wrong: packed differs") and not budgets["update ms"]


def test_tokens(short: None, tmp_path: Path) -> None:
    given = ["--tokens", "--examples", "200", "--batches", "8", "--output", str(tmp_path)]
    assert packed.main(given) == 0
    rows = rows_in(tmp_path / "packed-tokens.csv")
    shares = {(row["order"], row["way"]): float(row["share"]) for row in rows}
    for order in ("grouped", "shuffled"):
        assert shares[order, "real"] == 1 < shares[order, "padded"] <= shares[order, "widths"]
        assert shares[order, "budgets"] < 1.1 and shares[order, "one"] > 1.3
    assert shares["shuffled", "padded"] > shares["grouped", "padded"]


def test_costs_of_a_run() -> None:
    costs = Costs(launch=0.02, token=1e-4, capture=0.05, first=0.1)
    updates = [(100, True), (100, False), (500, False)]
    assert packed.costed(updates, 2, costs) == pytest.approx(0.01 + 0.02 + 0.05 + 0.1 + 0.1)
    assert packed.costed(updates[1:], 0, costs) == pytest.approx(0.07)


@pytest.mark.gpu
@pytest.mark.parametrize("way", [way for way in WAYS if way.name.startswith("packed")])
def test_on_a_gpu(way: Way) -> None:
    """torch's kernel in bf16, captured, replayed on batches it was not captured with."""
    trainer = trainer_of(way, packed.drawn_lengths("sst2", 64), 8, "cuda", small=True)
    found = packed_runs.check(trainer)
    assert found["differs"] < 0.1 < found["leaking differs"]
