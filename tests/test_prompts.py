"""What a causal model is asked: each task's prompt and answers as published, typed anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beftkit.errors import BeftError
from beftkit.registry import TASKS, Prompt
from beftkit.tasks.prompts import Prompted, fill, prompted, render

NO_YES = ("No", "Yes")
#: task -> (row, label, prompt, answers, right)
CASES: dict[str, tuple[dict[str, Any], int | None, str, tuple[str, ...], tuple[int, ...]]] = {
    "sst2": ({"sentence": "a charming journey . "}, 1, "a charming journey . It was",
             (" terrible", " great"), (1,)),
    "rte": ({"sentence1": "It rains.", "sentence2": "It is wet."}, 0,
            'It rains.\nDoes this mean that "It is wet." is true? Yes or No?\n', ("Yes", "No"),
            (0,)),
    "cb": ({"premise": "He left. Did she?", "hypothesis": "she left"}, 2,
           'Suppose He left. Did she? Can we infer that "she left"? Yes, No, or Maybe?\n',
           ("Yes", "No", "Maybe"), (2,)),
    "boolq": ({"passage": "Ethanol -- it burns.", "question": "does ethanol burn"}, 1,
              "Ethanol -- it burns. Does ethanol burn?\n", NO_YES, (1,)),
    "wsc": ({"text": "Tom saw Bob when He left.", "span1_text": "Tom", "span2_text": "He"}, 0,
            "Tom saw Bob when He left.\nIn the previous sentence, does the pronoun \"he\" refer to"
            " Tom? Yes or No?\n", NO_YES, (0,)),
    "wic": ({"word": "place", "sentence1": "My place.", "sentence2": "No place."}, 0,
            'Does the word "place" have the same meaning in these two sentences? Yes, No?\n'
            "My place.\nNo place.\n", NO_YES, (0,)),
    "multirc": ({"paragraph": "P.", "question": "Who?", "answer": "Bob"}, 1,
                'P.\nQuestion: Who?\nI found this answer "Bob". Is that correct? Yes or No?\n',
                NO_YES, (1,)),
    "copa": ({"premise": "The man turned on the faucet.", "question": "effect",
              "choice1": "The toilet filled with water.", "choice2": "I saw water."}, 1,
             "The man turned on the faucet so",
             (" the toilet filled with water.", " I saw water."), (1,)),
    "record": ({"passage": "Ann met Bob.\n@highlight\nAnn won\n@highlight\nBob lost",
                "query": "Then @placeholder left, says @placeholder",
                "entities": ["Ann", "Bob", "Cy"], "answers": ["Cy", "Ann"]}, None,
               "Ann met Bob.\n- Ann won\n- Bob lost\n-",
               (" Then Ann left, says Ann", " Then Bob left, says Bob",
                " Then Cy left, says Cy"), (0, 2)),
    "squad": ({"title": "Super_Bowl", "context": "Denver won.", "question": " Who won? ",
               "answers": ["Denver", "Denver", "the Broncos"]}, None,
              "Title: Super_Bowl\nContext: Denver won.\nQuestion: Who won?\nAnswer:",
              (" Denver\n",), (0,)),
    "drop": ({"passage": "It grew.", "question": "Which?",
              "answers": [["18 to 24", "25 to 44"], ["3"], ["3"]]}, None,
             "Passage: It grew.\nQuestion: Which?\nAnswer:", (" 18 to 24\n",), (0,)),
}  # fmt: skip


@pytest.mark.parametrize("task", CASES)
def test_the_published_prompts(task: str) -> None:
    row, label, prompt, answers, right = CASES[task]
    found = prompted(task, row, label)
    assert (found.prompt, found.answers, found.right) == (prompt, answers, right)


def test_there_are_eleven() -> None:
    assert {name for name, task in TASKS.items() if task.prompt} == set(CASES)
    for name, (row, *_) in CASES.items():
        prompt = TASKS[name].prompt
        assert prompt is not None
        assert set(prompt.needs) == set(row)
        fixed = not {"{option}", "{answer}"} & {one.strip() for one in prompt.answers}
        assert not fixed or len(prompt.answers) == len(TASKS[name].labels)


def test_the_published_settings() -> None:
    """Learning rates, and what differs between choices by their likelihoods and by one answer."""
    prompts = {name: task.prompt for name, task in TASKS.items() if task.prompt}
    rates = dict.fromkeys(CASES, 1e-3) | {"cb": 1e-2, "wsc": 1e-2, "copa": 1e-4, "record": 1e-4}
    assert {name: one.lr for name, one in prompts.items()} == rates
    assert {n for n, p in prompts.items() if p.kind == "generation"} == {"squad", "drop"}
    assert {n for n, p in prompts.items() if p.loss == "right"} == {"copa", "record"}
    shared = {(p.epochs, p.batch_size, p.examples, p.max_length) for p in prompts.values()}
    assert shared == {(5, 8, 1000, 2048)}
    for name, task in TASKS.items():
        if task.prompt and not task.fields:  # then the task's own settings are the prompt's
            size = {"wsc": 554, "copa": 400}.get(name, 1000)
            assert (task.lr, task.epochs, task.sizes) == (rates[name], 5, {"low": size})
            assert (task.kind, task.max_length) == (task.prompt.kind, 2048)


def test_a_task_of_both_kinds_has_settings_of_both() -> None:
    task = TASKS["cb"]
    assert (task.asked("choice"), task.asked("classes")) == (True, False)
    assert (task.sizes_as("choice"), task.sizes_as("classes")) == ({"low": 1000}, {"low": 250})
    assert task.metrics_as("choice") == ("accuracy", "macro_f1")
    assert task.metrics_as("classes") == ("macro_f1", "accuracy")
    assert TASKS["copa"].sizes_as("choice") == {"low": 400}
    assert not TASKS["cola"].asked("choice")


def test_gold_answers() -> None:
    squad = prompted("squad", CASES["squad"][0])
    assert (squad.gold, squad.bags) == (("Denver", "the Broncos"), ())
    drop = prompted("drop", CASES["drop"][0])
    assert drop.gold == ("18 to 24", "25 to 44", "3"), "each span alone, as published"
    assert drop.bags == (("18 to 24", "25 to 44"), ("3",)), "as the official figure needs them"
    unknown = prompted("squad", {**CASES["squad"][0], "answers": []})
    assert (unknown.answers, unknown.right, unknown.gold) == ((), (), ())


def test_unknown_labels() -> None:
    for task, (row, label, *_) in CASES.items():
        if label is not None:
            assert prompted(task, row).right == ()
            with pytest.raises(BeftError, match="label 3: expected one of 0 to"):
                prompted(task, row, 3)
            with pytest.raises(BeftError, match="label -1: expected"):
                prompted(task, row, -1)


@pytest.mark.parametrize("task", CASES)
def test_braces_and_formats_in_data_are_letters(task: str) -> None:
    """No text of the data is a format: neither braces nor fields of Python come to anything."""
    evil = " {0} {sentence.__class__} {{}} %s {} "
    row = {
        name: value if name == "question" and task == "copa" else
        [[f"{evil}{i}" for i in range(2)]] if task == "drop" and isinstance(value, list) else
        [f"{evil}{i}" for i in range(2)] if isinstance(value, list) else
        evil + ("@placeholder" if name == "query" else "")
        for name, value in CASES[task][0].items()
    }  # fmt: skip
    found = prompted(task, row, None if CASES[task][1] is None else 0)
    assert evil.strip() in found.prompt
    if task in ("copa", "record", "squad", "drop"):
        assert evil.rstrip() in found.answers[0]


def small(task: str, **columns: str) -> Prompted:
    return prompted(task, {**CASES[task][0], **columns})


def test_special_rules() -> None:
    assert small("boolq", question="is it?").prompt.endswith(" Is it?\n"), "one mark, not two"
    assert small("boolq", question="").prompt.endswith(" ?\n")
    assert small("copa", question="cause", premise="I ran. ").prompt == "I ran because"
    assert small("copa", premise="Did he?").prompt == "Did he? so"
    assert small("copa", choice1="It rained.").answers[0] == " it rained."
    assert small("copa", choice1="I").answers[0] == " I"
    assert small("copa", choice1="").answers[0] == " "
    assert small("wsc", span2_text="HIS hat").prompt.count('"his hat"') == 1
    assert small("sst2", sentence="  fine\t").prompt == "fine It was"
    with pytest.raises(BeftError, match="question 'why': expected effect or cause"):
        small("copa", question="why")
    with pytest.raises(BeftError, match="no @placeholder in column 'query'"):
        small("record", query="nobody")


def test_blanks_at_the_end_are_taken_off_line_feeds_are_not() -> None:
    prompt = Prompt(text="{a} ", answers=(" x",))
    assert render(prompt, {"a": "one  "}, 0) == Prompted("one", (" x",), (0,))
    assert render(prompt, {"a": "one \n"}, 0).prompt == "one \n"


def test_tasks_without_a_prompt() -> None:
    for task in ("cola", "sst"):
        with pytest.raises(BeftError, match=f"task '{task}': no prompt .* expected one of sst2,"):
            prompted(task, {"sentence": "a"})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{b}", "{b} is no text of the example; expected {column}"),
        ("{}", "{} is no text"),
        ("{a.__class__}", "{a.__class__} is no text"),
        ("{a[0]}", "{a[0]} is no text"),
        ("{n}", "{n} is no text"),
        ("{a:>10}", "{a} has a form"),
        ("{a!r}", "{a} has a form"),
        ("{a", "write {{ and }} for braces"),
        ("a}", "write {{ and }} for braces"),
    ],
)
def test_templates_hold_columns_and_nothing_else(template: str, message: str) -> None:
    with pytest.raises(BeftError) as caught:
        fill(template, {"a": "x", "n": 3})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_braces_of_a_template() -> None:
    assert fill('{{"t": "{a}"}} {a}', {"a": "{x}"}) == '{"t": "{x}"} {x}'


def test_prompts_need_no_model_and_no_torch() -> None:
    code = (
        "import sys; from beftkit.tasks.prompts import prompted\n"
        "assert prompted('sst2', {'sentence': 'a'}, 1).right == (1,)\n"
        "assert not {'torch', 'numpy', 'transformers', 'datasets'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
