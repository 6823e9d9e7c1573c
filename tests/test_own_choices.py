"""A choice over files of one's own: a template, an answer for each label; from data to the CLI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import beftkit as package
from beftkit.adapters import WEIGHTS_NAME
from beftkit.errors import BeftError, UsageError
from beftkit.tasks import Asking, load_choices, own_task
from beftkit.tasks.prompts import Prompted
from tests.causal_models import sentences, write_model
from tests.command import Beftkit, refused
from tests.prompt_files import write_records

ROWS = [
    {"text": "a {0} film", "by": "Ann", "verdict": "good"},
    {"text": "dull", "by": "{text}", "verdict": "bad"},
]
ASKED = ("--template", "{text} It was", "--choices", "terrible,great", "--label-column", "verdict")


def load(path: Path, **given: Any) -> Any:
    usual = {"template": "{text} It was", "choices": "terrible,great", "label_column": "verdict"}
    return load_choices(path, **{**usual, **given})


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_records(tmp_path / "own.jsonl", ROWS)
    return tmp_path / "own.jsonl"


def test_rows_become_prompts(own: Path) -> None:
    data = load(own)
    assert (data.labels, data.kind, data.train.targets.tolist()) == (
        ("bad", "good"),
        "choice",
        [1, 0],
    )
    answers = (" terrible", " great")
    assert list(data.train.asked) == [
        Prompted("a {0} film It was", answers, (1,)), Prompted("dull It was", answers, (0,)),
    ]  # fmt: skip
    assert data.notes == ("column 'verdict', label = answer: bad = terrible, good = great",)
    assert data.counts == {"train": {"bad": 1, "good": 1}}


def test_texts_are_letters_and_braces_are_doubled(own: Path) -> None:
    data = load(own, template="{{{by}}}: {text}\\nGood?\n", choices="No {{{by}}}, Yes")
    assert [(one.prompt, one.answers) for one in data.train.asked] == [
        ("{Ann}: a {0} film\nGood?\n", ("No {Ann}", "Yes")),
        ("{{text}}: dull\nGood?\n", ("No {{text}}", "Yes")),
    ]


def test_named_choices_say_which_is_which(own: Path) -> None:
    data = load(own, choices="good=great, bad=terrible,mixed=odd")
    assert data.labels == ("good", "bad", "mixed") and data.train.targets.tolist() == [0, 1]
    assert data.train.asked[0].answers == (" great", " terrible", " odd")
    # labels that are known, of which a file may hold some, keep their numbers
    one = load(own, labels=("bad", "good"), choices="good=great,bad=terrible")
    assert one.train.targets.tolist() == [1, 0]
    assert one.train.asked[0].answers == (" terrible", " great")
    with pytest.raises(BeftError, match="label 'good' has no answer; choices has them for a, b"):
        load(own, choices="a=x,b=y")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"template": "{title} It was"}, "template: names {title}, which is no column of .*own.json"
         "l; it has text, by, verdict"),
        ({"choices": "{title},{text}"}, "names {title}, which is no column"),
        ({"template": "{text} {verdict}"}, "names {verdict}, which is the label"),
        ({"choices": "a,b,c"}, "2 labels .bad, good., and choices='a,b,c' has 3 answers"),
        ({"label_column": "stars"}, "no column 'stars'"),
        ({"label_column": None}, "not clear which column is the label"),
    ],
)  # fmt: skip
def test_what_the_file_does_not_hold(own: Path, given: Any, message: str) -> None:
    with pytest.raises(BeftError, match=message):
        load(own, **given)


@pytest.mark.parametrize(
    ("template", "choices", "message"),
    [
        ("{text", "a,b", "template='{text': expected '}'"),
        ("{text.__class__!r}", "a,b", "names no column; expected {column}"),
        ("{text:>9}", "a,b", "names no column"),
        ("{}", "a,b", "names no column"),
        ("always", "a,b", "names no column, so all examples would be asked the same"),
        ("{text}", "a", "expected two or more different answers"),
        ("{text}", "a,a", "two or more different"),
        ("{text}", "a,", "two or more different"),
        ("{text}", "x=a,x=b", "two or more different"),
        ("{text}", "x=a,b", "expected LABEL=ANSWER for each, or for none"),
        ("{text}", "a,{b", "choices='a,{b': "),
    ],
)
def test_what_means_nothing(template: str, choices: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Asking.of(template, choices)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_field_is_a_name_and_never_looked_into() -> None:
    task = own_task("{text.__class__} It was", "a,b", ("x", "y"))
    assert task is not None and task.prompt is not None
    assert task.columns_as("choice") == ("text.__class__",)
    assert own_task("{text", "a,b", ("x", "y")) is own_task("{text}", "a,b", ("x",)) is None


def test_a_row_that_is_no_text(own: Path) -> None:
    write_records(own, [*ROWS, {"text": 3, "by": "x", "verdict": "bad"}])
    with pytest.raises(BeftError, match=r"own\.jsonl:3: 3, not a text, in column 'text'"):
        load(own)
    write_records(own, [{**row, "verdict": n + 0.5} for n, row in enumerate(ROWS)])
    with pytest.raises(BeftError, match="values, not labels, and choices="):
        load(own)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and reviews as rows of a file."""
    folder = tmp_path_factory.mktemp("made")
    for family in ("opt", "gpt2"):
        write_model(folder / family, family, steps=100)
    for name, count, seed in (("train", 96, 1), ("dev", 60, 2)):
        rows = [
            {"text": text, "verdict": ("bad", "good")[label]}
            for text, label in sentences(count, seed)
        ]
        write_records(folder / f"{name}.jsonl", rows)
    return folder


