"""A head that is kept decides by its names: labels of the data are mapped onto them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit.errors import BeftError
from tests import tiny_run
from tests.command import Beftkit, refused

QUICK = {"epochs": 1, "batch_size": 8, "device": "cpu", "max_length": 16}
SENTIMENT = ("positive", "negative")
MakeModel = Callable[..., Path]


def texts(count: int = 40) -> list[str]:
    import random

    rng = random.Random(3)
    return [" ".join(rng.choices(tiny_run.WORDS, k=rng.randint(1, 9))) for _ in range(count)]


@pytest.fixture
def make_model(tiny: Path, tmp_path: Path) -> MakeModel:
    """A folder with a model whose head names its classes so; rows may be put in another order."""

    def make(name: str, names: Sequence[str] | None, *, order: Sequence[int] = ()) -> Path:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        from beftkit.models import quiet

        width = len(names or (0, 1))
        logging.disable_progress_bar()
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(4)
            model = AutoModelForSequenceClassification.from_pretrained(
                tiny / "base", num_labels=width
            )
            with torch.no_grad():
                model.classifier.weight.normal_(std=3.0)
                answers = [model(**one).logits[0] for one in encoded(tiny / "base")]
                # Every class is the answer to some text.
                model.classifier.bias.copy_(-torch.stack(answers).median(0).values)
                if order:
                    model.classifier.weight.copy_(model.classifier.weight[list(order)].clone())
                    model.classifier.bias.copy_(model.classifier.bias[list(order)].clone())
        if names is not None:
            model.config.id2label = dict(enumerate(names))
            model.config.label2id = {name: i for i, name in enumerate(names)}
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(tiny / "base").save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def encoded(folder: Path) -> list[Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text, return_tensors="pt") for text in texts()]


def answers(folder: Path) -> list[int]:
    """The class that transformers' own model gives for each text."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        found = [int(model(**one).logits.argmax()) for one in encoded(folder)]
    assert set(found) == set(range(model.config.num_labels)), "each class occurs"
    return found


def write_csv(path: Path, labels: Sequence[str], column: str = "label") -> str:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", column])
        writer.writerows(zip(texts(), labels, strict=False))
    return str(path)


def write_sst2(folder: Path, ids: Sequence[int]) -> str:
    (folder / "SST-2").mkdir(parents=True)
    rows = "".join(f"{text}\t{i}\n" for text, i in zip(texts(), ids, strict=True))
    for name in ("train.tsv", "dev.tsv"):
        (folder / "SST-2" / name).write_text("sentence\tlabel\n" + rows)
    return str(folder)


def accuracy(found: Any) -> float | None:
    value: float | None = found.evaluation.metrics["accuracy"]
    return value


