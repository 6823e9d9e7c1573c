"""Every JSON of ours says what its form is and who wrote it; files of before are still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from beftkit import __version__
from beftkit.errors import BeftError
from beftkit.files import SCHEMA, check_schema, headed, read_headed
from beftkit.runs import folders
from beftkit.runs.results import TrainResult
from beftkit.selection.results import CellResult
from tests import version_one
from tests.command import Beftkit, refused

#: files beside ours whose form is that of other projects
FOREIGN = {"config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json"}
RUN = [
    *("base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl"),
    *("--epochs", "1", "--device", "cpu"),
]


def has_head(values: Any) -> bool:
    return [*values.items()][:2] == [("schema_version", 2), ("beftkit_version", __version__)]


def written(folder: Path) -> dict[str, Any]:
    paths = [path for path in folder.rglob("*.json") if path.name not in FOREIGN]
    return {str(path.relative_to(folder)): json.loads(path.read_text("utf-8")) for path in paths}


@pytest.mark.slow
def test_all_that_is_printed_and_written(
    workplace: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*arguments: str) -> dict[str, Any]:
        ran = beftkit(*arguments, "--format", "json")
        assert ran.code == 0, ran
        found: dict[str, Any] = json.loads(ran.out)
        assert has_head(found), arguments
        return found

    printed("train", *RUN, "--dry-run")
    printed("train", *RUN, "-o", "run")
    assert has_head(printed("select", *RUN, "-o", "selected"))
    identity = printed("score", "run/adapter")["pre"]
    assert "bias_sha256" in identity and "sha256" not in identity
    assert "bias_sha256" in printed("inspect", "base")["checkpoint"]
    printed("evaluate", "--adapter", "run/adapter", *RUN[3:5], "--device", "cpu")
    printed("fisher", *RUN[:3], "--examples", "8", "--device", "cpu")
    assert beftkit("report", "selected", "-o", "page.html").code == 0
    made = written(workplace)
    assert {"run/all_results.json", "run/trainer_state.json", "selected/select.json"} < {*made}
    assert (
        any(name.endswith("cell.json") for name in made)
        and "page.html_files/page-data.json" in made
    )
    assert [name for name, values in made.items() if not has_head(values)] == []

    # What was finished under version 1 is taken up, not repeated.
    for name in made:
        path = workplace / name
        path.write_text(version_one.stripped(path.read_text("utf-8")), encoding="utf-8")

    def repeated(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("beftkit.training.trainer.Trainer.run", repeated)
    again = printed("train", *RUN, "-o", "run", "--resume")
    assert again["runs"] == made["run/all_results.json"]["runs"]
    again = printed("select", *RUN, "-o", "selected", "--resume")
    assert again["groups"] == made["selected/select.json"]["groups"]


def test_version_one_comes_back(tmp_path: Path, beftkit: Beftkit) -> None:
    (tmp_path / folders.RESULTS).write_text(json.dumps(version_one.RESULTS), encoding="utf-8")
    found = folders.finished(tmp_path)
    assert found is not None and found.runs[0].best is not None
    assert found.runs[0].best.metrics == {"accuracy": 0.75}
    assert found.to_dict()["runs"] == TrainResult.from_dict(found.to_dict()).to_dict()["runs"]
    cell = CellResult.from_dict(version_one.CELL)
    assert cell.methods["projection"].roles["q"].layers == (0.25, 0.125)
    selected = tmp_path / "selected"
    selected.mkdir()
    (selected / "select.json").write_text(json.dumps(version_one.SELECT), encoding="utf-8")
    settings = yaml.safe_dump(version_one.SELECT["settings"])
    (selected / "select.yaml").write_text(settings, encoding="utf-8")
    ran = beftkit("report", selected, "-o", tmp_path / "page.md")
    assert ran.code == 0, ran
    data = json.loads((tmp_path / "page.md_files" / "page-data.json").read_text("utf-8"))
    assert has_head(data) and data["folders"][0]["schema_version"] == 2
    assert data["folders"][0]["beftkit_version"] == "0.0.9", "who found it"
    assert data["folders"][0]["groups"][0]["gap"] == 0.25


@pytest.mark.parametrize("schema", [3, 0, "2", 1.0, None, True, [1]])
def test_another_form_is_refused_in_one_line(
    tmp_path: Path, beftkit: Beftkit, schema: object
) -> None:
    newer = {"schema_version": schema, "beftkit_version": "9.1"}
    (tmp_path / "select.json").write_text(json.dumps({**version_one.SELECT, **newer}), "utf-8")
    message = f"select.json: schema version {schema!r}, written by beftkit 9.1; this beftkit reads"
    refused(beftkit("report", tmp_path, "-o", tmp_path / "page.md"), message, limit=400)
    (tmp_path / folders.RESULTS).write_text(json.dumps({**version_one.RESULTS, **newer}), "utf-8")
    with pytest.raises(BeftError, match=r"all_results.json: schema version .* reads up to 2"):
        folders.finished(tmp_path)
    with pytest.raises(BeftError, match="reads up to"):
        read_headed(tmp_path / folders.RESULTS)


def test_the_head_is_in_one_place() -> None:
    assert headed({"a": 1}) == {"schema_version": SCHEMA, "beftkit_version": __version__, "a": 1}
    for known in (1, 2):
        check_schema(Path("x.json"), {"schema_version": known})
    check_schema(Path("x.json"), {})
    package = Path(__file__).parents[1] / "beftkit"
    naming = [p for p in package.rglob("*.py") if '"schema_version"' in p.read_text("utf-8")]
    assert naming == [package / "files.py"]
