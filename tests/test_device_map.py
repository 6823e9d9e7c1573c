"""``--device-map auto``: a model spread by Accelerate, whose hooks move what passes through it.

On CPUs there is nothing to spread, so the hooks are put on by force.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import accelerate
import pytest
import transformers

from tests.command import Beftkit, refused

DATA = ("--validation-file", "dev.jsonl", "--device", "cpu")
RUN = ("train", "base", "--train-file", "train.jsonl", *DATA, "--bias", "q,v", "--epochs", "2",
       "--batch-size", "8", "--lr", "1e-2", "--track-steps", "2")  # fmt: skip
AUTO = ("--device-map", "auto")


@pytest.fixture
def spread(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Where parts go under ``auto``; ``base`` and its data are in the working directory."""
    places = dict.fromkeys(
        ("bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler",
         "dropout", "classifier"), "cpu",
    )  # fmt: skip
    plain = transformers.AutoModelForSequenceClassification.from_pretrained

    def from_pretrained(*given: Any, device_map: str | None = None, **named: Any) -> Any:
        model, info = plain(*given, **named)
        if device_map == "auto":
            accelerate.dispatch_model(
                model, places, main_device="cpu", offload_dir=workplace / "away", force_hooks=True
            )
            assert hasattr(model.bert.encoder.layer[0], "_hf_hook")
        return model, info

    monkeypatch.setattr(
        transformers.AutoModelForSequenceClassification, "from_pretrained", from_pretrained
    )
    return places


def test_a_spread_model_is_trained_and_evaluated_alike(
    spread: dict[str, str], beftkit: Beftkit
) -> None:
    found: list[list[Any]] = []
    for flags, out in (((), "one"), (AUTO, "spread")):
        ran = beftkit(*RUN, *flags, "--format", "json", "-o", out)
        assert ran.code == 0, ran
        run = json.loads(ran.out)["runs"][0]
        ran = beftkit("evaluate", *flags, "--adapter", f"{out}/adapter", *DATA, "--format", "json")
        assert ran.code == 0, ran
        evaluated = json.loads(ran.out)
        assert evaluated["metrics"] == run["last"]["metrics"]
        adapter = Path(out, "adapter", "adapter_model.safetensors").read_bytes()
        found.append([run["last"], run["scores"], evaluated["loss"], adapter])
    assert found[0] == found[1]


def test_a_model_that_does_not_fit_is_refused(spread: dict[str, str], beftkit: Beftkit) -> None:
    """Biases on a disk cannot be trained, and an adapter would be put on nothing."""
    assert beftkit(*RUN, "-o", "one").code == 0
    spread["bert.encoder.layer.1"] = "disk"
    message = "base: does not fit the devices, bert.encoder.layer.1.attention.self.query.weight"
    refused(beftkit(*RUN, *AUTO, "--quiet", "-o", "out"), message)
    assert not Path("out").exists()
    refused(beftkit("evaluate", *AUTO, "--adapter", "one/adapter", *DATA), message[6:])