@pytest.mark.parametrize("names", [SENTIMENT, SENTIMENT[::-1], ("Positive ", "NEG")])
def test_a_model_that_is_right_on_every_row(
    names: tuple[str, str], make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("m", names)
    said = [names[i] for i in answers(model)]
    found = api.evaluate(model, validation_file=write_csv(tmp_path / "d.csv", said), device="cpu")
    assert accuracy(found) == 1.0
    # SST-2's own numbers: 1 is positive
    numbers = [int(word.lower().startswith("pos")) for word in said]
    task = {"task": "sst2", "data_dir": write_sst2(tmp_path / "glue", numbers), "device": "cpu"}
    found = api.evaluate(model, metric=["accuracy", "f1"], **task)
    assert found.evaluation.metrics == {"accuracy": 1.0, "f1": 1.0}
    mapped = "labels as classes of the head" in "".join(found.notes)
    assert mapped == (names != ("negative", "positive"))
    assert found.to_dict()["classes"] == {
        "validation": {name: sum(word == name for word in said) for name in names}
    }


def test_metrics_count_by_the_tasks_own_numbers(make_model: MakeModel, tmp_path: Path) -> None:
    """F1's positive is the task's 1, whichever number the head has for it."""
    from sklearn.metrics import f1_score

    values = {}
    for names, order in ((SENTIMENT, (0, 1)), (SENTIMENT[::-1], (1, 0))):
        model = make_model("".join(names), names, order=order)
        said = [int(names[i] == "positive") for i in answers(model)]
        truth = [1] * 30 + [0] * 10
        folder = tmp_path / f"glue{order}"
        found = api.evaluate(
            model, task="sst2", metric="f1", device="cpu", data_dir=write_sst2(folder, truth)
        )
        values[names] = found.evaluation.metrics["f1"]
        assert values[names] == pytest.approx(f1_score(truth, said))
        assert values[names] != pytest.approx(f1_score(truth, said, pos_label=0))
    assert len({*values.values()}) == 1


@pytest.mark.parametrize("how", ["head", "full"])
def test_our_own_model_on_the_same_rows_as_a_csv(
    how: str, tiny: Path, tmp_path: Path, make_model: MakeModel
) -> None:
    """MNLI's order is not that of sorted names."""
    from beftkit.registry import TASKS

    names = TASKS["mnli"].labels
    assert list(names) != sorted(names)
    said = [names[i] for i in answers(make_model("m", names))]
    data = {
        "train_file": write_csv(tmp_path / "d.csv", said),
        "validation_file": write_csv(tmp_path / "e.csv", said),
    }
    result = api.train(
        str(tmp_path / "m"), bias=how, output=str(tmp_path / "out"), lr=1e-9, **data, **QUICK
    )
    last = result.runs[0].last
    assert last is not None and last.metrics["accuracy"] == 1.0
    trained: dict[str, Any] = (
        {"model": tmp_path / "out/model"}
        if how == "full"
        else {"adapter": tmp_path / "out/adapter"}
    )
    found = api.evaluate(**trained, validation_file=data["validation_file"], device="cpu")
    assert accuracy(found) == 1.0
    one = write_csv(tmp_path / "one.csv", [word for word in said if word == "neutral"][:1])
    assert api.evaluate(**trained, validation_file=one, device="cpu").classes == {
        "validation": {"entailment": 0, "neutral": 1, "contradiction": 0}
    }
    if how == "full":  # and trained on, the head keeps its names
        config = json.loads((tmp_path / "out/model/config.json").read_text())
        assert list(config["id2label"].values()) == list(names)
    else:
        from beftkit.weights import adapter_info

        metadata = adapter_info(tmp_path / "out/adapter").metadata
        assert json.loads(metadata["beftkit.labels"]) == list(names)


def test_fisher_and_training_see_the_same_classes(make_model: MakeModel, tmp_path: Path) -> None:
    """The same model with its head's rows, and names, the other way round is the same model."""
    one = make_model("one", SENTIMENT)
    other = make_model("other", SENTIMENT[::-1], order=(1, 0))
    said = [SENTIMENT[i] for i in answers(one)]
    file = write_csv(tmp_path / "d.csv", said)
    scores = [api.fisher_all(m, train_file=file, device="cpu")[0] for m in (one, other)]
    first, second = ({role: x.figures["fisher"] for role, x in s.roles.items()} for s in scores)
    assert first == pytest.approx(second, rel=1e-4)
    assert any("negative = 1 (negative)" in note for note in scores[0].notes)
    runs = [api.train(m, train_file=file, bias="v", **QUICK).runs[0].scores for m in (one, other)]
    assert runs[0]["v"] == pytest.approx(runs[1]["v"], rel=1e-4)


def test_names_that_do_not_fit(
    make_model: MakeModel, tmp_path: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("m", SENTIMENT)
    said = ["good" if i == 0 else "bad" for i in answers(model)]
    write_csv(tmp_path / "d.csv", said)
    monkeypatch.chdir(tmp_path)
    line = "labels bad, good, the head's positive, negative: none fits; say which, as --label-map"
    file = ("--validation-file", "d.csv", "--device", "cpu")
    ran = beftkit("evaluate", "m", *file)
    refused(ran, line)
    assert "--new-head" not in ran.err
    ran = beftkit("evaluate", "m", *file, "--label-map", "good=positive,bad=negative")
    assert ran.code == 0 and "good = 0 (positive)" in ran.out and "1.0000" in ran.out, ran
    train = ("--train-file", "d.csv", "--epochs", "1", "--device", "cpu")
    for command in ("train", "fisher", "select"):
        output = () if command == "fisher" else ("-o", f"out-{command}")
        ran = beftkit(
            command, "m", *train[: 2 if command == "fisher" else 4], "--device", "cpu", *output
        )
        refused(ran, line)
        assert "--new-head draws a fresh classifier" in ran.err
    refused(beftkit("train", "m", *train, "--new-head", "--label-map", "good=positive", "-o", "n"),
            "no classifier that is kept")  # fmt: skip
    ran = beftkit("train", "m", *train, "--new-head", "-o", "new")
    assert ran.code == 0 and "drawn anew by seed 0: classifier.bias, classifier.weight" in ran.err
    # another number of classes is another head
    write_csv(tmp_path / "three.csv", ["a", "b", "c"] * 5)
    ran = beftkit("train", "m", "--train-file", "three.csv", "-o", "three", "--device", "cpu")
    refused(ran, "its head does not fit: classifier.bias is [2]")
    refused(beftkit("evaluate", "m", "--validation-file", "three.csv"), "the head's positive, neg")


def test_classes_without_names_keep_the_tasks_order(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model("m", None)
    said = [("bad", "good")[i] for i in answers(model)]
    file = write_csv(tmp_path / "d.csv", said)
    found = api.evaluate(model, validation_file=file, device="cpu")
    assert accuracy(found) == 1.0
    assert any("no names, by order: bad = 0 (LABEL_0)" in note for note in found.notes)
    assert list(found.classes["validation"]) == ["bad", "good"]
    numbers = write_csv(tmp_path / "n.csv", list(map(str, answers(model))))
    found = api.evaluate(model, validation_file=numbers, device="cpu")
    assert accuracy(found) == 1.0 and any("by number" in note for note in found.notes)


def test_a_base_without_head_has_no_names(tiny: Path, tmp_path: Path) -> None:
    """Its configuration has some all the same: LABEL_0 and LABEL_1."""
    three = ("LABEL_1", "LABEL_0", "other")
    file = write_csv(tmp_path / "d.csv", [three[i % 3] for i in range(40)])
    found = api.train(tiny / "base", train_file=file, **QUICK)
    assert list(found.classes["train"]) == ["LABEL_0", "LABEL_1", "other"]
    assert not any("classes of the head" in note for run in found.runs for note in run.notes)


def test_an_adapter_of_stock_peft_names_no_classes(tiny: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(tiny / "base", num_labels=3)
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    get_peft_model(base, config).save_pretrained(tmp_path / "peft")
    file = write_csv(tmp_path / "d.csv", ["c", "a", "b", "a"])
    found = api.evaluate(
        tiny / "base", adapter=tmp_path / "peft", validation_file=file, device="cpu"
    )
    assert any("no names, by order: a = 0 (LABEL_0), b = 1" in note for note in found.notes)
    numbers = write_csv(tmp_path / "n.csv", ["2", "1"])
    found = api.evaluate(
        tiny / "base", adapter=tmp_path / "peft", validation_file=numbers, device="cpu"
    )
    assert found.classes == {"validation": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 1}}
    with pytest.raises(BeftError, match="labels a, b, the head's LABEL_0, LABEL_1, LABEL_2: none"):
        two = write_csv(tmp_path / "two.csv", ["a", "b"])
        api.evaluate(tiny / "base", adapter=tmp_path / "peft", validation_file=two, device="cpu")


def test_what_is_shown(
    make_model: MakeModel,
    tmp_path: Path,
    beftkit: Beftkit,
    monkeypatch: pytest.MonkeyPatch,
    no_hub: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model("m", SENTIMENT)
    write_csv(tmp_path / "d.csv", ["negative"] * 15 + ["positive"] * 25)
    write_csv(tmp_path / "e.csv", ["negative"] * 3)
    files = ("--train-file", "d.csv", "--validation-file", "e.csv")
    rows = (
        "train: 40 rows: positive 25, negative 15",
        "validation: 3 rows: positive 0, negative 3",
    )
    classes = {
        "train": {"positive": 25, "negative": 15},
        "validation": {"positive": 0, "negative": 3},
    }
    planned = beftkit("train", "m", *files, "--dry-run", "--format", "json")
    found = json.loads(planned.out)
    assert (found["labels"], found["classes"]) == (list(SENTIMENT), classes)
    assert set(rows) < set(found["notes"]) and "negative = 1" in "".join(found["notes"])
    assert rows[0] in beftkit("train", "m", *files, "--dry-run").out
    ran = beftkit("train", "m", *files, "--epochs", "1", "-o", "out", "--device", "cpu",
                  "--format", "json")  # fmt: skip
    assert all(row in ran.err for row in rows) and json.loads(ran.out)["classes"] == classes
    assert json.loads(Path("out/all_results.json").read_text())["classes"] == classes
    planned = beftkit("train", "m", "--task", "sst2", "--dry-run", "--format", "json")
    found = json.loads(planned.out)
    assert (found["labels"], found["classes"]) == (list(SENTIMENT), {})
    assert "sst2: labels as classes of the head: negative = 1 (negative)" in "".join(found["notes"])


def test_quotation_marks_as_letters(tiny: Path, tmp_path: Path, beftkit: Beftkit) -> None:
    (tmp_path / "d.csv").write_text('text,label\n"good film,a\nbad film",b\nfilm,a\n')
    given = (tiny / "base", "--train-file", tmp_path / "d.csv", "--dry-run", "--format", "json")
    assert json.loads(beftkit("train", *given, "--no-quotes").out)["classes"] == {
        "train": {"a": 2, "b": 1}
    }
    found = json.loads(beftkit("train", *given).out)
    assert found["classes"] == {"train": {"a": 1, "b": 1}}
    assert "give --no-quotes" in "".join(found["notes"])
