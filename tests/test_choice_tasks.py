"""COPA, WSC, MultiRC and ReCoRD of causal models: losses, figures, and the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as judge

import beftkit as package
from beftkit.accelerator import make_accelerator
from beftkit.errors import BeftError
from beftkit.gradients import example_squares
from beftkit.gradients.means import published_means
from beftkit.objectives import make_objective
from beftkit.registry import TASKS
from beftkit.settings.train import TrainSettings
from beftkit.tasks import Encoded, load_task
from beftkit.tasks.answer_deviations import chosen_errors
from beftkit.tasks.answer_metrics import measure_chosen
from beftkit.tasks.prompts import Prompted
from beftkit.tuning import choose
from tests import causal_models
from tests.causal_models import sentences, write_model
from tests.command import Beftkit, refused
from tests.prompt_files import write_local, write_records
from tests.test_choice import LABELS, batch, examples
from tests.tiny_models import build

COPA = TASKS["copa"].prompt
FAMILIES = ("opt", "gpt2")
RIGHT, WRONG = ("Great it was.", "Terrible it was.")


def stories(count: int, seed: int) -> list[dict[str, Any]]:
    """Records of COPA whose right choice a word of the premise tells."""
    records = []
    for number, (sentence, label) in enumerate(sentences(count, seed)):
        right, wrong = (RIGHT, WRONG) if label else (WRONG, RIGHT)
        second = number // 2 % 2
        choices = (wrong, right) if second else (right, wrong)
        records.append({
            "premise": f"{sentence}.", "choice1": choices[0], "choice2": choices[1],
            "question": "effect", "idx": number, "label": second,
        })  # fmt: skip
    return records


def learned(count: int, seed: int) -> list[str]:
    """The same as whole texts."""
    choices = ("terrible it was.", "great it was.")
    return [f"{sentence} so {choices[label]}" for sentence, label in sentences(count, seed)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models, and the data: COPA to be learnt, the others as they come."""
    folder = tmp_path_factory.mktemp("made")
    for family in FAMILIES:
        write_model(folder / family, family, steps=100, learn=learned)
    for task in ("wsc", "multirc", "record"):
        write_local(folder / "data", task)
    (folder / "data" / "COPA").mkdir()
    for name, count, seed in (("train", 96, 1), ("val", 60, 2)):
        write_records(folder / "data" / "COPA" / f"{name}.jsonl", stories(count, seed))
    return folder


def told() -> Encoded:
    """Examples whose right answers have 2, 3, 4 and 1 tokens."""
    found = replace(examples(), targets=torch.tensor([2, 2, 1, 0]))
    assert found.answers is not None
    assert found.answers[found.first_row[:-1] + found.targets].tolist() == [2, 3, 4, 1]
    return found


def right_losses(network: Any, found: Any) -> list[torch.Tensor]:
    """Each example's right row by itself, all logits, by hand: the sum over its tokens."""
    losses = []
    for example, target in enumerate(found.targets.tolist()):
        row = int(found.first_row[example]) + target
        ids = found.ids[found.starts[row] : found.starts[row + 1]].long()
        logs = network(input_ids=ids.unsqueeze(0)).logits[0].log_softmax(-1)
        begin = len(ids) - int(found.answers[row])
        each = [logs[at - 1, ids[at]] for at in range(begin, len(ids))]
        losses.append(-torch.stack(each).sum())
    return losses


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["opt", "gpt2", "gpt-neox", "qwen2", "llama"])
def test_the_loss_is_the_right_answers_own(family: str, side: str) -> None:
    network, found = build(family, torch.float64), told()
    losses, outputs = (
        make_objective("choice", LABELS).asking(COPA).losses(network, batch(found, side))
    )
    expected = torch.stack(right_losses(network, found))
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-10)
    every = make_objective("choice", LABELS).losses(network, batch(found, side))[1]
    torch.testing.assert_close(outputs, every, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_updates_loss_is_the_mean_over_all_right_tokens(family: str) -> None:
    """As published; held to cross entropy over whole rows with labels, as Trainer would have it."""
    network, found = build(family, torch.float64), told()
    objective = make_objective("choice", LABELS).asking(COPA)
    every = torch.arange(len(found))
    for some in (every, every[1:3], every[2:].flip(0)):
        logits, labels = [], []
        for example in some.tolist():
            row = int(found.first_row[example] + found.targets[example])
            ids = found.ids[found.starts[row] : found.starts[row + 1]].long()
            known = len(ids) - int(found.answers[row])
            logits.append(network(input_ids=ids.unsqueeze(0)).logits[0, :-1])
            labels.append(torch.cat([torch.full((known - 1,), -100), ids[known:]]))
        wanted = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(labels))
        losses, outputs = objective.losses(network, found.batch(some))
        mean = losses.sum() / objective.units(found, some)
        torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-10)
        # long answers count more than in the mean of the examples' own means
        means = -outputs.gather(1, found.targets[some, None]).mean()
        assert float((mean - means).detach().abs()) > 1e-4
    evaluated = objective.total_loss(7.0, [], found)
    assert evaluated == (7.0, objective.units(found, every))
    assert make_objective("choice", LABELS).units(found, every) == len(found)