def document(ran: Any) -> Any:
    assert ran.code == 0, ran
    return json.loads(ran.out)


@pytest.mark.parametrize("family", ["opt", "gpt2"])
def test_it_is_learnt_and_repeated(here: Path, beftkit: Beftkit, family: str) -> None:
    from safetensors import safe_open

    form = ("--device", "cpu", "--format", "json")
    before = document(beftkit("evaluate", family, "--validation-file", "dev.jsonl", *ASKED, *form))
    files = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl")
    ran = beftkit("train", family, *files, *ASKED, "--lr", "0.05", "-o", "out", *form)
    run = document(ran)
    last = run["runs"][0]["last"]["metrics"]
    assert last["accuracy"] > before["metrics"]["accuracy"] + 0.3
    kept = yaml.safe_load(Path("out/run.yaml").read_text())
    assert (kept["template"], kept["choices"]) == (ASKED[1], ASKED[3])
    usual = {"epochs": 5, "batch_size": 8, "schedule": "linear", "max_length": 2048}
    assert {name: kept[name] for name in usual} == usual and kept["validation_size"] is None
    with safe_open(f"out/adapter/{WEIGHTS_NAME}", framework="np") as file:
        said = file.metadata()
    assert (said["beftkit.template"], said["beftkit.as"]) == (ASKED[1], "choice")
    again = document(beftkit("evaluate", "out", *form))
    assert again["metrics"] == last
    # moved away from its run the adapter says by itself what it was asked, of fewer labels too
    (here / "out" / "adapter").rename(here / "moved")
    rows = [json.loads(line) for line in Path("dev.jsonl").read_text().splitlines()]
    write_records(here / "good.jsonl", [row for row in rows if row["verdict"] == "good"])
    alone = document(beftkit("evaluate", "moved", "--validation-file", "good.jsonl", *form))
    answered = document(beftkit("predict", "moved", "--file", "dev.jsonl", *form))["predictions"]
    hits = [one["label"] == row["verdict"] for one, row in zip(answered, rows, strict=True)]
    assert sum(hits) / 60 == pytest.approx(last["accuracy"])
    assert sum(hits[1::2]) / 30 == pytest.approx(alone["metrics"]["accuracy"])
    assert package.load("moved", device="cpu")(rows[0]["text"]).label == answered[0]["label"]


def test_measured_and_selected(here: Path, beftkit: Beftkit) -> None:
    given = ("opt", "--train-file", "train.jsonl", *ASKED, "--device", "cpu")
    found = document(beftkit("fisher", *given, "--train-size", "8", "--format", "json"))
    assert found["settings"]["examples"] == 8
    more = ("--validation-file", "dev.jsonl", "--epochs", "1", "--no-fisher", "--candidates", "q,v")
    ran = beftkit("select", *given, *more, "--lr", "0.05", "-o", "chosen")
    assert ran.code == 0, ran
    assert yaml.safe_load(Path("chosen/select.yaml").read_text())["template"] == ASKED[1]


