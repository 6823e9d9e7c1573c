"""Language of a user's own: which tokens are learnt, losses, metrics, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from beftkit.accelerator import make_accelerator
from beftkit.errors import BeftError, UsageError
from beftkit.gradients import example_squares
from beftkit.objectives import for_files, kind_of, language, make_objective
from beftkit.objectives.passages import encode_conversations, encode_texts
from beftkit.objectives.templates import system_of_template
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Encoded, higher_is_better, load_files
from beftkit.tasks.conversations import Conversation, conversation
from beftkit.tasks.data import Split
from beftkit.tasks.language_metrics import language_errors, measure_language
from beftkit.tasks.own_language import load_language
from beftkit.tasks.prompts import Prompted
from beftkit.training.evaluation import evaluate_model
from tests import chats
from tests.causal_models import write_model
from tests.tiny_models import build

TOLD = (
    chats.turns("a dull film", "It was terrible", "a fine song", "It was great"),
    chats.turns("a very warm plot", "great", system="One word."),
    chats.turns("old", "It was  so\n\nvery cold ", "new", "", "warm"),
)


def told(turns: Sequence[chats.Turns] = TOLD) -> list[Conversation]:
    return [conversation(one, "messages", f"x.jsonl:{n}") for n, one in enumerate(turns, 1)]


def rows(found: Encoded) -> list[tuple[list[int], list[int]]]:
    """Ids and what is learnt, row by row."""
    assert found.learnt is not None
    return [
        (found.ids[a:b].tolist(), found.learnt[a:b].tolist())
        for a, b in zip(found.starts.tolist(), found.starts[1:].tolist(), strict=False)
    ]


def test_the_assistants_tokens_are_those_transformers_marks() -> None:
    judge = chats.tokenizer(chats.MARKED)
    found = encode_conversations(told(), np.zeros(3), chats.tokenizer(), 1000)
    for turns, (ids, learnt) in zip(TOLD, rows(found), strict=True):
        wanted = judge.apply_chat_template(
            turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert ids == wanted["input_ids"]
        assert learnt == wanted["assistant_masks"] and 0 < sum(learnt) < len(learnt)
    batch = found.batch(torch.tensor([2, 0]))
    at = batch.inputs["answer_at"]
    for row, example in enumerate((2, 0)):
        places = [n for n, one in enumerate(rows(found)[example][1]) if one]
        assert [n for n in at[row].tolist() if n >= 0] == places


def test_the_templates_own_words_are_noted() -> None:
    found = encode_conversations(told(), np.zeros(3), chats.tokenizer(), 1000)
    (note,) = found.notes
    assert "begins 2 of 3 conversations with a system message of its own: 'Be kind.'" in note
    bare = chats.PLAIN.partition("{% endif %}")[2]
    assert system_of_template(chats.tokenizer(bare), told()[0].turns) is None
    assert encode_conversations(told(), np.zeros(3), chats.tokenizer(bare), 1000).notes == ()
    uninviting = bare.partition("{% if add_generation_prompt")[0]
    found = encode_conversations(told(), np.zeros(3), chats.tokenizer(uninviting), 1000)
    assert "has no invitation to the assistant" in found.notes[0]
    usual = encode_conversations(told(), np.zeros(3), chats.tokenizer(bare), 1000)
    assert found.learnt is not None and usual.learnt is not None
    assert found.learnt.sum() > usual.learnt.sum()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "x.jsonl:1: messages, and the tokenizer has no chat template"),
        (chats.NO_PREFIX, "x.jsonl:1: the turns before message 2 are written otherwise"),
        ("{{ raise_exception('roles must\nalternate') }}", r"x.jsonl:1: .* \(roles must alternate"),
        ("{{ messages[9].content.x }}", "x.jsonl:1: the chat template refuses"),
        ("{{ ''.__class__.__mro__ }}", "x.jsonl:1: the chat template refuses"),
        ("{{ 'x' * 5000000 }}", "x.jsonl:1: the chat template makes more than"),
        ("{% if", "x.jsonl:1: the chat template refuses"),
        ("hello", "x.jsonl:1: the chat template writes nothing of message 2"),
    ],
)
def test_a_template_that_does_not_do(template: str | None, message: str) -> None:
    with pytest.raises(BeftError, match=message) as caught:
        encode_conversations(told(), np.zeros(3), chats.tokenizer(template), 1000)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hello", "'hello'; expected a list of {role, content}"),
        ([], "expected a list of"),
        ([{"role": "user"}], "message 1: .*expected a list"),
        (chats.turns("a"), "no turn of the role 'assistant'"),
        (chats.turns("a", "b")[1:], "the assistant's turn comes first"),
        ([{"role": "user", "content": "a", "tool_calls": [1]}], "has tool_calls as well"),
        ([{"role": "user", "content": ["a"]}], "message 1: "),
    ],
)
def test_messages_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(BeftError, match=r"x:3: column 'messages'.*" + message):
        conversation(value, "messages", "x:3")


def test_json_of_messages_and_parquets_nulls_are_messages() -> None:
    wanted = told()[0].turns
    assert conversation(json.dumps(TOLD[0]), "messages", "x").turns == wanted
    nulls = [{**one, "tool_calls": None} for one in TOLD[0]]
    assert conversation(nulls, "messages", "x").turns == wanted


def test_texts_are_learnt_but_for_their_first_token_and_cut_at_their_end() -> None:
    tokenizer = chats.tokenizer()
    given = ["a film with a plot", "so very old", "the new song of its own"]
    found = encode_texts(given, np.zeros(3), tokenizer, 1000)
    assert rows(found) == [
        (ids, [0, *[1] * (len(ids) - 1)]) for ids in tokenizer(given)["input_ids"]
    ]
    cut = encode_texts(given, np.zeros(3), tokenizer, 4)
    assert [ids for ids, _ in rows(cut)] == [ids[:4] for ids, _ in rows(found)]
    assert cut.truncated == sum(len(ids) > 4 for ids, _ in rows(found)) > 0
    with pytest.raises(BeftError, match="example 2 of 2: '' gives 1 token, of which none"):
        encode_texts(["a", ""], np.zeros(2), tokenizer, 10)
    with pytest.raises(BeftError, match=r"x.jsonl:1: within 5 tokens \(max_length\) of \d+"):
        encode_conversations(told(), np.zeros(3), tokenizer, 5)


def test_completions_are_learnt_and_prompts_lose_their_beginning() -> None:
    asked = tuple(Prompted(*one, (0,)) for one in (("a film It", (" was great",)), ("a", ("b c",))))
    split, tokenizer = Split((), np.zeros(2, np.int64), asked), chats.tokenizer()
    objective = make_objective("language")
    found = objective.encode(split, tokenizer, 100)
    assert found.answers is not None
    for row, one in enumerate(asked):
        ids = found.ids[found.starts[row] : found.starts[row + 1]]
        assert tokenizer.decode(ids[-found.answers[row] :]).endswith(one.answers[0])
        assert tokenizer.decode(ids, skip_special_tokens=True) == one.prompt + one.answers[0]
    cut = objective.encode(split, tokenizer, int(found.lengths.max()) - 1)
    assert torch.equal(cut.answers, found.answers) and cut.truncated == 1
    assert torch.equal(found.take(torch.tensor([1])).answers, found.answers[1:])


def encoded(side: str = "right") -> Encoded:
    """Random rows of which some tokens are learnt; the first example has one alone."""
    draw = torch.Generator().manual_seed(4)
    lengths = [5, 9, 3, 12]
    learnt = (torch.rand(sum(lengths), generator=draw) < 0.4).to(torch.uint8)
    starts = torch.tensor([0, *lengths]).cumsum(0)
    learnt[:5] = torch.tensor([0, 0, 1, 0, 0])
    learnt[starts[:-1]] = 0
    learnt[starts[1:] - 1] |= torch.tensor([0, 1, 1, 1], dtype=torch.uint8)
    ids = torch.randint(3, 50, (sum(lengths),), generator=draw).int()
    zeros = torch.zeros(4, dtype=torch.int64)
    return Encoded(
        ids, None, starts, torch.arange(5), zeros, 0, 1, padding_side=side, learnt=learnt
    )  # fmt: skip


def alone(network: Any, found: Encoded) -> tuple[list[torch.Tensor], list[list[bool]]]:
    """-log p of each learnt token of each example, and whether it was the likeliest: by hand."""
    lost, hits = [], []
    for ids, learnt in rows(found):
        logs = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        at = [n for n, one in enumerate(learnt) if one]
        lost.append(torch.stack([-logs[n - 1, ids[n]] for n in at]))
        hits.append([int(logs[n - 1].argmax()) == ids[n] for n in at])
    return lost, hits


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["opt", "gpt2", "qwen2", "llama"])
def test_a_batch_gives_what_each_example_gives_alone(
    family: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, objective = build(family, torch.float64), make_objective("language")
    found = encoded(side)
    batch = found.batch(torch.arange(4))
    losses, outputs = objective.losses(network, batch)
    lost, hits = alone(network, found)
    assert (losses - torch.stack([one.mean() for one in lost])).abs().max() < 1e-10
    sums = torch.stack([one.sum() for one in lost])
    assert (objective.negative_log_likelihoods(network, batch) - sums).abs().max() < 1e-10
    counted = objective.predictions(outputs)
    assert [one[1:] for one in counted] == [(sum(one), len(one)) for one in hits]
    with torch.inference_mode():
        monkeypatch.setattr(language, "_LOGITS", 1)  # row by row
        assert (objective.outputs(network, batch) - outputs).abs().max() < 1e-10


def test_the_fisher_score_is_that_of_the_sum_over_an_examples_tokens() -> None:
    network, objective = build("qwen2", torch.float64), make_objective("language")
    found, name = encoded(), "model.layers.0.self_attn.v_proj.bias"
    batches = [found.batch(torch.arange(4))]
    squares = example_squares(
        network, [name], batches, objective.negative_log_likelihoods
    )  # fmt: skip
    parameter = dict(network.named_parameters())[name]
    wanted = sum(
        torch.autograd.grad(one.sum(), parameter)[0].square() for one in alone(network, found)[0]
    )
    torch.testing.assert_close(squares.sums[name], wanted, rtol=1e-8, atol=0)


COUNTED = [(3.0, 1.0, 2.0), (20.0, 4.0, 10.0), (1.5, 3.0, 3.0), (9.0, 0.0, 4.0)]


def test_perplexity_is_over_the_tokens_of_all_examples() -> None:
    found = measure_language(["perplexity", "token_accuracy"], COUNTED)
    assert found["perplexity"] == pytest.approx(math.exp(33.5 / 19))
    assert found["token_accuracy"] == 8 / 19
    assert make_objective("language").total_loss(0.0, COUNTED, None) == (33.5, 19)  # type: ignore[arg-type]
    assert math.isinf(measure_language(["perplexity"], [(9999.0, 0.0, 1.0)])["perplexity"])
    assert not higher_is_better("perplexity") and higher_is_better("token_accuracy")
    with pytest.raises(BeftError, match="'accuracy': is not for texts that are learnt; expected"):
        make_objective("language").check(["accuracy"], [0])
    with pytest.raises(BeftError, match="'perplexity': is for texts that are learnt"):
        ids = np.array([0, 1])
        make_objective("classes", ("a", "b")).measure(["perplexity"], ids, ids)


def test_standard_errors_are_scipys_bootstrap() -> None:
    draw = np.random.default_rng(1)
    counts = draw.integers(1, 20, 60).astype(float)
    table = [(float(n * draw.uniform(1, 3)), float(draw.integers(0, n + 1)), n) for n in counts]
    found = language_errors(["perplexity", "token_accuracy"], table)
    nll, hits, count = map(np.array, zip(*table, strict=True))
    for name, over, how in (("perplexity", nll, np.exp), ("token_accuracy", hits, np.asarray)):

        def statistic(a: Any, b: Any, how: Any = how) -> Any:
            return how(a.sum() / b.sum())

        wanted = stats.bootstrap(
            (over, count), statistic, paired=True, vectorized=False, n_resamples=2000,
            method="percentile", rng=np.random.default_rng(2),
        ).standard_error  # fmt: skip
        assert found[name] == pytest.approx(wanted, rel=0.15)
    assert math.isnan(language_errors(["perplexity"], table[:1])["perplexity"])
    far = [(2000.0, 0.0, 1.0), (1.0, 0.0, 1.0)]  # some samples are beyond all measure
    assert math.isnan(language_errors(["perplexity"], far)["perplexity"])


def settings(model: Path, file: Path, **more: Any) -> TrainSettings:
    return TrainSettings(model=str(model), train_file=str(file), **more)


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("opt") / "opt", "opt")


@pytest.mark.parametrize(
    ("row", "given", "kind"),
    [
        ({"prompt": "a", "completion": "b"}, {}, "language"),
        ({"prompt": "a", "completion": "b", "score": 1}, {}, "language"),
        ({"messages": TOLD[0]}, {}, "language"),
        ({"text": "a"}, {}, "language"),
        ({"q": "a", "a": "b"}, {"text_columns": "q,a"}, "language"),
        ({"text": "a", "label": 1}, {}, None),
        ({"text": "a", "label": 1}, {"as_": "language"}, "language"),
        ({"text": "a"}, {"as_": "classes"}, None),
        ({"text": "a"}, {"label_column": "text"}, None),
        ({"text": "a"}, {"new_head": True}, None),
        ({"sentence": "a"}, {}, None),
    ],
)
def test_columns_tell_what_a_causal_model_learns(
    opt: Path, tmp_path: Path, row: Any, given: Any, kind: str | None
) -> None:
    file = chats.write_lines(tmp_path / "x.jsonl", [row])
    found, notes = kind_of(settings(opt, file, **given))
    assert found == kind
    assert len(notes) == ("text" in row and "as_" not in given and kind is None and
                          not {"label_column", "new_head"} & {*given}) or kind  # fmt: skip
    assert kind is None or for_files(kind)


def test_what_is_not_clear_or_cannot_be_is_refused(opt: Path, tmp_path: Path) -> None:
    both = {"text": "a", "messages": TOLD[0]}
    file = chats.write_lines(tmp_path / "x.jsonl", [both])
    with pytest.raises(BeftError, match=r"holds messages and text, each .*text_columns='messages'"):
        kind_of(settings(opt, file))
    assert kind_of(settings(opt, file, text_columns="text"))[0] == "language"
    with pytest.raises(UsageError, match="as_='language' and label_column='x': language has no"):
        kind_of(settings(opt, file, as_="language", label_column="x"))
    with pytest.raises(UsageError, match="as_='language': is for files of your own"):
        kind_of(TrainSettings(model=str(opt), task="sst2", as_="language"))
    bert = tmp_path / "bert"
    build("bert").save_pretrained(bert)
    assert kind_of(settings(bert, file)) == (None, ())
    with pytest.raises(BeftError, match=r"as_='language': .*\(bert\) is no causal language model"):
        kind_of(settings(bert, file, as_="language"))
    with pytest.raises(UsageError, match=r"expected two .prompt and completion. or one"):
        load_files(file, kind="language", text_columns=["a", "b", "c"])
    with pytest.raises(BeftError, match="no prompt and completion, messages or text"):
        load_files(chats.write_lines(tmp_path / "y.jsonl", [{"a": 1}]), kind="language")
    empty = chats.write_lines(tmp_path / "z.jsonl", [{"text": "a"}, {"text": ""}])
    with pytest.raises(BeftError, match=r"z.jsonl:2: nothing in column 'text'"):
        load_files(empty, kind="language")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv"])
def test_files_of_every_form_hold_the_same(tmp_path: Path, suffix: str) -> None:
    import pandas

    path, table = tmp_path / f"x{suffix}", pandas.DataFrame({"messages": TOLD})
    if suffix == ".csv":
        table.assign(messages=table["messages"].map(json.dumps)).to_csv(path, index=False)
    elif suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=suffix == ".jsonl")
    data = load_language({"train": path})
    assert data.train is not None
    assert [one.turns for one in data.train.conversations] == [one.turns for one in told()]
    assert data.train.take([1]).conversations == data.train.conversations[1:2]
    assert data.notes == (
        "column 'messages': conversations, of which the assistant's turns are learnt",
    )
    assert replace(data, notes=()).counts == {}


def test_examples_that_are_all_alike_are_no_constant_answer() -> None:
    network, found = build("qwen2"), encoded()
    twice = found.take(torch.tensor([1, 1]))
    what = network, {"validation": twice}, make_objective("language"), ["perplexity"]
    evaluation = evaluate_model(*what, make_accelerator("cpu"), 2)
    assert not evaluation.constant and not evaluation.at_baseline
    assert evaluation.loss == pytest.approx(math.log(evaluation.metrics["perplexity"] or 0))
    assert evaluation.standard_errors["perplexity"] == pytest.approx(0, abs=1e-9)
