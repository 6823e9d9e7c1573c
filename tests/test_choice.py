"""Scores of answers against one example at a time, and what decides how a task meets a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from beftkit.errors import BeftError, UsageError
from beftkit.gradients import example_squares
from beftkit.objectives import kind_of, kind_said, make_objective
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Batch, Encoded
from beftkit.tasks.data import Split
from beftkit.tasks.prompts import Prompted
from tests.causal_models import write_model
from tests.tiny_models import build

FAMILIES = ("opt", "gpt2", "gpt-neox", "qwen2", "llama")
LABELS = ("no", "yes", "maybe")
#: tokens of prompt and answers of each example
SIZES = ((7, (1, 1, 2)), (3, (2, 1, 3)), (12, (1, 4, 1)), (1, (1, 1, 1)))


def examples(sizes: Any = SIZES) -> Encoded:
    """Rows of random tokens, right padded; the answers' lengths differ."""
    draw = torch.Generator().manual_seed(4)
    rows, answers = [], []
    for prompt, own in sizes:
        shared = torch.randint(3, 50, (prompt,), generator=draw)
        for count in own:
            rows.append(torch.cat([shared, torch.randint(3, 50, (count,), generator=draw)]))
            answers.append(count)
    counts = [len(own) for _, own in sizes]
    lengths = torch.tensor([0, *map(len, rows)]).cumsum(0)
    return Encoded(
        torch.cat(rows).int(), None, lengths, torch.tensor([0, *counts]).cumsum(0),
        torch.tensor([number % len(own) for number, (_, own) in enumerate(sizes)]), 0, 1,
        answers=torch.tensor(answers),
    )  # fmt: skip


def batch(found: Encoded, side: str = "right") -> Batch:
    return replace(found, padding_side=side).batch(torch.arange(len(found)))


def alone(network: Any, found: Encoded) -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
    """Scores and loss of each example, each row by itself, all logits, by hand."""
    assert found.answers is not None
    scores, losses = [], []
    for example in range(len(found)):
        own = []
        for row in range(int(found.first_row[example]), int(found.first_row[example + 1])):
            ids = found.ids[found.starts[row] : found.starts[row + 1]].long()
            logs = network(input_ids=ids.unsqueeze(0)).logits[0].log_softmax(-1)
            begin = len(ids) - int(found.answers[row])
            each = [logs[at - 1, ids[at]] for at in range(begin, len(ids))]
            own.append(torch.stack(each).mean())
        scores.append(own)
        losses.append(-torch.stack(own).log_softmax(0)[found.targets[example]])
    return scores, losses


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_each_example_gives_alone(family: str, side: str) -> None:
    network = build(family, torch.float64)
    assert network.config._attn_implementation == "sdpa"
    found = examples()
    losses, outputs = make_objective("choice", LABELS).losses(network, batch(found, side))
    scores, expected = alone(network, found)
    wanted = torch.stack([torch.stack(one) for one in scores])
    assert (losses - torch.stack(expected)).abs().max() < 1e-10
    assert (outputs - wanted).abs().max() < 1e-10
    assert torch.equal(make_objective("choice", LABELS).predictions(outputs), wanted.argmax(1))


def test_examples_with_answers_of_their_own() -> None:
    """As many as each has; what an example lacks is never chosen."""
    network = build("gpt2", torch.float64)
    found = examples(((5, (1, 2)), (3, (1,)), (4, (3, 1, 2, 1))))
    losses, outputs = make_objective("choice").losses(network, batch(found))
    scores, expected = alone(network, found)
    torch.testing.assert_close(losses, torch.stack(expected), rtol=0, atol=1e-10)
    for given, own in zip(outputs, scores, strict=True):
        torch.testing.assert_close(given[: len(own)], torch.stack(own), rtol=0, atol=1e-10)
        assert (given[len(own) :] == float("-inf")).all()


def test_only_the_places_before_answers_go_through_the_vocabulary() -> None:
    network, seen = build("qwen2"), []
    head = network.get_output_embeddings()
    head.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    losses, _ = make_objective("choice", LABELS).losses(network, batch(examples()))
    assert seen == [(12, 4, 50)]  # rows, tokens of the longest answer
    losses.sum().backward()
    # a head of a kind of its own, which no hook sees: all logits, the same losses
    network.get_output_embeddings = lambda: None
    again, _ = make_objective("choice", LABELS).losses(network, batch(examples()))
    torch.testing.assert_close(again, losses, rtol=1e-5, atol=1e-6)


def test_what_a_model_does_to_its_logits_stays() -> None:
    network = build("gemma2", torch.float64, final_logit_softcapping=2.0)
    losses, _ = make_objective("choice", LABELS).losses(network, batch(examples()))
    expected = torch.stack(alone(network, examples())[1])
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-6)  # its softmax is float32


def test_half_precision_is_left_before_the_loss() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = make_objective("choice", LABELS).losses(build("opt"), batch(examples()))
    assert [one.dtype for one in found] == [torch.float32, torch.float32]