def test_what_does_not_go_together(here: Path, beftkit: Beftkit) -> None:
    (here / "bert").mkdir()
    (here / "bert" / "config.json").write_text('{"model_type": "bert"}')
    files = ("--validation-file", "dev.jsonl", "--label-column", "verdict")

    def asked(*more: str, model: str = "opt") -> Any:
        return beftkit("evaluate", model, *files, *more)

    both = ASKED[:4]
    refused(asked(*both, model="bert"), "--template: bert (bert) is no causal language model")
    for more, message in (
        (both[:2], "--template was given without --choices"),
        (both[2:], "--choices was given without --template"),
        ((*both, "--text-columns", "text"), "--template and --text-columns were both given"),
        ((*both, "--label-map", "a=b"), "--template and --label-map were both given"),
        ((*both, "--as", "classes"), "--as classes: --template is a prompt"),
    ):
        refused(asked(*more), message, code=2)
    ran = beftkit("train", "opt", "--task", "sst2", *both, "-o", "x")
    refused(ran, "--template and --task were both given", code=2)


def test_a_model_as_it_is_answers_ones_own_prompt(here: Path, beftkit: Beftkit) -> None:
    """As an evaluation of the same prompt on the same rows has it, without their labels."""
    rows = [json.loads(line) for line in Path("dev.jsonl").read_text().splitlines()]
    Path("new.csv").write_text("text,no\n" + "".join(f"{r['text']},7\n" for r in rows))
    form = ("--device", "cpu", "--format", "json")
    truth = document(beftkit("evaluate", "opt", "--validation-file", "dev.jsonl", *ASKED, *form))
    for choices, names in (
        ("terrible,great", ("terrible", "great")),
        ("bad=terrible,good=great", ("bad", "good")),
        ("good=great,bad=terrible", ("bad", "good")),
    ):
        asks = ("--template", ASKED[1], "--choices", choices)
        said = document(beftkit("predict", "opt", "--file", "new.csv", *asks, *form))
        found = [one["label"] for one in said["predictions"]]
        hits = [
            label == names[row["verdict"] == "good"] for label, row in zip(found, rows, strict=True)
        ]
        assert 0 < sum(hits) < 60 and said["predictions"][0]["no"] == "7"
        assert sum(hits) / 60 == pytest.approx(truth["metrics"]["accuracy"])
    predictor = package.load("opt", template=ASKED[1], choices="terrible,great", device="cpu")
    assert [one.label for one in predictor([row["text"] for row in rows])] == [
        {"bad": "terrible", "good": "great"}[label] for label in found
    ]
    # two columns, and a line of stdin or an argument has them in the template's order
    two = ("--template", "{by}: {text} It was", "--choices", "terrible,great", *form)
    (one,) = document(beftkit("predict", "opt", "a\tfine film", *two))["predictions"]
    (same,) = document(beftkit("predict", "opt", "a: fine film", *asks, *form))["predictions"]
    assert one["probability"] == pytest.approx(same["probability"], abs=1e-6)
    assert (one["text1"], one["text2"]) == ("a", "fine film")
    refused(
        beftkit("predict", "opt", "--file", "new.csv", *two[:4]),
        "--template: names {by}, which is no column of new.csv; it has text, no",
    )
    for more, message in (
        (asks[:2], "--template was given without --choices"),
        ((*asks, "--task", "sst2"), "--template and --task were both given"),
        ((*asks, "--text-columns", "text"), "--template and --text-columns were both given"),
        ((*asks, "--as", "language"), "--as language: --template has answers to choose from"),
        ((), "or --template and --choices"),
    ):
        refused(beftkit("predict", "opt", "a film", *more), message, code=2, limit=400)


def test_an_adapter_knows_its_own_prompt(here: Path, beftkit: Beftkit) -> None:
    files = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl")
    ran = beftkit("train", "opt", *files, *ASKED, "--max-steps", "1", "-o", "out", "--quiet")
    assert ran.code == 0, ran
    (here / "sst2" / "SST-2").mkdir(parents=True)
    for name in ("train", "dev"):
        (here / "sst2" / "SST-2" / f"{name}.tsv").write_text("sentence\tlabel\na film\t1\n")
    task = ("--task", "sst2", "--data-dir", "sst2", "--max-steps", "1", "-o", "task", "--quiet")
    ran = beftkit("train", "opt", *task)
    assert ran.code == 0, ran
    same = ("--template", ASKED[1], "--choices")
    plain = beftkit("predict", "out", "a film", "--quiet").out
    for choices in ("terrible,great", "good=great,bad=terrible"):
        assert beftkit("predict", "out", "a film", *same, choices, "--quiet").out == plain
    for name, choices, was in (
        ("out", "great,terrible", "a prompt of its own"),
        ("out", "bad=great,good=terrible", "a prompt of its own"),
        ("out", "x=terrible,y=great", "a prompt of its own"),
        ("task", "terrible,great", "sst2"),
    ):
        ran = beftkit("predict", name, "a film", *same, choices)
        refused(ran, f"--template: it was trained on {was}; leave it out", code=2)
