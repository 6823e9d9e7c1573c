"""What files of examples really look like: quotes, gzip, arrays, delimiters, wrong names."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from beftkit import tasks
from beftkit.errors import BeftError
from beftkit.tasks import text_files
from beftkit.tasks.readers import read_file
from tests.task_files import SUPER_GLUE, write_folder
from tests.test_tasks import REAL, same

TSV = "text\tlabel\n"


def loaded(path: Path, content: str | bytes, **options: Any) -> tasks.Data:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tasks.load_files(path, **options)


def rows(data: tasks.Data) -> list[tuple[str, str]]:
    """(text, label) of the training examples."""
    assert data.train is not None
    labels = [data.labels[i] for i in data.train.targets]
    return list(zip(data.train.texts[0], labels, strict=True))


QUOTED = "quotation marks are taken for letters: one that opens a field in line {} does not close"
#: name -> (a tsv file, its rows, what a note says)
TABS: dict[str, tuple[str, list[tuple[str, str]], str]] = {
    "opens in one row, closes in another": (
        TSV + '"good film\tpos\nbad film"\tneg\n' + "good\tpos\n" * 2,
        [('"good film', "pos"), ('bad film"', "neg"), ("good", "pos"), ("good", "pos")],
        QUOTED.format(2),
    ),
    "never closes": (TSV + 'a\tneg\n"b\tpos\n', [("a", "neg"), ('"b', "pos")], QUOTED.format(3)),
    "one does not close": (TSV + '"a"\tneg\n"b\tpos\n', [('"a"', "neg"), ('"b', "pos")],
                           QUOTED.format(3)),
    "goes on behind": (TSV + '"a" b\tneg\nb\tpos\n', [('"a" b', "neg"), ("b", "pos")],
                       QUOTED.format(2)),
    "all close": (TSV + '"a ""b"""\tneg\nb\t"pos"\n', [('a "b"', "neg"), ("b", "pos")], ""),
    "inside": (TSV + 'a "b\tneg\nc" d\tpos\n', [('a "b', "neg"), ('c" d', "pos")], ""),
    "lines": (TSV + '"a\nb"\tneg\nc\tpos\n', [("a\nb", "neg"), ("c", "pos")],
              "t.tsv:2: a quoted field spans lines (line 2 to 3)"),
    "a tab": (TSV + '"a\tb"\tneg\nc\tpos\n', [("a\tb", "neg"), ("c", "pos")], ""),
    "empty lines": (TSV + 'a\tneg\n\n"b"\tpos\n\n', [("a", "neg"), ("b", "pos")], ""),
    "in the last column": ('label\ttext\nneg\t"a\npos\tb"\n', [('"a', "neg"), ('b"', "pos")],
                           QUOTED.format(2)),
}  # fmt: skip


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("case", TABS)
def test_quotation_marks_take_in_no_rows(case: str, ends: str, tmp_path: Path) -> None:
    content, wanted, said = TABS[case]
    data = loaded(tmp_path / "t.tsv", content.replace("\n", ends))
    assert [(text.replace("\r", ""), label) for text, label in rows(data)] == wanted
    assert data.source["examples"] == {"train": len(wanted)}
    assert len(data.notes) == bool(said)
    assert said in "".join(data.notes)


def test_a_tab_and_lines_in_one_field_are_rather_letters(tmp_path: Path) -> None:
    with pytest.raises(BeftError, match=r"t\.tsv:3: 1 columns, expected 2"):
        loaded(tmp_path / "t.tsv", TSV + '"a\tneg\nb\nc"\tpos\nd\tneg\n')