@pytest.mark.parametrize("family", ["opt", "gpt2", "qwen2"])
def test_the_fisher_of_an_example_is_that_of_this_loss(family: str) -> None:
    network, found = build(family, torch.float64), told()
    names = [
        name for name, value in network.named_parameters()
        if name.endswith("bias") and value.dim() == 1
    ]  # fmt: skip
    objective = make_objective("choice", LABELS).asking(COPA)
    squares = example_squares(
        network, names, [batch(found)], lambda model, given: objective.losses(model, given)[0]
    )
    assert (squares.examples, squares.alone) == (len(found), ())
    parameters = dict(network.named_parameters())
    for name in names:
        parameters[name].requires_grad_(True)
    losses = right_losses(network, found)
    for name in names:
        each = [torch.autograd.grad(one, parameters[name], retain_graph=True)[0] for one in losses]
        wanted = torch.stack(each).square().sum(0)
        torch.testing.assert_close(squares.sums[name], wanted, rtol=1e-8, atol=1e-22)


def test_the_published_fisher_is_of_an_updates_loss() -> None:
    """The mean over a batch's tokens, its gradient of all biases clipped as torch does."""
    network, found = build("opt", torch.float64), told()
    objective = make_objective("choice", LABELS).asking(COPA)
    name = "model.decoder.layers.0.self_attn.v_proj.bias"
    given: Any = network, [name], found, objective, make_accelerator("cpu", "fp32")
    squares = published_means(*given, batch_size=3)[name]
    trained = [part.parameter for part in choose(network, "all").parts]
    biases = [network.get_parameter(one).requires_grad_(True) for one in trained]
    losses, wanted = right_losses(network, found), []
    for some, tokens in ((losses[:3], 9), (losses[3:], 1)):
        network.zero_grad()
        (sum(some) / tokens).backward(retain_graph=True)  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(biases, 1.0)
        grad = network.get_parameter(name).grad
        assert grad is not None
        wanted.append(grad.square())
    torch.testing.assert_close(squares, torch.stack(wanted).mean(0), rtol=1e-8, atol=1e-22)


def test_training_reads_the_right_answers_alone_and_loses_the_same(here: Path) -> None:
    data = load_task("record", data_dir="data")
    objective = make_objective("choice").asking(TASKS["record"].prompt)
    loaded = objective.load(TrainSettings(model="opt", task="record"), 0)
    assert data.train is not None
    taught = objective.taught(data.train)
    assert [one.answers for one in taught.asked] == [
        (one.answers[one.right[0]],) for one in data.train.asked
    ]
    found = []
    for split in (data.train, taught):
        encoded = objective.encode(split, loaded.tokenizer, 512)
        found.append(objective.losses(loaded.model, batch(encoded))[0])
    assert len(encoded.row_lengths) == len(data.train)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    plain = make_objective("choice", ("No", "Yes")).asking(TASKS["wsc"].prompt)
    assert plain.taught(data.train) is data.train


def asked(right: tuple[int, ...], group: str = "", whole: int = 0, most: int = 2) -> Prompted:
    return Prompted("p", tuple(" a" for _ in range(most)), right, group=group, whole=whole)


def test_any_right_entity_counts(here: Path) -> None:
    objective = make_objective("choice").asking(TASKS["record"].prompt)
    prompts = [asked((0, 2), most=3), asked((1,)), asked((0,), most=4)]
    given: Any = [2, 0, 0], [0, 1, 0], prompts
    assert objective.measure(["accuracy"], *given) == {"accuracy": 2 / 3}
    assert objective.standard_errors(["accuracy"], *given)["accuracy"] == pytest.approx(
        (2 / 3 * 1 / 3 / 3) ** 0.5
    )
    assert objective.baseline(["accuracy"], *given[1:]) == {} and objective.constant == ""
    assert not objective.alike([1, 1, 1])
    with pytest.raises(BeftError, match="metric='macro_f1': here each example has answers of its"):
        objective.measure(["macro_f1"], *given)


def test_multirc_against_other_ways() -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(2, 8, 40)
    prompts = [
        asked((int(draw.random() < 0.5),), f"{question}", int(size))
        for question, size in enumerate(sizes)
        for _ in range(size)
    ]
    truth = np.array([one.right[0] for one in prompts])
    chosen = np.where(draw.random(len(truth)) < 0.85, truth, 1 - truth)
    names = ["accuracy", "multirc_f1a", "multirc_em"]
    objective = make_objective("choice", ("False", "True"))
    found = objective.measure(names, chosen, truth, prompts)
    groups = [[at for at, one in enumerate(prompts) if one.group == f"{n}"] for n in range(40)]
    wholly = [bool((chosen[one] == truth[one]).all()) for one in groups]
    wanted = [
        judge.accuracy_score(truth, chosen), judge.f1_score(truth, chosen), np.mean(wholly),
    ]  # fmt: skip
    assert [found[name] for name in names] == pytest.approx(wanted)
    same = objective.baseline(names, truth, prompts)
    most = int(truth.mean() > 0.5)
    assert same["accuracy"] == pytest.approx((truth == most).mean())

    errors = chosen_errors(names, chosen, prompts)
    drawn = []
    for _ in range(400):  # questions are drawn again, whole
        rows = [at for n in draw.integers(0, 40, 40) for at in groups[n]]
        drawn.append([
            (chosen[rows] == truth[rows]).mean(), judge.f1_score(truth[rows], chosen[rows]),
        ])  # fmt: skip
    spread = np.std(drawn, axis=0)
    assert [errors[n] for n in names[:2]] == pytest.approx(list(spread), rel=0.2)
    share = np.mean(wholly)
    assert errors["multirc_em"] == pytest.approx((share * (1 - share) / 40) ** 0.5)


