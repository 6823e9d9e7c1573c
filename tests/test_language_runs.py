"""Tiny models learn conversations, completions and texts from the command, and are measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

import beftkit as package
from beftkit.models import quiet
from tests import chats, saved_states
from tests.command import Beftkit, refused
from tests.fisher_run import document

FAMILIES: dict[str, dict[str, Any]] = {"opt": {}, "qwen2": {}, "llama": {"attention_bias": True}}
RUN = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--lr", "0.05")
QUICK = ("--epochs", "2", "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, conversations, completions and texts."""
    folder = tmp_path_factory.mktemp("made")
    for family, options in FAMILIES.items():
        chats.write_chat_model(folder / family, family, **options)
    for name, count, seed in (("train", 24, 1), ("dev", 8, 2)):
        told = chats.films(count, seed)
        chats.write_lines(folder / f"{name}.jsonl", told)
        pairs = [
            {"prompt": t["messages"][0]["content"], "completion": " " + t["messages"][1]["content"]}
            for t in told
        ]
        chats.write_lines(folder / f"{name}-pairs.jsonl", pairs)
        texts = [{"text": one["prompt"] + one["completion"]} for one in pairs]
        chats.write_lines(folder / f"{name}-texts.jsonl", texts)
    return folder


def evaluated(beftkit: Beftkit, *arguments: str) -> Any:
    ran = beftkit("evaluate", *arguments, "--device", "cpu", "--format", "json")
    assert ran.code == 0, ran
    return json.loads(ran.out)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_conversations_and_says_so_again(
    here: Path, beftkit: Beftkit, family: str
) -> None:
    before = evaluated(beftkit, family, "--validation-file", "dev.jsonl")
    assert any("'messages' learnt as language" in note for note in before["notes"])
    ran = beftkit("train", family, *RUN, *QUICK, "-o", "out")
    assert ran.code == 0, ran
    (run,) = json.loads(Path("out/all_results.json").read_text())["runs"]
    after = run["last"]
    assert after["metrics"]["perplexity"] < 0.8 * before["metrics"]["perplexity"]
    assert after["metrics"]["token_accuracy"] >= before["metrics"]["token_accuracy"]
    assert 0 < after["standard_errors"]["perplexity"] < after["metrics"]["perplexity"]
    assert after["baselines"] == {} and not run["stayed"]
    kept = yaml.safe_load(Path("out/run.yaml").read_text())
    assert (kept["as_"], kept["metric"]) == ("language", ["perplexity", "token_accuracy"])
    assert (kept["batch_size"], kept["schedule"], kept["max_length"]) == (8, "linear", 2048)
    again = evaluated(beftkit, "out")
    assert again["metrics"] == pytest.approx(after["metrics"])
    assert again["loss"] == pytest.approx(math.log(after["metrics"]["perplexity"]), rel=1e-5)
    assert not any("not the examples of the run" in note for note in again["notes"])
    best = [line for line in saved_states.log(Path("out")) if "metrics" in line]
    assert run["best"]["metrics"]["perplexity"] == min(x["metrics"]["perplexity"] for x in best)
    if family == "opt":
        header = evaluated(
            beftkit, "--adapter", "out/adapter", "--validation-file", "dev-texts.jsonl"
        )
        assert header["metrics"]["perplexity"] > 1 and "column 'text'" in str(header["notes"])
        refused(beftkit("predict", "out", "hello"), "what it would answer is a text")
        assert beftkit("export", "out", "-o", "whole", "--quiet").code == 0
        whole = evaluated(beftkit, "whole", "--validation-file", "dev.jsonl")
        assert whole["metrics"] == pytest.approx(after["metrics"], rel=1e-4)