def test_a_csv_field_that_spans_lines_is_noted(tmp_path: Path) -> None:
    content = 'text,label\na,neg\n"b,pos\nc",neg\n"d\ne\nf",pos\n'
    data = loaded(tmp_path / "t.csv", content)
    assert rows(data) == [("a", "neg"), ("b,pos\nc", "neg"), ("d\ne\nf", "pos")]
    (note,) = data.notes
    assert "t.csv:3: a quoted field spans lines (line 5 to 7, the longest of 2 such rows)" in note
    assert "--no-quotes" in note
    with pytest.raises(BeftError, match=r"t\.csv:3: 3 columns, expected 2 .*quotes=False"):
        loaded(tmp_path / "t.csv", 'text,label\na,x\n"b,x\nc",x,y\nd,y\n')


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_quotes_as_letters(suffix: str, tmp_path: Path) -> None:
    content = 'text,label\n"a,neg\nb",pos\n"c",neg\n'
    content = content if suffix == "csv" else content.replace(",", "\t")
    data = loaded(tmp_path / f"t.{suffix}", content, quotes=False)
    assert rows(data) == [('"a', "neg"), ('b"', "pos"), ('"c"', "neg")]
    assert data.notes == ()


@pytest.mark.parametrize(
    "header", ["text, label", " text ,label", "text,\tlabel ", '"text", "label"']
)
def test_blanks_in_a_header(header: str, tmp_path: Path) -> None:
    data = loaded(tmp_path / "t.csv", f"{header}\na,x\nb,y\n")
    assert rows(data) == [("a", "x"), ("b", "y")]


def test_blanks_behind_every_comma(tmp_path: Path) -> None:
    content = 'text, label\na, x\n"b, c", "y"\n'
    assert rows(loaded(tmp_path / "t.csv", content)) == [("a", "x"), ("b, c", "y")]
    letters = loaded(tmp_path / "t.csv", content.replace("b, c", "b"), quotes=False)
    assert rows(letters) == [("a", "x"), ('"b"', '"y"')]