@pytest.mark.parametrize("family", ["opt", "gpt2", "qwen2"])
def test_the_fisher_of_an_example_is_that_of_its_whole_loss(family: str) -> None:
    network, found = build(family, torch.float64), examples()
    names = [
        name for name, value in network.named_parameters()
        if name.endswith("bias") and value.dim() == 1
    ]  # fmt: skip
    objective = make_objective("choice", LABELS)
    squares = example_squares(
        network, names, [batch(found)], lambda model, given: objective.losses(model, given)[0]
    )
    assert (squares.examples, squares.alone) == (len(SIZES), ())
    parameters = dict(network.named_parameters())
    for name in names:
        parameters[name].requires_grad_(True)
    losses = alone(network, found)[1]
    for name in names:
        each = [
            torch.autograd.grad(loss, parameters[name], retain_graph=True)[0] for loss in losses
        ]
        wanted = torch.stack(each).square().sum(0)
        torch.testing.assert_close(squares.sums[name], wanted, rtol=1e-8, atol=1e-22)


@pytest.mark.parametrize(("family", "inert"), [("opt", True), ("qwen2", False)])
def test_key_biases_are_inert_where_positions_are_not_rotary(family: str, inert: bool) -> None:
    network = build(family, torch.float64)
    losses, _ = make_objective("choice", LABELS).losses(network, batch(examples()))
    losses.sum().backward()
    norms = {
        role: torch.cat(
            [one.grad for name, one in network.named_parameters() if f"{role}_proj.bias" in name]
        ).norm()
        for role in "qk"
    }  # fmt: skip
    ratio = norms["k"] / norms["q"]
    assert ratio <= 1e-14 if inert else ratio > 1e-2


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("opt") / "base", "opt")


def settings(model: Path | str, **given: Any) -> TrainSettings:
    return TrainSettings(**{"model": str(model), "task": "sst2", **given})


def test_opt_begins_with_id_0_and_others_as_their_tokenizer_has_it(
    opt: Path, tmp_path: Path
) -> None:
    """The tokenizer itself puts </s> first, as OPT's does."""
    import transformers

    assert transformers.AutoTokenizer.from_pretrained(opt)("a film")["input_ids"][0] == 2
    objective = make_objective("choice", LABELS)
    loaded = objective.load(settings(opt), 0)
    split = Split((), torch.tensor([0]).numpy(), (Prompted("a film", (" great",), (0,)),))
    ids = objective.encode(split, loaded.tokenizer, 64).ids.tolist()
    assert ids[0] == 0 and 2 not in ids
    assert loaded.tokenizer.decode(ids[1:]) == "a film great"
    assert loaded.tokenizer.padding_side == "right" and loaded.tokenizer.bos_token_id == 0
    other = objective.load(settings(write_model(tmp_path / "gpt2", "gpt2")), 0)
    assert objective.encode(split, other.tokenizer, 64).ids.tolist() == [2, *ids[1:]]


def changed(model: Path, folder: Path, **config: Any) -> Path:
    """The configuration alone, with other entries: it is all that decides."""
    folder.mkdir()
    found = json.loads((model / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, **config}))
    return folder


@pytest.mark.parametrize(
    ("architecture", "kind", "note"),
    [
        ("OPTForCausalLM", "choice", "is a causal language model: sst2 is asked as a prompt"),
        ("OPTForSequenceClassification", "classes", "has a classifier"),
        ("OPTModel", "choice", "--as classes puts a classifier on it"),
    ],
)
def test_the_architecture_decides(
    opt: Path, tmp_path: Path, architecture: str, kind: str, note: str
) -> None:
    model = changed(opt, tmp_path / "model", architectures=[architecture])
    found, notes = kind_of(settings(model))
    assert found == kind and len(notes) == 1 and note in notes[0]
    assert kind_of(settings(model, as_="choice")) == ("choice", ())
    assert kind_of(settings(model, as_="classes")) == ("classes", ())
    assert kind_of(settings(model, new_head=True)) == ("classes", ())


def test_what_is_no_decoder_has_classes(tiny: Path, tmp_path: Path) -> None:
    base = tiny / "base"
    for number, named in enumerate((["BertModel"], ["BertLMHeadModel"], ["BertForMaskedLM"], None)):
        model = changed(base, tmp_path / f"{number}", architectures=named)
        assert kind_of(settings(model)) == ("classes", ())
        with pytest.raises(BeftError, match=r"as_='choice': .*bert.* is no causal language model"):
            kind_of(settings(model, as_="choice"))
    decoder = changed(base, tmp_path / "decoder", is_decoder=True)
    assert kind_of(settings(decoder))[0] == "choice"


def test_what_does_not_go_together(opt: Path) -> None:
    assert kind_of(settings(opt, task="cola")) == (None, ())
    with pytest.raises(UsageError, match="as_='choice': there are prompts for sst2, rte, cb"):
        kind_of(settings(opt, task="cola", as_="choice"))
    with pytest.raises(UsageError, match="as_='choice': there are prompts"):
        kind_of(settings(opt, task=None, train_file="x.csv", as_="choice"))
    with pytest.raises(UsageError, match="new_head=True: with as_='choice' there is no classifier"):
        kind_of(settings(opt, as_="choice", new_head=True))
    assert kind_said("choice", "SEQ_CLS") == "choice"
    assert [kind_said(None, one) for one in ("SEQ_CLS", "CAUSAL_LM", None)] == [
        "classes", "choice", None,
    ]  # fmt: skip


def test_a_checkpoint_without_its_head_is_refused(tmp_path: Path) -> None:
    import transformers

    folder = write_model(tmp_path / "llama", "llama", tie_word_embeddings=False)
    network = transformers.AutoModel.from_pretrained(folder)
    network.save_pretrained(folder)
    with pytest.raises(BeftError, match=r"holds no lm_head\.weight.*answer by lot"):
        make_objective("choice", LABELS).load(settings(folder), 0)
