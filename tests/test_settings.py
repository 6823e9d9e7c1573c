"""One definition behind flags, YAML and Python: read, filled in, refused, written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beftkit.errors import BeftError, UsageError
from beftkit.settings.resolve import read_yaml, resolve_select, resolve_train, settings_yaml
from beftkit.settings.train import TrainSettings

GIVEN = {"model": "m", "task": "sst2"}


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: m\ntask: rte\nlr: 1e-3\nseeds: [3, 4]\nbias: q\n")
    found = resolve_train(file, {"bias": "v", "task": None})
    assert (found.task, found.lr, found.seeds, found.bias) == ("rte", 1e-3, (3, 4), "v")


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    found = resolve_train(None, {**GIVEN, "lr": 3e-4, "seeds": "0,1,2", "metric": ["f1"]})
    file = tmp_path / "run.yaml"
    file.write_text(settings_yaml(found))
    assert resolve_train(file, {}) == found
    assert found.seeds == (0, 1, 2) and found.metric == ("f1",)


def test_one_seed_need_not_be_a_list() -> None:
    assert resolve_train(None, {**GIVEN, "seeds": 7}).seeds == (7,)


def test_every_setting_is_described() -> None:
    for name, field in TrainSettings.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict) and field.json_schema_extra["panel"], name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0: expected a number above 0"),
        (
            {"precision": "fp8"},
            "precision='fp8': expected one of fp32, tf32, bf16, fp16",
        ),
        ({"learning_rate": 1.0}, "no setting 'learning_rate'; did you mean lr?"),
        ({"nonsense": 1}, "no setting 'nonsense'; expected some of model, "),
        ({"seeds": "a"}, "seeds='a': expected a whole number"),
        ({"seeds": ""}, "seeds='': expected "),
        ({"train_file": "x.csv"}, "task and train_file were both given"),
        ({"task": None}, "neither task nor train_file"),
        ({"task": None, "train_file": "x.csv", "regime": "low"}, "regime: is for tasks"),
        ({"regime": "low", "train_size": 5}, "regime and train_size were both given"),
        ({"model": ""}, "no model was given"),
        ({"bias": ["q", "v"]}, "bias='q,v': expected a text, several .* with commas; given a list"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_train(None, {**GIVEN, **given})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "expected settings such as"),
        ("lr: [1\n", "not a YAML file"),
        ("1: 2\n", "expected settings such as"),
        ("\x00", "not a YAML file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(BeftError, match=message):
        read_yaml(file)
    with pytest.raises(BeftError, match="No such file"):
        read_yaml(tmp_path / "absent.yaml")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'made'}]\n")
    with pytest.raises(BeftError, match="not a YAML file"):
        read_yaml(file)
    assert not (tmp_path / "made").exists()


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)
MERGES = "\n".join(
    ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]
)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (f"model: {'[' * 5000}{']' * 5000}", "nested more than 20 deep"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "nested more than 20 deep"),
        ("\n".join(f"{'  ' * i}a:" for i in range(2000)), "nested more than 20 deep"),
        ("- " * 3000, "nested more than 20 deep"),
        (BOMB, "holds more than 10000 values, its aliases written out"),
        (MERGES, "holds more than 10000 values, its aliases written out"),
        ("a: &a [*a]", "the alias .a stands within what it stands for"),
        ("a: *b", "the alias .b stands within"),
        ("a: 2026-99-99", "not a YAML file"),
        (f"a: {'1' * 5000}", "not a YAML file"),
        ("a: !!python/object/apply:os.system [ls]", "not a YAML file"),
        ("a: [1", "not a YAML file"),
    ],
)
def test_a_yaml_file_without_measure_is_one_line(tmp_path: Path, text: str, match: str) -> None:
    """It ended in a traceback, or in a message as long as what the aliases stand for."""
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(BeftError, match=match) as refused:
        read_yaml(file)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_aliases_in_measure_are_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("metric: &m [f1]\nseeds: [1, 2]\nagain: *m\n")
    assert read_yaml(file) == {"metric": ["f1"], "seeds": [1, 2], "again": ["f1"]}


def test_a_selections_document_begins_with_its_grid_and_ends_with_its_model() -> None:
    values = resolve_select(None, {"model": "m", "task": "rte", "device": "cpu"}).document()
    names = list(values)
    assert names[0] == "regimes" and names[-2:] == ["device", "model"]


def test_metrics_are_parted_at_commas_and_paths_are_not() -> None:
    """One by one as the command hands them over, or as one text."""
    for given in (["f1,accuracy"], "f1,accuracy", ["f1", "accuracy"], ["f1, accuracy"]):
        assert resolve_train(None, {**GIVEN, "metric": given}).metric == ("f1", "accuracy")
    assert resolve_train(None, {**GIVEN, "metric": ["a,b.py"]}).metric == ("a,b.py",)
