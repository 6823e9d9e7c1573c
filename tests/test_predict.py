"""`beftkit predict`: rows in, the same rows out with their answers, in every form."""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit.errors import BeftError, UsageError
from beftkit.runs import predicting
from beftkit.training.trainer import Interrupted
from tests.answering import rows_of
from tests.command import Beftkit, refused

LINES = ["good film", "", 'the plot, "awful"', "=cmd()|' /C calc'!A0", "bad"]


@pytest.fixture
def here(answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with links to the runs, and a csv of other columns as well."""
    for name in ("base", "run", "values", "dev.jsonl", "pairs.jsonl"):
        (tmp_path / name).symlink_to(answering / name)
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[f"{n}", text, 'naïve, "x"\nline'] for n, text in enumerate(LINES)]
        csv.writer(file, lineterminator="\n").writerows([["id", "text", "note"], *rows])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(ran: Any) -> list[dict[str, Any]]:
    assert ran.code == 0, ran
    return [json.loads(line) for line in ran.out.splitlines()]


def test_texts_on_the_command_line(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit("predict", "run", "good film", "bad\x1b[31m", "--device", "cpu")
    assert ran.code == 0 and "good film" in ran.out and "bad?[31m" in ran.out, ran
    assert "label" in ran.out and "probability" in ran.out and "\x1b" not in ran.out
    one, two = lines(beftkit("predict", "--adapter", "run/adapter", "good film", "bad",
                             "--format", "jsonl", "-q"))  # fmt: skip
    predictor = api.load("run", device="cpu")
    for row, answer in zip((one, two), predictor(["good film", "bad"]), strict=True):
        assert row["label"] == answer.label and row["probabilities"] == answer.probabilities
        assert row["probability"] == answer.probability == row["probabilities"][row["label"]]
    document = json.loads(beftkit("predict", "run", "good film", "bad", "--format", "json").out)
    assert document["schema_version"] == 2 and "beftkit_version" in document
    assert document["predictions"] == [one, two] and document["labels"] == ["neg", "pos"]
    markdown = beftkit("predict", "run", "good film", "--format", "markdown").out
    assert f"| good film | {one['label']} | {one['probability']:.4f} |" in markdown


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("to", ["csv", "jsonl", "parquet"])
def test_every_row_and_column_is_kept(
    ending: str, to: str, here: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of two rows: more than one, and a last one that is not full."""
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(predicting, "CHUNK", 2)
    rows: list[dict[str, Any]] = [*rows_of(here / "rows.csv")]
    path = here / f"in.{ending}"
    if "csv" in ending:
        raw = (here / "rows.csv").read_bytes()
        path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    elif ending == "tsv":
        rows = [{**row, "note": "x", "text": row["text"].replace('"', "'")} for row in rows]
        path.write_text(
            "\n".join(
                "\t".join(row.values())
                for row in [dict.fromkeys(rows[0]) and {k: k for k in rows[0]}, *rows]
            )
        )
    elif ending == "parquet":
        rows = [{**row, "id": int(row["id"]), "more": [1.5, None]} for row in rows]
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        rows = [{**row, "id": n, "more": {"a": [n, None]}} for n, row in enumerate(rows)]
        text = "\n".join(map(json.dumps, rows))
        path.write_text(text if ending == "jsonl" else json.dumps(rows))
    out = here / f"out.{to}"
    ran = beftkit("predict", "run", "--file", path, "-o", out, "--device", "cpu")
    assert ran.code == 0 and ran.out == "" and f"wrote {out}, 5 rows: neg " in ran.err, ran
    assert "1 of 5 texts are empty: answered like any other" in ran.err
    if to == "csv":
        found: list[dict[str, Any]] = [*rows_of(out)]
        rows = [{k: json.dumps(v) if isinstance(v, list | dict) else str(v)
                 for k, v in row.items()} for row in rows]  # fmt: skip
    elif to == "jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert [*found[0].pop("probabilities")] == ["neg", "pos"]
    else:
        found = parquet.read_table(out).to_pylist()
    assert [{key: row[key] for key in rows[0]} for row in found] == rows
    assert [*found[0]] == [*rows[0], "label", "probability"]
    answers = api.load("run", device="cpu")([row["text"] for row in rows])
    assert [row["label"] for row in found] == [one.label for one in answers]
    values = [float(row["probability"]) for row in found]
    assert values == pytest.approx([one.probability for one in answers], abs=1e-6)
    assert not [path for path in here.iterdir() if path.name.startswith(".beftkit-")]


def test_a_column_of_our_name_is_not_overwritten(here: Path, beftkit: Beftkit) -> None:
    ran = beftkit("predict", "run", "--file", "dev.jsonl", "-o", "one.csv", "--all-probabilities")
    told = "dev.jsonl: has such columns; those of the answers are predicted_label, "
    assert ran.code == 0 and told in ran.err, ran
    ours = ["predicted_label", "predicted_probability", "predicted_probability_neg",
            "predicted_probability_pos"]  # fmt: skip
    first = rows_of(here / "one.csv")
    assert [*first[0]] == ["text", "label", *ours]
    wanted = [json.loads(line)["label"] for line in (here / "dev.jsonl").read_text().splitlines()]
    assert [row["label"] for row in first] == wanted
    # Once more, on what came of it.
    assert beftkit("predict", "run", "--file", "one.csv", "-o", "two.csv").code == 0
    second = rows_of(here / "two.csv")
    assert [*second[0]] == [*first[0], "predicted_predicted_label",
                            "predicted_predicted_probability"]  # fmt: skip
    assert [r["predicted_predicted_label"] for r in second] == [r[ours[0]] for r in first]


def test_the_predicted_labels_have_the_accuracy_that_evaluate_measures(
    here: Path, beftkit: Beftkit
) -> None:
    assert beftkit("predict", "run", "--file", "dev.jsonl", "-o", "one.csv").code == 0
    rows = rows_of(here / "one.csv")
    right = sum(row["label"] == row["predicted_label"] for row in rows) / len(rows)
    ran = beftkit("evaluate", "--adapter", "run", "--validation-file", "dev.jsonl", "--format",
                  "json")  # fmt: skip
    assert json.loads(ran.out)["metrics"]["accuracy"] == pytest.approx(right, abs=1e-12)


def feed(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))


