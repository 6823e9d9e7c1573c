"""Written answers: losses and texts against transformers' own, and prompts alone as tokens."""

from __future__ import annotations

import string
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from beftkit.errors import BeftError
from beftkit.gradients import example_squares
from beftkit.objectives import make_objective, writing
from beftkit.objectives.shots import Shots, demonstrate
from beftkit.tasks import Batch, Encoded
from beftkit.tasks.answer_metrics import written_errors
from beftkit.tasks.data import Split
from beftkit.tasks.prompts import Prompted, prompted
from tests.causal_models import byte_level, questions, wrapped
from tests.tiny_models import build

FAMILIES = ("opt", "gpt2", "gpt-neox", "qwen2", "llama")
OBJECTIVE = make_objective("generation")
PROMPTS = ("the film", "a very old song of its own with some plot", "x", "new: the plot?\nAnswer:")
ANSWERS = (("great",), ("very old", "old"), ("a new one of its own", "x"), ("plot",))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return wrapped(byte_level(questions(100, 5), "</s>"))


def model(family: str, tokenizer: Any) -> Any:
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "n_positions": 128}
    return build(family, torch.float64, **size)


def encoded(tokenizer: Any, max_length: int = 128) -> Encoded:
    asked = tuple(
        Prompted(prompt, (f" {own[0]}\n",), (0,), own)
        for prompt, own in zip(PROMPTS, ANSWERS, strict=True)
    )
    return OBJECTIVE.encode(Split((), np.arange(len(asked)), asked), tokenizer, max_length)


def whole(found: Encoded) -> Batch:
    return found.batch(torch.arange(len(found)))


