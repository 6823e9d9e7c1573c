"""Rows of a batch, told from tokens: what a bank's hooks do where a model mixes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from beftkit.adapters import write_adapter
from beftkit.errors import BeftError
from beftkit.tuning.bank import Rows, RowVectors
from beftkit.weights import BiasBank, collect_tuned
from tests.test_bank import close, tokens
from tests.tiny_models import build


class Tokens(torch.nn.Module):
    """A model in small: rows and tokens in the order that is asked for, then a Linear."""

    main_input_name = "input_ids"
    base_model_prefix = ""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.inner = form, torch.nn.Linear(4, 4)

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
        if self.form == "flat":
            return (self.inner(input_ids.flatten(0, 1)).view_as(input_ids),)
        if self.form == "tokens first":
            return (self.inner(input_ids.transpose(0, 1)).transpose(0, 1),)
        if self.form == "by hand":
            return (torch.nn.functional.linear(input_ids, self.inner.weight, self.inner.bias),)
        return (self.inner(input_ids),)


def small_bank(form: str, tmp_path: Path) -> BiasBank:
    model = Tokens(form)
    for number in range(2):
        before = {"inner.bias": model.inner.bias.detach() - 1 - number}
        what = collect_tuned(model, before)
        write_adapter(
            tmp_path / str(number), what, format="beft", base="b", task_type=None, metadata={}
        )
    return BiasBank(model, {str(n): tmp_path / str(n) for n in range(2)})


@pytest.mark.parametrize("length", [3, 2])
@pytest.mark.parametrize(
    ("form", "match"),
    [
        ("flat", "inner: gives .* for 2 rows; where rows and tokens share a dimension"),
        ("tokens first", "inner: gives "),
        ("by hand", "inner: did not run as a module of its own"),
    ],
)
def test_rows_that_are_not_kept_apart(tmp_path: Path, form: str, match: str, length: int) -> None:
    """As many tokens as rows hide which is which: then one row alone is run first."""
    bank = small_bank(form, tmp_path)
    with pytest.raises(BeftError, match=match):
        bank(names=["0", "1"], input_ids=torch.randn(2, length, 4))
    if form != "by hand":  # one for all needs no row
        x = torch.randn(2, length, 4)
        got = torch.stack(bank(names=["1", "1"], input_ids=x))
        torch.testing.assert_close(got, bank.model(x)[0] + 2)


def test_as_many_tokens_as_rows(tmp_path: Path) -> None:
    bank, x = small_bank("plain", tmp_path), torch.randn(3, 3, 4)
    with pytest.raises(BeftError, match="pad by one more token"), bank.rows(["0", "1", None]):
        bank.model(x)
    got = torch.stack(bank(names=["0", "1", None], input_ids=x))
    want = bank.model(x)[0] + torch.tensor([1.0, 2.0, 0.0])[:, None, None]
    torch.testing.assert_close(got, want)
    with bank.rows(["1", "1", "0"]) as model:  # known by now
        again = model(x)[0]
    torch.testing.assert_close(again[2], bank.model(x)[0][2] + 1)


def test_opt_s_mlp_sees_tokens_of_all_rows(tmp_path: Path) -> None:
    """transformers puts them into one dimension before fc1: refused, or right."""
    base = build("opt").eval()
    name = "model.decoder.layers.0.fc1.bias"
    what = collect_tuned(base, {name: base.get_parameter(name) - 1})
    write_adapter(tmp_path, what, format="beft", base="b", task_type=None, metadata={})
    bank, ids = BiasBank(base, {"m2": tmp_path}), tokens(2)
    with torch.no_grad():
        try:
            got = bank(names=["m2", None], input_ids=ids)
        except BeftError as error:
            assert "fc1" in str(error) and "share a dimension" in str(error)
        else:
            close(got[1], build("opt").eval()(input_ids=ids).logits[1])


def test_the_hook_alone() -> None:
    """The table is [K, D]; a variant without a vector costs nothing, to the bit."""
    module, rows = torch.nn.Linear(3, 5, bias=False), Rows()
    hook = RowVectors(module, "m", rows, 5, 1)
    hook.append(torch.arange(5.0))
    hook.append(None)
    x = torch.randn(4, 2, 3)
    plain = module(x)
    rows.begin([0, 1, 2, 1])
    want = plain + torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None, None] * torch.arange(5.0)
    assert torch.equal(module(x), want)
    rows.begin([0, 2, 0, 2])
    assert torch.equal(module(x), plain) and hook.table.shape == (3, 5)
    rows.end()
    hook.close()
    assert torch.equal(module(x), plain)


def test_variants_that_move_up_keep_their_vectors() -> None:
    """Of those before them one without a vector here is dropped, and one with a vector."""
    module, rows = torch.nn.Linear(3, 5, bias=False), Rows()
    hook = RowVectors(module, "m", rows, 5, 1)
    vectors = (None, torch.arange(5.0), None, torch.ones(5))
    for vector in vectors:
        hook.append(vector)
    x = torch.randn(2, 3, 3)
    plain = module(x)
    assert [hook.wanted([n]) for n in range(5)] == [False, False, True, False, True]
    hook.drop(1)
    assert [hook.wanted([n]) for n in range(4)] == [False, True, False, True]
    rows.begin([1, 3])
    want = plain + torch.stack([torch.arange(5.0), torch.ones(5)])[:, None]
    assert torch.equal(module(x), want)
    hook.drop(1)
    rows.begin([1, 1])
    assert not rows.ran and torch.equal(module(x), plain) and rows.ran == {"m"}
    rows.begin([2, 2])
    assert not rows.ran, "what ran for another batch says nothing of this one"
    assert torch.equal(module(x), plain + 1)