@pytest.mark.parametrize("what", ["texts", "pairs"])
def test_perplexity_is_that_of_a_plain_loop(here: Path, beftkit: Beftkit, what: str) -> None:
    file = Path(f"dev-{what}.jsonl")
    found = evaluated(beftkit, "qwen2", "--validation-file", str(file), "--batch-size", "3")
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained("qwen2").double().eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained("qwen2")
    lost, hits = [], []
    for row in map(json.loads, file.read_text().splitlines()):
        prompt = row.get("prompt", "")
        ids = tokenizer(row.get("text") or prompt + row["completion"])["input_ids"]
        first = len(tokenizer(prompt)["input_ids"]) if prompt else 1
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        lost += [-float(logs[n - 1, ids[n]]) for n in range(first, len(ids))]
        hits += [int(logs[n - 1].argmax()) == ids[n] for n in range(first, len(ids))]
    assert found["metrics"]["perplexity"] == pytest.approx(
        math.exp(sum(lost) / len(lost)), rel=1e-5
    )
    assert found["metrics"]["token_accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert found["loss"] == pytest.approx(sum(lost) / len(lost), rel=1e-5)


def test_fisher_is_of_the_sum(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit(
        "fisher", "qwen2", "--train-file", "train.jsonl", "--train-size", "6", "--device", "cpu",
        "--format", "json", "--quiet",
    )  # fmt: skip
    assert ran.code == 0, ran
    found = document(ran)["roles"]["v"]["sites"][0]
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained("qwen2").double().eval()
        judge = transformers.AutoTokenizer.from_pretrained("qwen2", chat_template=chats.MARKED)
    parameter, total = dict(model.named_parameters())[found["name"]], 0.0
    for line in Path("train.jsonl").read_text().splitlines()[:6]:
        made = judge.apply_chat_template(
            json.loads(line)["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        ids = torch.tensor(made["input_ids"])
        logs = model(ids.unsqueeze(0)).logits[0].log_softmax(-1)
        each = -logs[:-1].gather(1, ids[1:, None])[:, 0] * torch.tensor(made["assistant_masks"][1:])
        total += float(torch.autograd.grad(each.sum(), parameter)[0].square().mean())
    assert found["fisher"] == pytest.approx(total / 6, rel=1e-4)


def test_a_selection_compares_perplexities(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit(
        "select", "opt", *RUN, "--train-size", "16", "--epochs", "1", "--candidates", "q,v",
        "--device", "cpu", "--quiet", "--verify", "-o", "sel",
    )  # fmt: skip
    assert ran.code == 0, ran
    chosen = json.loads(Path("sel/select.json").read_text())
    (cell,) = chosen["cells"]
    before = evaluated(beftkit, "opt", "--validation-file", "dev.jsonl")
    assert cell["runs"]["none"]["last"] == before["metrics"]
    reached = {role: cell["runs"][role]["last"]["perplexity"] for role in ("none", "q", "v")}
    assert reached["v"] < reached["none"]  # the lowest is the best
    assert (chosen["metric"], chosen["higher_is_better"]) == ("perplexity", False)
    (group,) = chosen["groups"]
    assert group["verdict"]["best"] == [min(("q", "v"), key=lambda role: reached[role])]


def test_what_goes_wrong_is_one_line(here: Path, beftkit: Beftkit) -> None:
    chats.write_chat_model(here / "odd", "opt", chats.NO_PREFIX)
    given = ("evaluate", "odd", "--validation-file", "dev.jsonl", "--device", "cpu", "--quiet")
    refused(beftkit(*given), "dev.jsonl:1: the turns before message 2 are written otherwise", 400)
    (here / "odd" / "chat_template.jinja").unlink()
    refused(beftkit(*given), "dev.jsonl:1: messages, and the tokenizer has no chat template", 400)
    ran = beftkit(*given[:1], "opt", *given[2:], "--metric", "accuracy")
    refused(ran, "--metric accuracy: is not for texts that are learnt")
    found = package.evaluate("opt", validation_file="dev.jsonl", max_length=64, device="cpu")
    assert 0 < found.truncated["validation"] <= 8