@pytest.mark.parametrize("family", [*FAMILIES, "llama-eager", "bloom"])
def test_a_batch_is_written_as_transformers_writes_each_alone(
    family: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stop at different places, so rows are dropped on the way; penalties are not heeded."""
    import transformers

    family, _, attention = family.partition("-e")
    network = model(family, tokenizer)
    if attention:  # rows of padding would be NaN
        network.set_attn_implementation("eager")
    given, most = whole(encoded(tokenizer)).inputs, 16
    theirs = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        made = network.generate(
            **ids, max_new_tokens=most, do_sample=False, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=1,
        )[0, ids["input_ids"].shape[1] :]  # fmt: skip
        theirs.append(
            tokenizer.decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
    # A letter that ends as many rows as can be, each at another place.
    stop = max(string.ascii_letters, key=lambda one: len({text.find(one) for text in theirs}))
    assert len({text.find(stop) for text in theirs}) > 1
    monkeypatch.setattr(writing, "STOP", stop)
    with torch.inference_mode():
        found = writing.written(network, given, tokenizer, most=most)
    assert found == [text.partition(stop)[0].strip() for text in theirs]
    network.generation_config = transformers.GenerationConfig(repetition_penalty=9.0)
    with torch.inference_mode():
        assert writing.written(network, given, tokenizer, most=most) == found


def test_an_end_token_ends_an_answer_and_no_blank_stays(tokenizer: Any) -> None:
    network = model("gpt2", tokenizer)
    given = {
        f"prompt_{name}": value for name, value in tokenizer(["x"], return_tensors="pt").items()
    }
    script = [*tokenizer.encode(" so ", add_special_tokens=False), tokenizer.eos_token_id, 40, 41]

    def forward(*_: Any, **options: Any) -> Any:
        logits = torch.zeros(1, 1, len(tokenizer))
        logits[0, 0, script[options["attention_mask"].shape[1] - 2]] = 1.0
        return type("Made", (), {"logits": logits, "past_key_values": None})()

    network.forward = forward
    assert writing.written(network, given, tokenizer) == ["so"]


def test_a_row_that_is_done_says_no_more_where_it_cannot_be_dropped(tokenizer: Any) -> None:
    """A cache of another kind keeps all rows to the end, and a done one writes on."""
    network, end = model("gpt2", tokenizer), tokenizer.eos_token_id
    given = {
        f"prompt_{name}": value
        for name, value in tokenizer(["x", "y"], return_tensors="pt").items()
    }
    so = tokenizer.encode(" so so", add_special_tokens=False)
    scripts, asked = [[end, *[40] * 60], [*so, end, *[41] * 60]], []

    def forward(*_: Any, **options: Any) -> Any:
        logits = torch.zeros(2, 1, len(tokenizer))
        for row, script in enumerate(scripts):
            logits[row, 0, script[len(asked)]] = 1.0
        asked.append(options["input_ids"].shape)
        return type("Made", (), {"logits": logits, "past_key_values": object()})()

    network.forward = forward
    assert writing.written(network, given, tokenizer) == ["", "so so"]
    assert len(asked) == len(so) + 1, "nobody writes on once all are done"


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_sums_over_the_answers_tokens_and_steps_their_mean(
    family: str, tokenizer: Any
) -> None:
    network, found = model(family, tokenizer), encoded(tokenizer)
    batch = whole(found)
    losses, _ = OBJECTIVE.losses(network, batch)
    total = 0
    for loss, prompt, own in zip(losses, PROMPTS, ANSWERS, strict=True):
        ids = tokenizer(f"{prompt} {own[0]}\n", return_tensors="pt")["input_ids"]
        tokens = ids.shape[1] - len(tokenizer(prompt)["input_ids"])
        logs = network(input_ids=ids).logits[0, :-1].log_softmax(-1)
        each = logs.gather(1, ids[0, 1:, None])[-tokens:]
        assert float((loss + each.sum()).detach().abs()) < 1e-10
        total += tokens
    assert OBJECTIVE.units(found, torch.arange(len(found))) == total
    at = batch.inputs["answer_at"]
    labels = torch.full_like(batch.inputs["input_ids"], -100)
    rows, columns = (at >= 0).nonzero().unbind(1)
    cells = rows, at[rows, columns]
    labels[cells] = batch.inputs["input_ids"][cells]
    mean = network(
        input_ids=batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"],
        labels=labels,
    ).loss  # fmt: skip
    mean = mean.double()  # it was formed in float32
    torch.testing.assert_close(losses.sum() / total, mean, rtol=1e-6, atol=0)


def test_the_fisher_is_of_the_whole_answer(tokenizer: Any) -> None:
    network, found = model("qwen2", tokenizer), encoded(tokenizer)
    name = "model.layers.0.self_attn.v_proj.bias"
    squares = example_squares(
        network, [name], [whole(found)], lambda model, given: OBJECTIVE.losses(model, given)[0]
    )
    bias = network.get_parameter(name).requires_grad_(True)
    wanted = torch.zeros_like(bias)
    for n in range(len(found)):
        loss = OBJECTIVE.losses(network, found.batch(torch.tensor([n])))[0].sum()
        wanted += torch.autograd.grad(loss, bias)[0].square()
    torch.testing.assert_close(squares.sums[name], wanted, rtol=1e-8, atol=0)
    assert OBJECTIVE.nll_factor == 1.0


def test_prompts_leave_room_and_keep_their_start(tokenizer: Any) -> None:
    found = encoded(tokenizer, 58)
    assert found.prompts is not None and found.truncated >= 2
    assert int(found.prompts.lengths.max()) == 8
    given = whole(found).inputs
    ids, mask = given["prompt_input_ids"], given["prompt_attention_mask"]
    for row, there, prompt in zip(ids, mask, PROMPTS, strict=True):
        own = row[there.bool()].tolist()
        alone = tokenizer(prompt)["input_ids"]
        assert own == (alone if len(alone) <= 8 else [alone[0], *alone[-7:]])
        assert there.tolist() == sorted(there.tolist())  # filled up on the left
    with pytest.raises(BeftError, match="max_length=51: leaves no room for a prompt and 50 tokens"):
        encoded(tokenizer, 51)
    some = found.take(torch.tensor([2, 0]))
    assert [one.prompt for one in some.asked] == ["x", "the film"]
    again = some.batch(torch.tensor([0])).inputs["prompt_input_ids"]
    assert again.tolist() == [tokenizer("x")["input_ids"]]


def test_examples_without_known_answers(tokenizer: Any) -> None:
    from beftkit.registry import TASKS

    split = OBJECTIVE.posed([["t"], ["It ran."], [" Who? "]], TASKS["squad"])
    row = {"title": "t", "context": "It ran.", "question": "Who?", "answers": ["It"]}
    assert split.asked[0].prompt == prompted("squad", row).prompt and not split.asked[0].gold
    drop = OBJECTIVE.posed([["It ran."], ["Who?"]], TASKS["drop"]).asked[0]
    assert drop.prompt == "Passage: It ran.\nQuestion: Who?\nAnswer:"
    own = OBJECTIVE.posed([["Say: "]], None)
    assert own.asked[0].prompt == "Say:"
    found = OBJECTIVE.encode(own, tokenizer, 100)
    assert whole(found).inputs["answer_at"].shape == (1, 0)
    with pytest.raises(BeftError, match="2 texts an example, and nothing says how"):
        OBJECTIVE.posed([["a"], ["b"]], None)


def test_metrics_and_their_errors() -> None:
    from scipy import stats

    asked = [Prompted("q", (" a b\n",), (0,), ("a b", "c"), (("a b",),))] * 4
    texts = ["The b!", "c", "d", "b c b"]
    found = OBJECTIVE.measure(["token_f1", "exact_match"], texts, np.arange(4), asked)
    each = [1.0, 1.0, 0.0, 0.5]  # "a" is an article
    assert found == pytest.approx({"token_f1": np.mean(each), "exact_match": 0.5})
    errors = OBJECTIVE.standard_errors(["token_f1"], texts, np.arange(4), asked)
    assert errors == {"token_f1": pytest.approx(stats.sem(each))}
    assert np.isnan(written_errors(["token_f1"], ["c"], asked[:1])["token_f1"])
    bare = [Prompted("q", (" a\n",), (0,), ("a",))]
    with pytest.raises(BeftError, match="metric='drop_f1': is for answers of several spans"):
        OBJECTIVE.measure(["drop_f1"], ["a"], np.arange(1), bare)
    with pytest.raises(BeftError, match="metric='accuracy': for written answers expected token_f1"):
        OBJECTIVE.measure(["accuracy"], ["a"], np.arange(1), bare)
    assert OBJECTIVE.baseline(["token_f1"], np.arange(1), bare) == {}


def test_demonstrations_leave_room_for_what_is_written(tokenizer: Any) -> None:
    """No prompt loses its beginning, which would be a demonstration's; no more go than need to."""

    def tokens(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    def split(count: int, first: int) -> Split:
        made = tuple(
            Prompted(f"Q{n}: how?\nAnswer:", (" great\n",), (0,), ("great",))
            for n in range(first, first + count)
        )
        return Split((), np.arange(count), made)

    lengths = partial(OBJECTIVE.lengths, tokenizer=tokenizer)
    whole = demonstrate(split(5, 90), split(20, 0), Shots(8), 9999, lengths, tokenizer)
    for less in (0, 1, 20, 80):
        most = max(tokens(one.prompt) for one in whole.split.asked) + writing.MOST - less
        found = demonstrate(split(5, 90), split(20, 0), Shots(8), most, lengths, tokenizer)
        encoded = OBJECTIVE.encode(found.split, tokenizer, most)
        assert encoded.truncated == 0 and (found.left_out > 0) == (less > 0)
        for one, all_of_it in zip(found.split.asked, whole.split.asked, strict=True):
            shown, every = one.prompt.split("\n\n"), all_of_it.prompt.split("\n\n")
            more = "\n\n".join([*every[: len(shown)], every[-1]])
            assert shown == every or tokens(more) + writing.MOST > most


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2"])
def test_an_evaluation_reads_each_prompt_once(family: str, tokenizer: Any) -> None:
    network, found = model(family, tokenizer), encoded(tokenizer)
    seen: list[int] = []
    network.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    for some in (torch.arange(4), torch.tensor([1]), torch.tensor([3, 0])):
        for side in ("right", "left"):
            batch = replace(found, padding_side=side).batch(some)
            with torch.inference_mode():
                wanted = OBJECTIVE.losses(network, batch)[0], OBJECTIVE.outputs(network, batch)
                seen.clear()
                losses, texts = OBJECTIVE.evaluated(network, batch)
            longest = batch.inputs["prompt_input_ids"].shape[1]
            assert seen.count(longest) == 1 and max(seen) == longest and len(seen) > 2
            torch.testing.assert_close(losses, wanted[0], rtol=0, atol=1e-10)
            assert texts == wanted[1]


def test_rows_that_are_not_their_prompts_and_answers_are_read_by_themselves(tokenizer: Any) -> None:
    network = model("llama", tokenizer)
    # Prompts are cut, rows are not; without a start token they still end alike.
    cut, bare = encoded(tokenizer, 58), wrapped(byte_level(questions(100, 5)))
    ends_alike = replace(encoded(bare, 58), tokenizer=tokenizer)
    other = encoded(tokenizer)
    other.ids[1] = 40  # a token of the first row's prompt, as where one lies over the border
    for found, some in (
        (cut, torch.arange(4)), (ends_alike, torch.arange(4)), (other, torch.arange(2)),
    ):  # fmt: skip
        batch = found.batch(some)
        with torch.inference_mode():
            wanted = OBJECTIVE.losses(network, batch)[0], OBJECTIVE.outputs(network, batch)
            losses, texts = OBJECTIVE.evaluated(network, batch)
            assert writing.read_once(network, batch.inputs, tokenizer) is None
        assert torch.equal(losses, wanted[0]) and texts == wanted[1]
    batch = encoded(tokenizer).batch(torch.arange(4))
    assert writing.read_once(network, batch.inputs, tokenizer) is None  # gradients are wanted
