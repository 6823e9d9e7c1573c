"""Commands that are recommended work when copied; an evaluation is that of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from beftkit.runs.evaluating import OTHERS
from tests import task_files, tiny_run
from tests.command import Beftkit, Ran, refused
from tests.copied import next_commands

QUICK = ("--device", "cpu", "--batch-size", "8", "--lr", "1e-2", "--epochs", "2", "--quiet")
FILES = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl")
#: what is nobody's default: every one of them changes the metrics or the reading
FULL = ("--train-file", "my train's.csv", "--validation-file", "my dev's.csv", "--text-columns",
        "the title,body", "--label-column", "kind of", "--no-quotes", "--validation-size", "20",
        "--max-length", "5", "--precision", "bf16", "--metric", "macro_f1", "--eval-batch-size",
        "3")  # fmt: skip
Train = Callable[..., Any]


@pytest.fixture
def train(workplace: Path, beftkit: Beftkit) -> Train:
    """Run it, to a good end; the result as JSON, and what the table's form would recommend."""

    def run(*arguments: str) -> Any:
        ran = beftkit("train", "base", *QUICK, *arguments)
        assert ran.code == 0, ran
        return ran

    return run


def kept(out: str) -> Any:
    """The metrics of the state that the last seed's adapter holds."""
    return evaluated(out)["metrics"]


def evaluated(out: str) -> Any:
    """The evaluation of that state, as the log has it."""
    run = json.loads(Path(out, "all_results.json").read_text())["runs"][-1]
    logs = [*Path(out).glob("log.jsonl"), *Path(out).glob(f"seed-{run['seed']}/log.jsonl")]
    lines = map(json.loads, logs[0].read_text().splitlines())
    step = run[run["kept"]]["step"]
    return next(one for one in lines if "metrics" in one and one["step"] == step)


def write_csv(name: str, source: str) -> None:
    rows = [json.loads(line) for line in Path(source).read_text().splitlines()]
    lines = [f'{row["text"]},"{row["text"]},{row["label"]}' for row in rows]
    Path(name).write_text("\n".join(["the title,body,kind of", *lines, ""]))