SAME = [("a", "x"), ("b \u00e9", "y")]
CONTENTS = {
    "csv": "text,label\na,x\nb \u00e9,y\n",
    "tsv": "text\tlabel\na\tx\nb \u00e9\ty\n",
    "jsonl": '{"text": "a", "label": "x"}\n{"text": "b \u00e9", "label": "y"}\n',
    "json": '[\n {"text": "a", "label": "x"},\n {"text": "b \u00e9", "label": "y"}\n]\n',
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_gzip(kind: str, tmp_path: Path) -> None:
    content = CONTENTS[kind].encode()
    data = loaded(tmp_path / f"mine.{kind}.gz", gzip.compress(content))
    assert (data.name, rows(data)) == ("mine", SAME)
    assert rows(loaded(tmp_path / f"mine.{kind}", gzip.compress(content))) == SAME
    halves = gzip.compress(content[:20]) + gzip.compress(content[20:])
    assert rows(loaded(tmp_path / f"halves.{kind}.GZ", halves)) == SAME


def test_gzip_that_unpacks_to_more_than_a_text_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused long before all of it is in memory, where rows are streamed and where they are not.

    A large file that packs as texts do is read, and so is a small one that packs far better.
    """
    monkeypatch.setattr(text_files, "UNPACKED", 1 << 18)
    header = b"text,label\n"
    bomb = gzip.compress(header + b"a" * (20 << 20))
    tracemalloc.start()
    with pytest.raises(BeftError, match=r"t\.csv\.gz: unpacks to more than 1 MiB, over 100 times"):
        loaded(tmp_path / "t.csv.gz", bomb)
    with pytest.raises(BeftError, match="unpack it yourself if it is one"):
        [*text_files.TextOnDisk(tmp_path / "t.csv.gz").lines()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20
    many = b"".join(b"%x,%d\n" % (n * 2654435761, n % 2) for n in range(25_000))
    assert len(many) > 1 << 18
    assert len(rows(loaded(tmp_path / "large.csv.gz", gzip.compress(header + many)))) == 25_000
    alike = header + b"a film,1\na book,0\n" * 12_000
    assert len(alike) < 1 << 18 > 100 * len(gzip.compress(alike))
    assert len(rows(loaded(tmp_path / "alike.csv.gz", gzip.compress(alike)))) == 24_000


def test_gzip_that_is_damaged(tmp_path: Path) -> None:
    packed = gzip.compress(CONTENTS["csv"].encode() * 99)
    for damaged, message in (
        (packed[:-20], "gzip cut off before its end"),
        (packed[:5], "gzip cut off before its end"),
        (packed[:40] + b"\0\0\0\0" + packed[44:], "damaged gzip"),
        (packed[:-8] + bytes(8), "damaged gzip"),
        (packed + b"more", "damaged gzip"),
        (CONTENTS["csv"].encode(), "not gzip, though it is called so"),
        (b"", "empty"),
        (gzip.compress(b""), "empty"),
    ):
        with pytest.raises(BeftError, match=rf"t\.csv\.gz: {message}") as caught:
            loaded(tmp_path / "t.csv.gz", damaged)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["sst2", "mnli", "cb"])
def test_a_tasks_folder_packed(task: str, tmp_path: Path) -> None:
    place = write_folder(tmp_path, task)
    for path in list(place.iterdir()):
        with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
            shutil.copyfileobj(plain, packed)
        path.unlink()
    data = tasks.load_task(task, data_dir=tmp_path)
    same(data, task)
    assert all(path.endswith(".gz") for path in data.source["files"].values())
    name = "train.jsonl" if task in SUPER_GLUE else "train.tsv"
    (place / name).write_text("")  # a plain file comes first
    with pytest.raises(BeftError, match=f"{name}: empty"):
        tasks.load_task(task, data_dir=tmp_path)


@pytest.mark.skipif(not REAL, reason="BEFTKIT_DATA is not set")
def test_a_real_file_packed() -> None:
    path = Path(REAL or "") / "data" / "drop" / "drop_v0_dev.jsonl.gz"
    if not path.exists():
        pytest.skip("no DROP there")
    table = read_file(path, lambda names: ["context", "completion"])
    assert len(table) == 9536
    assert table.columns["completion"][0] == " under the age of 18 and 25 to 44 and 45 to 64"


def test_an_array_of_objects(tmp_path: Path) -> None:
    for content in (
        '[{"text": "a", "label": "x"}, {"text": "b \u00e9", "label": "y"}]',
        '\ufeff\n [{"text":"a","label":"x"}\n,\n{"label":"y","text":"b \u00e9"}]\r\n\n',
        json.dumps([{"label": label, "text": text} for text, label in SAME], indent=4),
    ):
        assert rows(loaded(tmp_path / "t.json", content)) == SAME
        assert rows(loaded(tmp_path / "t.jsonl", content)) == SAME


ROW = '{"text": "a", "label": 1}'
#: name -> (file, its content, the message behind its name)
WRONG: dict[str, tuple[str, str | bytes, str]] = {
    "array cut off": ("t.json", f"[\n{ROW},\n{ROW}", ":3: not JSON; expected one object per line,"),
    "array without end": ("t.json", f"[\n{ROW},\n", ":3: not JSON"),
    "array, no comma": ("t.json", f"[\n{ROW}\n{ROW}]", ":3: not JSON"),
    "array, comma at the end": ("t.json", f"[{ROW},\n]", ":2: not JSON"),
    "more behind the array": ("t.json", f"[{ROW}]\n{ROW}", ":2: not JSON"),
    "an empty array": ("t.json", "[ ]", ": no examples"),
    "an array of others": ("t.json", f"[{ROW},\n[1]]", ":2: a JSON list; expected one object per"),
    "nested array": ("t.json", "[" * 100_000, ":1: not JSON"),
    "array, bad row": ("t.json", f'[{ROW},\n\n{{"text": 2, "label": 0}}]', ":3: 2, not a text"),
    "array, a key less": ("t.json", f'[{ROW},\n{{"label": 1}}]', ":2: no 'text'; it has label"),
    "one object over lines": ("t.json", '{\n"text": "a"}', ":1: not JSON; expected one object per"),
    "same key": ("t.jsonl", f'{ROW}\n{{"text": "b", "label": 0, "label": 1}}',
                 ":2: the key 'label' twice in one object"),
    "same key within": ("t.jsonl", '{"text": "b", "label": 0, "a": [{"k": 0, "k": 1}]}',
                        ":1: the key 'k' twice"),
    "same key in an array": ("t.json", f'[{ROW},\n{{"text": "", "text": ""}}]', ":2: the key 'te"),
    "half a character": ("t.jsonl", '{"text": "a \\uD83d", "label": 0}', ":1: half a character"),
    "same column": ("t.csv", "text,label,text\na,1,b\n", ": the column 'text' twice"),
    "same but for blanks": ("t.csv", "text,label, text\na,1,b\n", ": the column 'text' twice"),
    "semicolons": ("t.csv", "text;label\na;1\n", ": its columns are separated by ';', a .csv file's"
                   " by ','; save it with commas or tabs"),
    "semicolons, quoted": ("t.csv", '"text";"label"\n"a;b";1\n', "separated by ';'"),
    "bars": ("t.csv", "text|label\na|1\n", ": its columns are separated by '|'"),
    "tabs": ("t.csv", "text\tlabel\na\t1\n", "by tabs, a .csv file's by ','; name it .tsv"),
    "commas": ("t.tsv", "text,label\na,1\n", "by ',', a .tsv file's by tabs; name it .csv"),
    "one column": ("t.csv", "text\na\nb\n", ": it is not clear which column is the label; name it"),
    "Excel's line": ("t.csv", "sep=;\ntext;label\na;1\n", ":1: Excel's line 'sep=;'; delete it"),
    "UTF-16": ("t.csv", "text,label\na,1\n".encode("utf-16"), ": UTF-16, not UTF-8 text; convert"),
    "UTF-16, big end": ("t.jsonl", b"\xfe\xff" + ROW.encode("utf-16-be"), ": UTF-16, not UTF-8"),
    "UTF-16, no mark": ("t.csv", "text,label\n".encode("utf-16-le"), ":1: a NUL character, as"),
    "NUL": ("t.tsv", "text\tlabel\na\t1\nb\0\t0\n", ":3: a NUL character"),
    "an Excel file": ("t.csv", b"PK\x03\x04\x14\0\x06\0", ": a zip archive or Excel file"),
    "an old Excel file": ("t.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", ": an Excel file; save"),
    "called Excel": ("t.xlsx", b"PK\x03\x04", ": expected a .csv, .tsv, .jsonl or .parquet file "
                     "(text also as .gz); save the sheet as CSV UTF-8"),
    "Parquet": ("t.csv", b"PAR1\x15\0PAR1", ": a Parquet file; give it a name in .parquet"),
    "bzip2": ("t.jsonl", b"BZh91AY&SY\0\0", ": packed; unpack it, or pack it with gzip"),
    "zstd": ("t.csv", b"\x28\xb5\x2f\xfd\x04", ": packed; unpack it"),
    "Parquet in gzip": ("t.parquet.gz", gzip.compress(b"PAR1"), ": not a readable Parquet file"),
    "Git LFS": ("t.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:4665a7\n",
                ": a Git LFS pointer, not the file"),
    "HTML": ("t.csv", "\n<!DOCTYPE html>\n<html><body>404</body></html>", ": an HTML page, not"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_something_else(case: str, tmp_path: Path) -> None:
    name, content, message = WRONG[case]
    with pytest.raises(BeftError) as caught:
        loaded(tmp_path / name, content)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / name))
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_lines_that_end_in_carriage_returns_alone(kind: str, tmp_path: Path) -> None:
    data = loaded(tmp_path / f"t.{kind}", CONTENTS[kind].replace("\n", "\r"))
    assert rows(data) == SAME


def features(**named: list[str]) -> dict[str, str]:
    """Metadata as ``datasets`` writes it."""
    kinds: dict[str, Any] = {"text": {"dtype": "string", "_type": "Value"}, "tags": [{"a": 1}]}
    kinds |= {name: {"names": names, "_type": "ClassLabel"} for name, names in named.items()}
    return {"huggingface": json.dumps({"info": {"features": kinds}})}


def write_parquet(path: Path, labels: Any, metadata: dict[Any, Any]) -> Path:
    table = pyarrow.table({"text": ["a"] * len(labels), "label": labels})
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_class_labels_of_a_parquet_file(tmp_path: Path) -> None:
    """Ids keep the order of the names, in a file beside it too; names decide between files."""
    names = ["not_equivalent", "equivalent", "unclear"]
    path = write_parquet(tmp_path / "t.parquet", [1, 0, 1], features(label=names))
    data = tasks.load_files(path)
    assert data.train is not None
    assert (list(data.labels), data.train.targets.tolist()) == (names, [1, 0, 1])
    (tmp_path / "t.csv").write_text("text,label\na,equivalent\nb,unclear\n")
    data = tasks.load_files(tmp_path / "t.csv", path)
    assert data.train is not None
    assert (list(data.labels), data.train.targets.tolist()) == (names, [1, 2])
    other = write_parquet(tmp_path / "o.parquet", [0, 1], features(label=names[1::-1]))
    data = tasks.load_files(path, other)
    assert data.validation["validation"].targets.tolist() == [1, 0]
    kept = tasks.load_files(path, labels=("equivalent", "not_equivalent"))
    assert kept.train is not None
    assert kept.train.targets.tolist() == [0, 1, 0]


def test_class_labels_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for bad in (-1, 2):
        write_parquet(path, [0, 1, bad], features(label=["x", "y"]))
        with pytest.raises(
            BeftError, match=rf"row 3: {bad} in column 'label'.*expected one of x, y"
        ):
            tasks.load_files(path)
    write_parquet(path, [0, None], features(label=["x", "y"]))
    with pytest.raises(BeftError, match="row 2: nothing in column 'label'"):
        tasks.load_files(path)
    for metadata in ({}, {"huggingface": "{"}, {"huggingface": "[]"}, {b"huggingface": b"\xff"}):
        assert tasks.load_files(write_parquet(path, [0, 1], metadata)).labels == ("0", "1")


def test_a_column_twice_in_parquet(tmp_path: Path) -> None:
    columns = [pyarrow.array(["a", "b"]), pyarrow.array([0, 1]), pyarrow.array([1, 0])]
    table = pyarrow.Table.from_arrays(columns, names=["text", "label", "label"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(BeftError, match=r"t\.parquet: the column 'label' twice"):
        tasks.load_files(tmp_path / "t.parquet")


def test_longer_rows_of_a_task_are_noted(tmp_path: Path) -> None:
    place = write_folder(tmp_path, "cola")
    with (place / "train.tsv").open("a") as file:
        file.write("gj04\t1\t\ta text\twith a tab\n")
    (note,) = tasks.load_task("cola", data_dir=tmp_path).notes
    assert note == f"{place / 'train.tsv'}: 1 rows have more columns than 4: not read"


def test_no_row_is_taken_in_whatever_the_quotes(tmp_path: Path) -> None:
    """Rows of a tsv without line breaks in them are as many as its lines, whatever is quoted."""
    draw = random.Random(0)
    for _ in range(300):
        texts = ["".join(draw.choices('"" ab', k=draw.randint(1, 6))) for _ in range(6)]
        lines = [f"{text}\t{i % 2}\n" for i, text in enumerate(texts)]
        data = loaded(tmp_path / "t.tsv", TSV + "".join(lines))
        assert data.train is not None and data.train.targets.tolist() == [0, 1] * 3
        if data.train.texts[0] != texts:
            assert all(re.fullmatch('"([^"]|"")*"', t) for t in texts if t.startswith('"'))
