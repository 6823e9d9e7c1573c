"""Tasks as a causal model is asked them: from original files, from the hub, and whole."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beftkit import registry, tasks
from beftkit.errors import BeftError
from beftkit.registry import SUPER_GLUE, TASKS, Kind
from beftkit.registry.prompted import SQUAD
from beftkit.tasks.own_prompts import load_written
from beftkit.tasks.prompts import Prompted, prompted
from tests import prompt_files, task_files
from tests.command import Beftkit
from tests.command import refused as command_refused
from tests.hub_data import DataHub, Repos, publish
from tests.prompt_files import DROP, PAIRS, PASSAGE, refused, write_hub, write_local, write_records

ASKED = [name for name, task in TASKS.items() if task.prompt]
ONLY_ASKED = [name for name in ASKED if name not in registry.ENCODED]
ELEUTHER = "e" * 40
LEFT_OUT = "2 of 4 examples have no right answer and are left out"


def wanted(task: str, split: str) -> list[Prompted]:
    """What should be asked, from the fixtures."""
    if task in PAIRS:
        return [prompted(task, row, row["label"]) for _, row in PAIRS[task][split]]
    if task == "multirc":
        return [
            prompted(task, {"paragraph": p, "question": q, "answer": a, "group": f"{i}.{j}"}, label)
            for i, (p, questions) in enumerate(prompt_files.MULTIRC[split])
            for j, (q, answers) in enumerate(questions)
            for a, label in answers
        ]
    if task == "record":
        return [
            prompted(task, {"passage": PASSAGE, "query": q, "entities": e, "answers": a})
            for e, queries in prompt_files.RECORD[split]
            for q, a in queries
        ]
    if task == "squad":
        return [
            prompted(task, {"title": t, "context": c, "question": q, "answers": a})
            for t, c, questions in prompt_files.SQUAD[split]
            for q, a in questions
        ]
    return [
        prompted(task, {"passage": p, "question": q, "answers": right})
        for p, questions in DROP[split]
        for q, _, _, right in questions
        if right
    ]


def same(data: tasks.Data, task: str) -> None:
    assert data.train is not None
    assert list(data.validation) == ["validation"]
    for name, split in {"train": data.train, **data.validation}.items():
        asked = wanted(task, name)
        assert list(split.asked) == asked
        numbers = range(len(asked)) if asked[0].gold else [one.right[0] for one in asked]
        assert split.targets.tolist() == [*numbers]
        assert (split.targets.dtype, len(split), split.texts) == (np.int64, len(asked), ())
    row = TASKS[task]
    assert row.prompt is not None
    assert (data.kind, data.labels, data.metrics) == (row.kind, row.labels, row.prompt.metrics)
    assert (len(data.notes), LEFT_OUT in "".join(data.notes)) == ((1, True) if task == "drop" else
                                                                 (0, False))  # fmt: skip


@pytest.mark.parametrize("task", ONLY_ASKED)
def test_the_original_files(task: str, tmp_path: Path) -> None:
    place = write_local(tmp_path, task)
    data = tasks.load_task(task, data_dir=tmp_path)
    same(data, task)
    source = json.loads(json.dumps(data.source))
    assert source["kind"] == "folder"
    assert source["examples"] == {n: len(wanted(task, n)) for n in ("train", "validation")}
    own = tasks.load_task(task, data_dir=place, train=False)
    assert own.train is None
    assert own.validation["validation"].asked == data.validation["validation"].asked


@pytest.mark.parametrize("task", [name for name in ASKED if name in registry.ENCODED])
def test_tasks_of_both_kinds(task: str, tmp_path: Path) -> None:
    """The same files give an encoder's texts and a causal model's prompts."""
    task_files.write_folder(tmp_path, task)
    asked = tasks.load_task(task, data_dir=tmp_path, kind="choice")
    read = tasks.load_task(task, data_dir=tmp_path)
    metrics = ("accuracy", "macro_f1") if task == "cb" else ("accuracy",)
    assert (asked.kind, asked.metrics, read.kind) == ("choice", metrics, "classes")
    assert (asked.labels, asked.counts) == (read.labels, read.counts)
    for name, split in {"train": asked.train, **asked.validation}.items():
        assert split is not None
        rows = task_files.splits(task)[name]
        assert list(split.asked) == [prompted(task, row, row["label"]) for row in rows]
        assert split.targets.tolist() == [row["label"] for row in rows]
    for split in (read.train, *read.validation.values()):
        assert split is not None
        assert (split.asked, len(split.texts)) == ((), len(TASKS[task].fields))


def test_rte_as_super_glue_ships_it(tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    names = {"sentence1": "premise", "sentence2": "hypothesis"}
    for split, file in (("train", "train"), ("validation", "val")):
        path = tmp_path / "RTE" / f"{file}.jsonl"
        task_files.write_jsonl(path, "rte", task_files.splits("rte")[split], names)
    found = tasks.load_task("rte", data_dir=tmp_path, kind="choice").validation["validation"]
    rows = task_files.splits("rte")["validation"]
    assert list(found.asked) == [prompted("rte", row, row["label"]) for row in rows]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Repos:
    """SuperGLUE, SQuAD and DROP as Parquet."""
    root = tmp_path_factory.mktemp("repos")
    for task in ONLY_ASKED:
        rows = {name: prompt_files.hub_rows(task, name) for name in ("train", "validation")}
        folder = root / (task if task in ("squad", "drop") else "super_glue")
        folder.mkdir(exist_ok=True)
        config = {"wsc": "wsc.fixed", "squad": "plain_text", "drop": "default"}.get(task, task)
        write_hub(folder, config, rows, TASKS[task].labels)
    return {
        "aps/super_glue": (root / "super_glue", SUPER_GLUE),
        "rajpurkar/squad": (root / "squad", SQUAD),
        "EleutherAI/drop": (root / "drop", ELEUTHER),
    }


@pytest.mark.parametrize("task", ONLY_ASKED)
def test_the_hub(task: str, data_hub: DataHub) -> None:
    data = tasks.load_task(task)
    same(data, task)
    source = json.loads(json.dumps(data.source))
    assert source["repo"] in data_hub.repos
    assert source["revision"] == data_hub.repos[source["repo"]].commit
    assert source["examples"] == {n: len(wanted(task, n)) for n in ("train", "validation")}


def test_validated_answers_as_objects(data_hub: DataHub, tmp_path: Path) -> None:
    """The other form that a data set of DROP may have; and one that is neither."""
    rows = {
        name: copy.deepcopy(prompt_files.hub_rows("drop", name)) for name in ("train", "validation")
    }
    for one in (*rows["train"], *rows["validation"]):
        lists = one["validated_answers"]
        one["validated_answers"] = [
            dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
        ]
    publish(data_hub, "EleutherAI/drop", write_hub(tmp_path, "default", rows), "2" * 40)
    same(tasks.load_task("drop"), "drop")
    rows["validation"][0]["validated_answers"] = [
        {**rows["validation"][0]["answer"], "spans": None}
    ]
    rows["validation"][0]["answer"]["spans"] = ["x", None]
    bad = tmp_path / "bad"
    bad.mkdir()
    publish(data_hub, "EleutherAI/drop", write_hub(bad, "default", rows), "3" * 40)
    refused("EleutherAI/drop validation, row 1, answer.spans[1]: None, not a text", "drop")


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    for task in ONLY_ASKED:
        with pytest.raises(BeftError, match=f"^task {task}: no classes"):
            tasks.load_task(task, data_dir=tmp_path, kind="classes")
    with pytest.raises(BeftError, match="task sst2: no generation; expected classes or choice"):
        tasks.load_task("sst2", data_dir=tmp_path, kind="generation")
    with pytest.raises(BeftError, match="task cola: no choice; expected classes"):
        tasks.load_task("cola", data_dir=tmp_path, kind="choice")
    with pytest.raises(BeftError, match="task sst2: a prompt's answers are its own"):
        tasks.load_task("sst2", data_dir=tmp_path, kind="choice", labels=("a", "b"))


@pytest.mark.parametrize("command", ["train", "select", "fisher", "evaluate"])
def test_commands_refuse_in_one_line(command: str, beftkit: Beftkit, tmp_path: Path) -> None:
    output = ["-o", str(tmp_path / "out")] if command in ("train", "select") else []
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "bert"}')
    called = (command, str(tmp_path / "m"), *output, "--task")
    ran = beftkit(*called, "copa")
    command_refused(ran, f"--task copa: {tmp_path / 'm'} (bert) is no causal language model")
    ran = beftkit(*called, "copa", "--as", "classes")
    command_refused(
        ran, "--as classes: --task copa is a prompt for a causal language model", code=2
    )
    assert not (tmp_path / "out").exists()


def test_queries_without_a_right_entity_are_left_out_and_said(tmp_path: Path) -> None:
    place = write_local(tmp_path, "record")
    records = copy.deepcopy(prompt_files.local_records("record", "train"))
    records[0]["qas"][0]["answers"][0]["text"] = "Cy"
    write_records(place / "train.jsonl", records)
    data = tasks.load_task("record", data_dir=tmp_path)
    assert data.train is not None
    assert list(data.train.asked) == wanted("record", "train")[1:]
    assert data.source["examples"] == {"train": 1, "validation": 1}
    (note,) = data.notes
    assert note == (
        f"{place / 'train.jsonl'}: 1 of 2 examples have no right answer and are left out"
    )


def test_a_draw_takes_its_prompts_along(tmp_path: Path) -> None:
    write_local(tmp_path, "multirc")
    split = tasks.load_task("multirc", data_dir=tmp_path).train
    assert split is not None
    drawn = tasks.subsample(split, 3, 0)
    numbers = [split.asked.index(one) for one in drawn.asked]
    assert len({*numbers}) == 3
    assert drawn.targets.tolist() == [split.targets[i] for i in numbers]


REAL = os.environ.get("BEFTKIT_DATA")
COUNTS = {
    "sst2": ("glue", 67349, 872), "rte": ("superglue", 2490, 277), "cb": ("superglue", 250, 56),
    "boolq": ("superglue", 1000, 3270), "wic": ("superglue", 5428, 638),
    "copa": ("superglue", 400, 100), "squad": ("", None, 10570),
}  # fmt: skip


@pytest.mark.skipif(not REAL, reason="BEFTKIT_DATA is not set")
@pytest.mark.parametrize("task", COUNTS)
def test_the_real_files_whole(task: str) -> None:
    suite, train, validation = COUNTS[task]
    root = Path(REAL or "") / "data" / suite
    kind: Kind = "generation" if task == "squad" else "choice"
    data = tasks.load_task(task, data_dir=root, train=train is not None, kind=kind)
    counts = {"validation": validation} if train is None else {"train": train}
    assert data.source["examples"] == {**counts, "validation": validation}
    assert data.notes == ()
    asked = data.validation["validation"].asked
    assert all(one.right and one.prompt and not one.prompt.endswith(" ") for one in asked)
    assert all(answer.strip() for one in asked for answer in one.answers)
    if task == "squad":
        first = asked[0]
        assert first.prompt.startswith("Title: Super_Bowl_50\nContext: Super Bowl 50 was an Amer")
        assert first.prompt.endswith(
            "\nQuestion: Which NFL team represented the AFC at Super Bowl 50?\nAnswer:"
        )
        assert (first.answers, first.gold) == ((" Denver Broncos\n",), ("Denver Broncos",))
    if task == "copa":
        assert asked[0] == Prompted(
            "The man turned on the faucet so",
            (" the toilet filled with water.", " water flowed from the spout."), (1,),
        )  # fmt: skip


@pytest.mark.skipif(not REAL, reason="BEFTKIT_DATA is not set")
def test_the_unofficial_drop_file() -> None:
    path = Path(REAL or "") / "data" / "drop" / "drop_v0_dev.jsonl.gz"
    data = load_written(validation=path)
    asked = data.validation["validation"].asked
    assert data.source["examples"] == {"validation": 9536}
    assert (data.name, data.kind, data.metrics) == (
        "drop_v0_dev", "generation", ("token_f1", "exact_match"),
    )  # fmt: skip
    assert all(one.prompt.startswith("Passage: ") for one in asked)
    assert all(one.prompt.endswith("\nAnswer:") for one in asked)
    assert asked[1].gold == ("Pakistanis and Filipinos", "Pakistani and Filipino")
    assert asked[1].answers == (" Pakistanis and Filipinos\n",)


def test_files_of_whole_prompts(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    rows = [{"q": "Who {0}? \n ", "a": " Bob | Ann||Bob"}, {"q": "Where?", "a": "a|b"}]
    write_records(path, rows)
    options: dict[str, Any] = {"prompt_column": "q", "answers_column": "a"}
    data = load_written(path, **options)
    assert data.train is not None
    assert list(data.train.asked) == [
        Prompted("Who {0}? \n", (" Bob\n",), (0,), ("Bob", "Ann")),
        Prompted("Where?", (" a\n",), (0,), ("a", "b")),
    ]
    assert (data.train.targets.tolist(), data.validation) == ([0, 1], {})
    whole = load_written(None, path, separator="", **options).validation["validation"]
    assert whole.asked[1].gold == ("a|b",)
    with pytest.raises(BeftError, match=r"own\.jsonl: no column 'context'; it has q, a"):
        load_written(path)
    with pytest.raises(BeftError, match="column 'q': for prompts and answers"):
        load_written(path, prompt_column="q", answers_column="q")
    with pytest.raises(BeftError, match="give a training or a validation file"):
        load_written()
    write_records(path, [*rows, {"q": "Why?", "a": " | "}])
    with pytest.raises(BeftError, match=r"own\.jsonl:3: no answer in column 'a'"):
        load_written(path, **options)
    write_records(path, [*rows, {"q": None, "a": "x"}])
    with pytest.raises(BeftError, match=r"own\.jsonl:3: nothing in column 'q'"):
        load_written(path, **options)