def write_values() -> None:
    rows = [{"a": "good film", "b": "bad plot", "score": i % 3} for i in range(12)]
    Path("values.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def metrics(ran: Ran) -> Any:
    assert ran.code == 0, ran
    return json.loads(ran.out)["metrics"]


CASES = {
    "files": ("a run's", FULL),
    "values": ("out", ("--train-file", "values.jsonl", "--validation-file", "values.jsonl",
                       "--regression", "--text-columns", "a,b")),
    "folder": ("out", ("--task", "sst2", "--data-dir", "some data", "--keep", "best")),
    "seeds": ("out", (*FILES, "--seeds", "0,1", "--dtype", "bfloat16", "--keep", "best")),
    "whole": ("out", (*FILES, "--bias", "full", "--validation-size", "9", "--max-length", "4")),
    "tokenizer": ("out", (*FILES, "--tokenizer", "words", "--adapter-format", "biases")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_train_recommends_works(case: str, train: Train, beftkit: Beftkit) -> None:
    out, arguments = CASES[case]
    write_csv("my train's.csv", "train.jsonl")
    write_csv("my dev's.csv", "dev.jsonl")
    write_values()
    task_files.write_folder(Path("some data"), "sst2")
    tiny_run.write_base(Path("words"))
    other = json.loads(Path("words/tokenizer.json").read_text())
    words = other["model"]["vocab"]
    words["good"], words["bad"] = words["bad"], words["good"]
    Path("words/tokenizer.json").write_text(json.dumps(other))
    evaluate, score = next_commands(train(*arguments, "-o", out).out)
    assert evaluate[0] == "evaluate" and score[0] == "score"
    ran = beftkit(*evaluate, "--device", "cpu", "--format", "json")
    found, expected = json.loads(ran.out), evaluated(out)
    assert found["metrics"] == expected["metrics"] and found["examples"] == expected["examples"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-7)
    notes = found["notes"]
    assert OTHERS not in notes and not [note for note in notes if "the run's was" in note], notes
    assert beftkit(*score).code == 0


def test_what_makes_no_sense_is_not_recommended(train: Train) -> None:
    """Without validation examples there is nothing to evaluate on."""
    [score] = next_commands(train("--train-file", "train.jsonl", "-o", "blind").out)
    assert score == ["score", "blind/adapter"]


def test_what_select_recommends_works(workplace: Path, beftkit: Beftkit) -> None:
    task_files.write_folder(Path("some data"), "sst2")
    ran = beftkit("select", "base", "--task", "sst2", "--data-dir", "some data", *QUICK,
                  "--precision", "bf16", "--no-fisher", "-o", "the selection")  # fmt: skip
    assert ran.code == 0, ran
    [words] = next_commands(ran.out)
    ran = beftkit(*words)
    assert ran.code == 0, ran
    evaluate, _ = next_commands(ran.out)
    assert metrics(beftkit(*evaluate, "--device", "cpu", "--format", "json")) == kept(words[-1])


def test_what_the_demo_recommends_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beftkit: Beftkit
) -> None:
    from tests.test_demo import TINY

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("beftkit.demo.DemoSize", lambda: TINY)
    ran = beftkit("demo", "-o", "a demo's")
    assert ran.code == 0, ran
    also = next(line for line in ran.out.splitlines() if line.startswith("Also: "))
    assert beftkit(*next_commands(also.replace("Also: ", "Next: "))[0]).code == 0
    [words] = next_commands(ran.out)
    ran = beftkit(*words)
    assert ran.code == 0, ran
    evaluate, score = next_commands(ran.out)
    assert metrics(beftkit(*evaluate, "--format", "json")) == kept(words[-1])
    assert beftkit(*score).code == 0


def test_what_differs_is_said(train: Train, beftkit: Beftkit) -> None:
    train(*FILES, "--validation-size", "20", "-o", "out")
    shutil.copy("dev.jsonl", "other.jsonl")
    again = ("evaluate", "--adapter", "out/adapter", "--device", "cpu")

    def notes(*given: str) -> list[str]:
        ran = beftkit(*again, *given, "--format", "json")
        assert ran.code == 0, ran
        found: list[str] = json.loads(ran.out)["notes"]
        assert (json.loads(ran.out)["examples"] == 20) == ("other.jsonl" not in given)
        return [note for note in found if "the run's" in note and "the model" not in note]

    assert notes() == []
    assert notes("--validation-file", "dev.jsonl", "--precision", "fp32") == []
    assert notes("--precision", "bf16") == ["precision bf16, the run's was fp32"]
    assert notes("--max-length", "4", "--dtype", "bfloat16", "--metric", "f1") == [
        "dtype bfloat16, the run's was float32", "max-length 4, the run's was 128",
        "metric f1, the run's was accuracy, macro_f1",
    ]  # fmt: skip
    assert notes("--validation-file", "other.jsonl", "--no-quotes") == [
        "on all examples; the run's own evaluation drew 20 (--validation-size)",
        "quotes off, the run's was on",
        "validation-file other.jsonl, the run's was dev.jsonl",
    ]
    # The same place, other examples.
    Path("dev.jsonl").unlink()
    tiny_run.write_examples(Path("dev.jsonl"), 31, seed=9)
    assert notes() == [OTHERS]
    assert notes("--max-length", "4") == ["max-length 4, the run's was 128"]
    # On its own, an adapter does not say where its examples are, and yet knows them.
    shutil.copytree("out/adapter", "alone")
    ran = beftkit("evaluate", "--adapter", "alone", "--device", "cpu")
    assert ran.code == 2 and "the run was on files of its own" in ran.err
    ran = beftkit("evaluate", "--adapter", "alone", *FILES[2:], "--task", "rte")
    assert ran.code == 2 and "--task and --validation-file were both given" in ran.err
    given = ("evaluate", "--adapter", "alone", "--validation-size", "20", "--device", "cpu")
    ran = beftkit(*given, "--validation-file", "other.jsonl")
    assert ran.code == 0 and OTHERS not in ran.out
    ran = beftkit(*given, "--validation-file", "dev.jsonl")
    assert ran.code == 0 and OTHERS in ran.out


def test_a_run_is_found_from_anywhere(
    train: Train, beftkit: Beftkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(*FILES, "-o", "runs/out")
    train(*FILES, "--max-steps", "1", "-o", str(tmp_path / "absolute"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for out in ("../runs/out", "../absolute"):
        ran = beftkit("evaluate", "--adapter", f"{out}/adapter", "--format", "json")
        assert metrics(ran) == kept(out)
        assert any(f"evaluated on {tmp_path}/dev.jsonl, as " in n for n in notes_of(ran))
    # Moved as a whole, its own data is read, not what lies where it was.
    (tmp_path / "moved").mkdir()
    for name in ("runs", "dev.jsonl"):
        shutil.move(tmp_path / name, tmp_path / "moved")
    tiny_run.write_examples(tmp_path / "dev.jsonl", 5, seed=9)
    monkeypatch.chdir(tmp_path / "moved/runs/out/adapter")
    ran = beftkit("evaluate", "--adapter", ".", "--format", "json")
    assert metrics(ran) == kept("..")
    # Alone elsewhere, it knows where it was started; and nothing is there any more.
    shutil.move(tmp_path / "moved/runs/out", tmp_path / "copy")
    (tmp_path / "dev.jsonl").unlink()
    ran = beftkit("evaluate", "--adapter", tmp_path / "copy/adapter")
    refused(ran, "copy/run.yaml: its evaluation read 'dev.jsonl' (validation-file), which is not "
            "there now; give --validation-file\n", 400)  # fmt: skip


def notes_of(ran: Ran) -> list[str]:
    found: list[str] = json.loads(ran.out)["notes"]
    return found


def test_a_folder_of_data_that_is_gone(train: Train, beftkit: Beftkit) -> None:
    task_files.write_folder(Path("data"), "sst2")
    train("--task", "sst2", "--data-dir", "data", "-o", "out")
    Path("data").rename("moved")
    again = ("evaluate", "--adapter", "out/adapter", "--device", "cpu", "--format", "json")
    refused(beftkit(*again), "which is not there now; give --data-dir, or --data-revision bcdc")
    ran = beftkit(*again, "--data-dir", "moved")
    assert metrics(ran) == kept("out") and "data-dir moved, the run's was data" in notes_of(ran)


def test_a_header_opens_nothing(train: Train, beftkit: Beftkit) -> None:
    """Anybody may have written it, and what lies in a run's folder need not be that run's."""
    train(*FILES, "-o", "out")
    train(*FILES, "--bias", "q", "-o", "q")
    file = Path("out/adapter/adapter_model.safetensors")
    tensors = load_file(file)
    from safetensors import safe_open

    with safe_open(file, "np") as held:
        header = held.metadata()
    evil = {"validation_file": "dev.jsonl", "data_dir": "/etc", "tokenizer": "base",
            "precision": "fp8", "validation_size": "-1", "max_length": "[" * 9999,
            "data_revision": "../../x", "trust_remote_code": "true"}  # fmt: skip
    Path("evil").mkdir()
    shutil.copy("out/adapter/adapter_config.json", "evil")
    header |= {f"beftkit.{name}": text for name, text in evil.items()}
    save_file(tensors, "evil/adapter_model.safetensors", header)
    ran = beftkit("evaluate", "--adapter", "evil")
    assert ran.code == 2 and "neither a task nor a validation file was given" in ran.err
    ran = beftkit("evaluate", "--adapter", "evil", *FILES[2:], "--format", "json")
    assert metrics(ran) == kept("out")
    told = {note.split()[4] for note in notes_of(ran) if "which is left out" in note}
    assert told == {"tokenizer", "precision", "validation_size", "max_length", "data_revision"}
    # In a run's folder, but of another run: the header counts.
    shutil.rmtree("out/adapter")
    shutil.copytree("q/adapter", "out/adapter")
    ran = beftkit("evaluate", "--adapter", "out/adapter")
    assert ran.code == 2 and "neither a task" in ran.err
    ran = beftkit("evaluate", "--adapter", "out/adapter", *FILES[2:], "--format", "json")
    assert metrics(ran) == kept("q")
    said = "is not of the run that made this adapter (bias 'v' there, 'q' in the adapter)"
    assert any(said in note for note in notes_of(ran))
    # And leave to run code is not in either.
    held = yaml.safe_load(Path("q/run.yaml").read_text())
    Path("q/run.yaml").write_text(yaml.safe_dump(held | {"trust_remote_code": True}))
    Path("base2").mkdir()
    for path in Path("base").iterdir():
        shutil.copy(path, "base2")
    config = json.loads(Path("base2/config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    Path("base2/config.json").write_text(json.dumps(config))
    Path("base2/own.py").write_text("open('ran', 'w')\n")
    ran = beftkit("evaluate", "base2", "--adapter", "q/adapter")
    refused(ran, "allow it with --trust-remote-code", 500)
    assert not Path("ran").exists()
    Path("q/run.yaml").write_text("lr: [\n")
    ran = beftkit("evaluate", "--adapter", "q/adapter", *FILES[2:], "--format", "json")
    assert metrics(ran) == kept("q") and any("not a YAML file" in n for n in notes_of(ran))
