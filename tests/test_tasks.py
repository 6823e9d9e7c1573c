"""The table of tasks, and data read from folders in the original layouts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beftkit import registry, tasks
from beftkit.errors import BeftError
from tests.task_files import (
    FIELDS,
    FOLDERS,
    LABELS,
    SENTENCES,
    SUPER_GLUE,
    splits,
    wanted_texts,
    write_folder,
    write_jsonl,
)

#: lr, epochs on base and large models, examples of the regimes: as published, typed anew.
PUBLISHED = {
    "cola": (7e-4, 16, 16, (1710, 3420, 4275)),
    "mnli": (1e-4, 30, 30, (1000, 5000, 9000)),
    "mrpc": (7e-4, 60, 60, (367, 1191, 1835)),
    "qnli": (1e-4, 30, 30, (1000, 5000, 9000)),
    "qqp": (4e-4, 30, 30, (1000, 5000, 9000)),
    "rte": (1e-3, 30, 30, (300, 900, 1200)),
    "sst2": (4e-4, 16, 30, (1000, 5000, 11000)),
    "stsb": (1e-4, 60, 60, (287, 1150, 2300)),
    "cb": (1e-3, 60, 60, (250,)),
    "wic": (1e-3, 16, 30, (1000,)),
}


def test_the_published_settings() -> None:
    published = {name for name in registry.ENCODED if registry.TASKS[name].published}
    assert published == set(PUBLISHED)
    for name, (lr, base, large, sizes) in PUBLISHED.items():
        task = registry.TASKS[name]
        assert task.settings(large=False) == (lr, base)
        assert task.settings(large=True) == (lr, large)
        assert tuple(task.sizes.items()) == tuple(zip(registry.REGIMES, sizes, strict=False))
        assert task.max_length == 128


def test_the_tables_schema_is_the_hubs() -> None:
    encoded = {name: registry.TASKS[name] for name in registry.ENCODED}
    assert {name: task.labels for name, task in encoded.items()} == LABELS
    assert {name: task.columns for name, task in encoded.items()} == FIELDS
    for name, task in encoded.items():
        assert task.hub.repo == ("aps/super_glue" if name in SUPER_GLUE else "nyu-mll/glue")
        assert (task.hub.config, len(task.hub.revision)) == (name, 40)
        assert 1 <= len(task.fields) <= 2
        assert set(task.metrics) <= set(tasks.METRIC_NAMES)
        assert list(task.sizes.values()) == sorted(task.sizes.values())
        assert all(len(one.validation) == len(task.validation) for one in task.layouts)
    assert registry.TASKS["mnli"].validation == ("validation_matched", "validation_mismatched")


@pytest.mark.parametrize("task", registry.ENCODED)
def test_a_folder_in_the_original_layout(task: str, tmp_path: Path) -> None:
    place = write_folder(tmp_path, task)
    data = tasks.load_task(task, data_dir=tmp_path)
    same(data, task)
    assert (data.name, data.labels) == (task, LABELS[task])
    source = json.loads(json.dumps(data.source))
    assert (source["kind"], data.notes) == ("folder", ())
    assert source["examples"] == {k: len(v) for k, v in splits(task).items() if k != "test"}
    assert all(Path(path).parent == place for path in source["files"].values())
    own = tasks.load_task(task, data_dir=place, train=False)
    assert own.train is None
    assert list(own.validation) == list(data.validation)


def same(data: tasks.Data, task: str) -> None:
    """The data are those the fixtures wrote."""
    assert data.train is not None
    found = {"train": data.train, **data.validation}
    wanted = splits(task)
    assert list(found) == [name for name in wanted if name != "test"]
    for name, split in found.items():
        assert list(split.texts) == wanted_texts(task, wanted[name])
        targets = [row["label"] for row in wanted[name]]
        assert split.targets.dtype == (np.int64 if LABELS[task] else np.float32)
        assert split.targets.tolist() == targets
        assert len(split) == len(targets)


@pytest.mark.parametrize(
    ("task", "folder"),
    [("sst2", "sst2"), ("sst2", "SST2"), ("cola", "cola"), ("stsb", "sts_b"), ("boolq", "BOOLQ")],
)
def test_spellings_of_folders(task: str, folder: str, tmp_path: Path) -> None:
    write_folder(tmp_path, task, folder)
    (tmp_path / "other").mkdir()
    same(tasks.load_task(task, data_dir=str(tmp_path)), task)


def test_rte_as_super_glue_ships_it(tmp_path: Path) -> None:
    place = tmp_path / "RTE"
    place.mkdir()
    for split, file in (("train", "train"), ("validation", "val")):
        names = {"sentence1": "premise", "sentence2": "hypothesis"}
        write_jsonl(place / f"{file}.jsonl", "rte", splits("rte")[split], names)
    same(tasks.load_task("rte", data_dir=tmp_path), "rte")


def test_mrpc_as_microsoft_ships_it(tmp_path: Path) -> None:
    """The validation set is scattered over the training file; a list of ids tells which it is."""
    place = tmp_path / "MRPC"
    place.mkdir()
    lines = []
    for split in ("train", "validation"):
        for i, row in enumerate(splits("mrpc")[split]):
            ids = (f"{split}{i}", "7")
            lines.append("\t".join((str(row["label"]), *ids, row["sentence1"], row["sentence2"])))
    lines = [*lines[-2:], *lines[:-2]]
    lines.sort(key=lambda line: line.split("\t")[1][-1])  # by number: the two are interleaved
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    text = "".join(line + "\r\n" for line in (header, *lines))
    (place / "msr_paraphrase_train.txt").write_bytes(text.encode())
    ids_file = place / "dev_ids.tsv"
    ids_file.write_text("".join(f"validation{i}\t7\n" for i in (2, 0, 1, 3)))
    same(tasks.load_task("mrpc", data_dir=tmp_path), "mrpc")
    ids_file.write_text("validation0\t8\n")
    with pytest.raises(BeftError, match=r"no validation examples beside dev_ids\.tsv"):
        tasks.load_task("mrpc", data_dir=tmp_path)
    ids_file.unlink()
    with pytest.raises(BeftError, match=r"dev_ids\.tsv: no such file"):
        tasks.load_task("mrpc", data_dir=tmp_path)


def test_qqp_leaves_broken_rows_out_and_says_so(tmp_path: Path) -> None:
    place = write_folder(tmp_path, "qqp")
    lines = (place / "train.tsv").read_text().split("\n")
    broken = "9\t9\t9\tA question\nin two lines?\tAnother?\t1"
    (place / "train.tsv").write_text("\n".join([*lines[:3], broken, *lines[3:]]))
    data = tasks.load_task("qqp", data_dir=tmp_path)
    same(data, "qqp")
    assert data.notes == (f"{place / 'train.tsv'}: 2 rows lack columns and are left out",)


def lines_of(change: Any) -> Any:
    """Change the lines of a file."""

    def damage(path: Path) -> None:
        lines = path.read_text("utf-8").split("\n")
        change(lines)
        path.write_bytes("\n".join(lines).encode())

    return damage


def put(number: int, text: str) -> Any:
    return lines_of(lambda lines: lines.__setitem__(number - 1, text))


DAMAGE: dict[str, tuple[str, Any, str]] = {
    "absent": ("sst2", Path.unlink, "train.tsv: no such file"),
    "a folder": ("sst2", lambda path: (path.unlink(), path.mkdir()), "train.tsv: not a file"),
    "empty": ("sst2", lambda path: path.write_bytes(b""), "train.tsv: empty"),
    "blank": ("cb", lambda path: path.write_bytes(b" \n\n"), "train.jsonl: empty"),
    "header only": ("sst2", lambda path: path.write_text("sentence\tlabel\n"), "no examples"),
    "no column": ("sst2", put(1, "text\tlabel"), "no column 'sentence'; it has text, label"),
    "another task's": ("qnli", put(1, "index\tsentence1\tsentence2\tlabel"), "'question'; it has"),
    "too few columns": ("sst2", put(3, "a sentence"), "train.tsv:3: 1 columns, expected 2"),
    "too few, no header": ("cola", put(2, "gj04\t1"), "train.tsv:2: 2 columns, expected 4"),
    "unknown number": ("sst2", put(4, "fine\t2"), "train.tsv:4: '2' in column 'label'; expected"),
    "unknown name": ("rte", put(2, "0\ta\tb\tmaybe"), "expected one of entailment, not_ent"),
    "no label": ("cola", put(1, "gj04\t\t\tfine"), "train.tsv:1: nothing in column 'label'"),
    "test set": ("sst2", put(2, "fine\t-1"), "-1 marks test sets"),
    "no number": ("stsb", put(2, "\t".join("abcdefghi") + "\tfive"), "'five', not a finite num"),
    "nan": ("stsb", put(3, "\t".join("abcdefghi") + "\tnan"), "train.tsv:3: 'nan', not a finite"),
    "infinite": ("stsb", put(2, "\t".join("abcdefghi") + "\t1e39"), "'1e39', not a finite"),
    "no value": ("stsb", put(2, "\t".join("abcdefghi") + "\t"), "nothing in column 'score'"),
    "latin-1": ("sst2", lambda path: path.write_bytes(b"sentence\tlabel\na\t1\ncaf\xe9\t1\n"),
                "train.tsv:3: not UTF-8"),
    "utf-16": ("sst2", lambda path: path.write_bytes("a\tb".encode("utf-16")), "not UTF-8"),
    "not JSON": ("cb", put(2, "{premise"), "train.jsonl:2: not JSON"),
    "nested": ("cb", put(2, "[" * 100_000), "train.jsonl:2: not JSON"),
    "a list": ("cb", put(2, "[1]"), "train.jsonl:2: a JSON list"),
    "no field": ("cb", put(2, '{"premise": "a", "label": 1}'), "jsonl:2: no 'hypothesis'; it has"),
    "null text": ("cb", put(2, '{"premise": null, "hypothesis": "", "label": "neutral"}'),
                  "train.jsonl:2: nothing in column 'premise'"),
    "number for text": ("cb", put(1, '{"premise": 3, "hypothesis": "", "label": "neutral"}'),
                        "train.jsonl:1: 3, not a text, in column 'premise'"),
    "null label": ("cb", put(1, '{"premise": "", "hypothesis": "", "label": null}'),
                   "train.jsonl:1: nothing in column 'label'"),
    "number out of range": ("cb", put(1, '{"premise": "", "hypothesis": "", "label": 3}'),
                            "train.jsonl:1: 3 in column 'label'"),
    "number of a test set": ("cb", put(1, '{"premise": "", "hypothesis": "", "label": -1}'),
                             "train.jsonl:1: -1 in column 'label' (-1 marks test sets"),
    "label of another kind": ("wic", put(1, '{"word": "", "sentence1": "", "sentence2": "",'
                                            ' "label": [1]}'), "[1] in column 'label'"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_bad_data(case: str, tmp_path: Path) -> None:
    task, damage, message = DAMAGE[case]
    place = write_folder(tmp_path, task)
    damage(place / ("train.jsonl" if task in SUPER_GLUE else "train.tsv"))
    with pytest.raises(BeftError) as caught:
        tasks.load_task(task, data_dir=tmp_path)
    text = str(caught.value)
    assert message in text
    assert str(place) in text
    assert "\n" not in text
    assert len(text) < len(str(place)) + 200
    assert len(tasks.load_task(task, data_dir=tmp_path, train=False).validation) == 1


def test_folders_without_the_task(tmp_path: Path) -> None:
    write_folder(tmp_path, "sst2")
    with pytest.raises(BeftError, match=r"no data of mnli; expected a folder MNLI with train\.tsv"):
        tasks.load_task("mnli", data_dir=tmp_path)
    with pytest.raises(BeftError, match=r"cannot be listed .*No such file"):
        tasks.load_task("mnli", data_dir=tmp_path / "absent")
    with pytest.raises(BeftError, match="task='sst': expected one of cola, sst2,"):
        tasks.load_task("sst", data_dir=tmp_path)
    with pytest.raises(BeftError, match="data_revision='main': only the hub"):
        tasks.load_task("sst2", data_dir=tmp_path, revision="main")
    with pytest.raises(BeftError, match=r"SST-2.train\.tsv:1: 2 columns, expected 4"):
        tasks.load_task("cola", data_dir=tmp_path / "SST-2")


def test_reading_loads_no_heavy_library(tmp_path: Path) -> None:
    for task in registry.ENCODED:
        write_folder(tmp_path, task)
    code = (
        "import sys; from beftkit import registry, tasks\n"
        f"for name in registry.ENCODED: tasks.load_task(name, data_dir={str(tmp_path)!r})\n"
        "assert not {'torch', 'datasets', 'transformers', 'evaluate', 'pyarrow', 'scipy',"
        " 'sklearn'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_subsample() -> None:
    split = tasks.Split(([f"text {i}" for i in range(100)],), np.arange(100))
    drawn = tasks.subsample(split, 10, 0)
    assert drawn.targets.tolist() == [82, 36, 20, 5, 93, 16, 94, 52, 72, 90]  # on any machine
    assert drawn.texts == ([f"text {i}" for i in drawn.targets],)
    assert tasks.subsample(split, 20, 0).targets.tolist()[:10] == drawn.targets.tolist()
    assert tasks.subsample(split, 10, 1).targets.tolist() != drawn.targets.tolist()
    assert sorted(tasks.subsample(split, 100, 3).targets.tolist()) == list(range(100))
    for count in (0, -1, 101):
        with pytest.raises(BeftError, match=f"{count} examples asked for, but there are 100"):
            tasks.subsample(split, count, 0)
    with pytest.raises(BeftError, match="seed -1"):
        tasks.subsample(split, 1, -1)


REAL = os.environ.get("BEFTKIT_DATA")
COUNTS = {
    "sst2": ("glue", 67349, 872), "rte": ("glue", 2490, 277), "cola": ("glue", 8551, 1043),
    "mrpc": ("glue", 3668, 408), "stsb": ("glue", 5749, 1500), "cb": ("superglue", 250, 56),
    "wic": ("superglue", 5428, 638), "boolq": ("superglue", 1000, 3270),
}  # fmt: skip


@pytest.mark.skipif(not REAL, reason="BEFTKIT_DATA is not set")
@pytest.mark.parametrize("task", COUNTS)
def test_the_real_files(task: str) -> None:
    suite, train, validation = COUNTS[task]
    root = Path(REAL or "") / "data" / suite
    data = tasks.load_task(task, data_dir=root)
    assert data.source["examples"] == {"train": train, "validation": validation}
    if suite == "superglue":
        path = root / FOLDERS[task] / "val.jsonl"
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        texts = wanted_texts(task, rows)
        names = [str(row["label"]) for row in rows]
    else:
        columns, label = {
            "sst2": ((0,), 1), "rte": ((1, 2), 3), "cola": ((3,), 1), "mrpc": ((3, 4), 0),
            "stsb": ((7, 8), 9),
        }[task]  # fmt: skip
        path = root / FOLDERS[task] / "dev.tsv"
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        lines = lines if task == "cola" else lines[1:]
        texts = [[line[i] for line in lines] for i in columns]
        names = [line[label] for line in lines]
    split = data.validation["validation"]
    assert list(split.texts) == texts
    if task in ("rte", "cb", "wic", "boolq"):
        assert [data.labels[i] for i in split.targets] == names
    else:
        np.testing.assert_array_equal(split.targets, np.array(names, dtype=split.targets.dtype))


def test_the_fixtures_hold_the_traps(tmp_path: Path) -> None:
    """What the tests above rely on: quotes, line separators and empty texts are in the files."""
    lines = (write_folder(tmp_path, "sst2") / "train.tsv").read_bytes().decode().split("\n")
    texts = [line.split("\t")[0] for line in lines[1:-1]]
    assert sorted(texts) == sorted(SENTENCES)
    assert [text.count('"') % 2 for text in SENTENCES].count(1) == 1