def test_lines_of_stdin(here: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = "\ufeffgood film\r\n\nna\u00efve\u2028bad\tfilm\nbad".encode()
    for arguments in (["run"], ["run", "-"], ["--adapter", "run"]):
        feed(monkeypatch, raw)
        found = lines(beftkit("predict", *arguments, "--format", "jsonl"))
        assert [one["text"] for one in found] == [
            "good film", "", "na\u00efve\u2028bad\tfilm", "bad",
        ]  # fmt: skip
        assert all(one["label"] in ("neg", "pos") for one in found)
    feed(monkeypatch, raw)
    rows = csv.DictReader(io.StringIO(beftkit("predict", "run", "--format", "csv").out))
    assert [row["label"] for row in rows] == [one["label"] for one in found]
    feed(monkeypatch, b"good\n\xff\n")
    ran = beftkit("predict", "run", "-q")
    assert ran.code == 1 and "stdin: not UTF-8 text" in ran.err
    feed(monkeypatch, b"")
    ran = beftkit("predict", "run", "--format", "jsonl")
    assert ran.code == 0 and ran.out == "" and "the texts: no rows" in ran.err


def test_pairs_and_values(here: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("good film", "bad plot the"), ("awful", "")]
    wanted = [one.value for one in api.load("values", device="cpu")(pairs)]
    found = lines(beftkit("predict", "values", *map("\t".join, pairs), "--format", "jsonl"))
    assert [one["value"] for one in found] == pytest.approx(wanted, abs=1e-6)
    assert [*found[0]] == ["text1", "text2", "value"]
    feed(monkeypatch, "".join(f"{a}\t{b}\n" for a, b in pairs).encode())
    assert lines(beftkit("predict", "values", "--format", "jsonl")) == found
    # Of a file the columns of the training, without being named; others' where they are.
    ran = beftkit("predict", "values", "--file", "pairs.jsonl", "-o", "out.jsonl")
    assert ran.code == 0, ran
    assert json.loads((here / "out.jsonl").read_text().splitlines()[0])["id"] == 0
    (here / "other.csv").write_text("first,second\ngood film,bad plot the\n")
    ran = beftkit("predict", "values", "--file", "other.csv", "--text-columns", "first,second",
                  "--format", "csv")  # fmt: skip
    [row] = csv.DictReader(io.StringIO(ran.out))
    assert float(row["value"]) == pytest.approx(wanted[0], abs=1e-6)
    ran = beftkit("predict", "values", "good film", "-q")
    refused(ran, "text 1: expected two texts, with a tab between them")
    ran = beftkit("predict", "values", "--file", "rows.csv", "-q")
    refused(ran, "rows.csv: text: one text an example, and values/adapter was trained on two texts")


def test_rows_without_a_text(here: Path, beftkit: Beftkit) -> None:
    given = ["good film", None, "bad"]
    text = "".join(json.dumps({"text": one}) + "\n" for one in given)
    (here / "gaps.jsonl").write_text(text)
    ran = beftkit("predict", "run", "--file", "gaps.jsonl", "--format", "jsonl")
    found = lines(ran)
    assert [one["text"] for one in found] == given
    assert [one["label"] is None for one in found] == [False, True, False]
    assert found[1]["probability"] is None and found[1]["probabilities"] is None
    assert "no answer to 1 row: no text, or none that gives a token" in ran.err
    ran = beftkit("predict", "run", "--file", "gaps.jsonl", "--format", "csv", "--threshold", "1")
    rows = [*csv.DictReader(io.StringIO(ran.out))]
    assert [row["label"] for row in rows] == ["", "", ""] and float(rows[0]["probability"]) < 1
    assert "no answer to 2 rows: no label's probability is 1 or more" in ran.err
    (here / "gaps.jsonl").write_text('{"text": "good"}\n{"text": 3}\n')
    ran = beftkit("predict", "run", "--file", "gaps.jsonl", "-o", "out.csv", "-q")
    refused(ran, "gaps.jsonl:2: '3', not a text, in column 'text'")
    assert not (here / "out.csv").exists()


def test_a_task_s_texts_are_made_as_the_task_makes_them(answering: Path) -> None:
    """WiC's first text holds the word that is asked about."""
    from beftkit.registry import TASKS
    from beftkit.runs.asked import of_file
    from beftkit.runs.standing import Standing

    class One:
        settings = api.load(answering / "values", device="cpu").settings
        standing = Standing(task=TASKS["wic"])

        def check_texts(self, count: int, where: str) -> None:
            assert count == 2, where

    path = answering.parent / "wic.jsonl"
    row = {"word": "place", "sentence1": "a {b}", "sentence2": "c", "idx": 1}
    path.write_text(json.dumps(row) + "\n")
    source = of_file(One(), path)  # type: ignore[arg-type]
    [(where, found)] = source.rows
    assert found == row and source.texts(where, found) == ["place: a {b}", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no model was given"),
        (["run", "x", "--file", "rows.csv"], "texts and --file rows.csv were given"),
        (["run", "x", "-o", "out.xlsx"], "its ending tells no format"),
        (["run", "x", "--format", "parquet"], "is not for a terminal"),
        (["run", "x", "--threshold", "2"], "threshold"),
        (["run", "--file", "rows.csv", "-o", "rows.csv"], "is an input as well"),
        (["--adapter", "base", "x"], "is a whole model"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, here: Path, beftkit: Beftkit) -> None:
    before = (here / "rows.csv").read_bytes()
    ran = beftkit("predict", *arguments, "-q") if arguments else beftkit("predict", "-q")
    assert ran.code == 2 and message in ran.err and "Traceback" not in ran.err, ran
    assert ran.out == "" and (here / "rows.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("id,body,more\n1,good,x\n", "a.csv", "not clear which columns are the texts"),
        ("text,text\na,b\n", "a.csv", "the column 'text' twice"),
        ("text;note\na;b\n", "a.csv", "its columns are separated by ';'"),
        ("text,note\na\n", "a.csv", "a.csv:2: 1 columns, expected 2"),
        ('text,note\na,"b\n', "a.csv", "not as quoted as it should be"),
        ("text\n\xff", "a.csv", "a.csv:2: not UTF-8 text"),
        ("text\na\0b\n", "a.csv", "a.csv:2: a NUL character"),
        ("", "a.jsonl", "a.jsonl: empty"),
        ('{"text": "a"}\n{"body": "b"}\n', "a.jsonl", "a.jsonl:2: no 'text'"),
        ('{"text": "a"}\n{\n', "a.jsonl", "a.jsonl:2: not JSON"),
        ('{"text": "a"}\n{"text": "b", "label": 1}\n', "a.jsonl", "a.jsonl:2: has 'label'"),
        ("x", "a.xlsx", "save the sheet as CSV UTF-8"),
        ("x", "a.parquet", "not a readable Parquet file"),
        ("text\na\n", "a.csv.gz", "not gzip, though it is called so"),
    ],
)
def test_files_that_cannot_be_read(
    text: str, name: str, message: str, here: Path, beftkit: Beftkit
) -> None:
    (here / name).write_bytes(text.encode("latin-1"))
    (here / "out.csv").write_text("precious")
    refused(beftkit("predict", "run", "--file", name, "-o", "out.csv", "-q"), message)
    assert (here / "out.csv").read_text() == "precious"
    assert not [path for path in here.iterdir() if path.name.startswith(".beftkit-")]


def test_json_whose_columns_grow(here: Path, beftkit: Beftkit) -> None:
    (here / "a.jsonl").write_text('{"text": "a"}\n{"text": "b", "new": 1e999}\n')
    ran = beftkit("predict", "run", "--file", "a.jsonl", "-o", "o.csv", "-q")
    refused(ran, "a.jsonl:2: has 'new', which the first row has not; write .jsonl")
    assert beftkit("predict", "run", "--file", "a.jsonl", "-o", "o.jsonl", "-q").code == 0
    found = [json.loads(line) for line in (here / "o.jsonl").read_text().splitlines()]
    assert "new" not in found[0] and found[1]["new"] is None


def test_a_label_is_no_formula(here: Path) -> None:
    """An adapter's label comes from others; the user's own columns stay as they are."""
    from beftkit.runs.rows import open_writer

    file = io.BytesIO()
    writer = open_writer("csv", file, ["text"], ["label"], None)
    writer.write([("row 1", {"text": "=1+1", "label": "=cmd()"})])
    assert file.getvalue() == b"text,label\n=1+1,'=cmd()\n"


def test_it_tells_how_far_it_is_and_stops_when_asked(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beftkit.watching import Unwatched

    told: list[Any] = []

    class Told(Unwatched):
        def started(self, title: str, steps: int, done: int) -> None:
            told.append((title, done))

        def advanced(self, steps: int) -> None:
            told.append(steps)

    monkeypatch.setattr(predicting, "CHUNK", 2)
    given: dict[str, Any] = {"file": "rows.csv", "output": "o.csv", "device": "cpu"}
    found = api.predict("run", **given, watcher=Told())
    assert told == [("rows.csv", 0), 2, 2, 1] and found.examples == 5
    assert found.counts["neg"] + found.counts["pos"] == 5 and found.rows == ()
    (here / "o.csv").unlink()
    with pytest.raises(Interrupted):
        api.predict("run", **given, asked_to_stop=lambda: signal.SIGINT)
    assert not (here / "o.csv").exists()
    with pytest.raises(UsageError, match="expected one of the two"):
        api.predict("run")


def test_a_large_file_is_never_held(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written before the next are read; what was read is let go."""
    from beftkit.tasks import stream_file

    path = here / "long.csv"
    with path.open("w") as file:
        file.write("text,id\n")
        for number in range(20_000):
            file.write(f"{'good film ' * 50},{number}\n")
    import tracemalloc

    tracemalloc.start()
    rows = stream_file(path, lambda present: ["text"])
    count = sum(1 for _ in rows.rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000 and rows.about == count and most < 1_000_000 < path.stat().st_size / 9


def test_errors_are_ours(here: Path) -> None:
    with pytest.raises(BeftError, match="text 2: holds bytes that are not UTF-8 text"):
        api.predict("run", texts=["good", "\udcff"], device="cpu")
    assert api.predict("run", texts="good film", device="cpu").examples == 1, "no list of letters"
    wrong: Any
    for wrong in ([1], ["a", 2], ["a", ("b", 3)], [None]):
        with pytest.raises(BeftError, match=r"text \d: expected one text; given"):
            api.predict("run", texts=wrong, device="cpu")
    with pytest.raises(BeftError, match=r"format 'xml': expected table, json"):
        api.predict("run", texts=["a"], format="xml")  # type: ignore[arg-type]