def test_a_question_that_was_not_drawn_whole_has_no_exact_match() -> None:
    """Of some of its answers it would be easier."""
    prompts = [asked((1,), "a", 2), asked((0,), "a", 2), asked((1,), "b", 3), asked((1,), "b", 3)]
    assert measure_chosen(["multirc_em"], [1, 1, 1, 1], prompts) == {"multirc_em": 0.0}
    assert measure_chosen(["multirc_em"], [1, 0, 0, 0], prompts) == {"multirc_em": 1.0}
    assert np.isnan(measure_chosen(["multirc_em"], [1, 1], prompts[2:])["multirc_em"])
    assert np.isnan(chosen_errors(["multirc_em"], [1, 1], prompts[2:])["multirc_em"])


def document(ran: Any) -> Any:
    assert ran.code == 0, ran
    return json.loads(ran.out)


@pytest.mark.parametrize("family", FAMILIES)
def test_copa_is_learnt_and_answered(here: Path, beftkit: Beftkit, family: str) -> None:
    given = ("--task", "copa", "--data-dir", "data", "--device", "cpu")
    before = document(beftkit("evaluate", family, *given, "--format", "json"))
    ran = beftkit("train", family, *given, "--lr", "0.05", "-o", "out", "--format", "json")
    run = document(ran)
    assert (run["settings"]["epochs"], run["settings"]["batch_size"]) == (5, 8)
    last = run["runs"][0]["last"]
    assert last["metrics"]["accuracy"] > max(0.85, before["metrics"]["accuracy"])
    assert before["baselines"] == {"accuracy": 0.5} and before["baseline_is"] == "majority class"
    again = document(beftkit("evaluate", "out", "--device", "cpu", "--format", "json"))
    assert again["metrics"] == last["metrics"] and not any(
        "not the ex" in n for n in again["notes"]
    )
    assert again["loss"] < 0.7 * before["loss"]
    rows = stories(60, 2)
    write_records(
        here / "asked.jsonl", [{k: v for k, v in one.items() if k != "label"} for one in rows]
    )
    said = document(beftkit("predict", "out", "--file", "asked.jsonl", "--format", "json"))
    labels = ("choice1", "choice2")
    hits = [
        one["label"] == labels[row["label"]]
        for one, row in zip(said["predictions"], rows, strict=True)
    ]
    assert np.mean(hits) == pytest.approx(last["metrics"]["accuracy"])
    (found,) = package.fisher_all(family, task="copa", data_dir="data", device="cpu")
    assert found.roles["v"].figures["fisher"] > 0 and found.target in ("q", "v")


@pytest.mark.parametrize("task", ["wsc", "multirc", "record"])
def test_the_others_from_end_to_end(here: Path, task: str) -> None:
    given: dict[str, Any] = {"task": task, "data_dir": "data", "device": "cpu"}
    found = package.train("opt", bias="v", max_steps=1, output="out", **given)
    again = package.evaluate("out", device="cpu")
    assert found.runs[0].last is not None
    assert again.evaluation.metrics == found.runs[0].last.metrics
    assert tuple(again.evaluation.metrics) == TASKS[task].metrics
    assert {*again.evaluation.standard_errors} == {*again.evaluation.metrics}
    (scores,) = package.fisher_all("opt", **given)
    assert scores.roles["v"].figures["fisher"] > 0


def test_selection_of_a_task_of_the_right_answers_loss(here: Path, beftkit: Beftkit) -> None:
    given = ("--task", "copa", "--data-dir", "data", "--device", "cpu", "--lr", "0.05")
    ran = beftkit("select", "opt", *given, "--epochs", "1", "--candidates", "q,v", "-o", "chosen")
    assert ran.code == 0, ran
    (cell,) = json.loads(Path("chosen/select.json").read_text())["cells"]
    assert cell["cell"]["regime"] == "low"


def test_what_texts_alone_do_not_tell(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit("predict", "opt", "--task", "record", "a passage\ta query\tb\tc")
    refused(ran, "record: each example has answers of its own")


def test_opt_learnt_nothing_by_its_noise() -> None:
    """The data tell nothing but by the sentence: the right choice is as often the second."""
    labels = [one["label"] for one in stories(60, 2)]
    assert sum(labels) == 30
    assert causal_models.REST and replace(asked((0,)), whole=3) == asked((0,))
