"""What a row gives does not depend on the rows beside it: one a batch is as all in one batch."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import beftkit as api
from beftkit.objectives.fits import READ_PADDING
from tests.tiny_classifiers import FAMILIES, WORDS, write_classifier

ROWS = 24
#: side of the tokenizer, its pad token ("": it has none; the configurations all say 0, ``[PAD]``)
PADDINGS = (("right", "[PAD]"), ("left", "[PAD]"), ("right", "a"), ("left", ""))
#: one of each way to pool and to count positions
SAMPLE = (
    "bert",
    "electra",
    "roberta",
    "gpt2",
    "llama",
    "opt",
    "gpt_neox",
    "bart",
    "convbert",
    "xlnet",
    "fnet",
)
#: what goes through its default tower, and not the one that bears biases
NOT_MEASURED = ("gemma3", "modernvbert", "t5gemma2", "ultravbert", "qwen3_5")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS[5:-1], k=rng.randint(1, 20))) for _ in range(ROWS)]
    lines = [{"text": text, "label": ("neg", "pos")[i % 2]} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def evaluated(model: Path, rows: str, size: int) -> float:
    found = api.evaluate(model, validation_file=rows, device="cpu", batch_size=size)
    return found.evaluation.loss


def measured(model: Path, rows: str, size: int) -> float:
    found = api.fisher_all(model, train_file=rows, device="cpu", batch_size=size)
    return found[0].roles["v"].figures["fisher"] or 0.0


def trained(model: Path, rows: str, size: int) -> float:
    """How far one update goes, of all rows in one batch or one by one."""
    found = api.train(
        model, train_file=rows, device="cpu", batch_size=size, accumulation=ROWS // size,
        epochs=1, bias="v", lr=1e-2,
    )  # fmt: skip
    assert found.runs[0].steps == 1
    return found.runs[0].scores["v"] or 0.0


Way = Callable[[Path, str, int], float]
WAYS: dict[str, Way] = {"evaluate": evaluated, "fisher": measured, "train": trained}


def compare(way: str, model: Path, rows: str, kind: str) -> None:
    one, all_together = (WAYS[way](model, rows, size) for size in (1, ROWS))
    assert one > 0 or kind == "mra", "MRA's attention is zero without its CUDA kernels"
    if way == "train" and kind in READ_PADDING:
        return
    assert one == pytest.approx(all_together, rel=2e-4 if way == "train" else 2e-5), way


@pytest.mark.parametrize("kind", SAMPLE)
def test_evaluation(kind: str, rows: str, tmp_path: Path) -> None:
    for number, (side, pads) in enumerate(PADDINGS):
        model = write_classifier(tmp_path / str(number), kind, side=side, pads=pads)
        compare("evaluate", model, rows, kind)


@pytest.mark.parametrize(
    ("kind", "side", "pads"),
    [("llama", "left", ""), ("gpt2", "left", "a"), ("bert", "left", "[PAD]")],
)
def test_training_and_fisher(kind: str, side: str, pads: str, rows: str, tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "m", kind, side=side, pads=pads)
    compare("fisher", model, rows, kind)
    compare("train", model, rows, kind)


def test_a_model_that_reads_padding_says_so(rows: str, tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "m", "convbert")
    said = api.fisher_all(model, train_file=rows, device="cpu")[0].notes
    assert any("ConvBertForSequenceClassification reads padding" in note for note in said)


@pytest.mark.parametrize("kind", ["gpt2", "bart", "roberta"])
def test_the_models_own_pad_token(kind: str, tmp_path: Path) -> None:
    """What rows are filled up with is what the head looks for; not where positions hang on it."""
    from beftkit.objectives.heads import load_classifier

    for side, pads in PADDINGS:
        folder = write_classifier(tmp_path / f"{side}{pads}", kind, side=side, pads=pads)
        loaded = load_classifier(str(folder), ["neg", "pos"])
        tokenizer, config = loaded.tokenizer, loaded.model.config
        assert tokenizer.padding_side == "right"
        assert tokenizer.pad_token == (pads or "[PAD]"), "the model's, where the tokenizer has none"
        expected = 0 if kind == "roberta" else tokenizer.pad_token_id
        assert config.pad_token_id == expected == config.get_text_config().pad_token_id


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_that_classifies(kind: str, rows: str, tmp_path: Path) -> None:
    """Each through evaluation, Fisher and one step of training."""
    for number, (side, pads) in enumerate(PADDINGS):
        model = write_classifier(tmp_path / str(number), kind, side=side, pads=pads)
        compare("evaluate", model, rows, kind)
    if kind in NOT_MEASURED:
        with pytest.raises(api.BeftError, match="do these examples go through another tower"):
            measured(model, rows, 1)
        return
    compare("fisher", model, rows, kind)
    compare("train", model, rows, kind)


@pytest.mark.slow
def test_no_family_is_left_out() -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    from tests.test_families_doc import statuses

    def recognised(status: str, switches: str) -> bool:
        return status == "recognised" or (status == "bias-free" and ": recognised" in switches)

    wanted = {name for name in CLASSIFIERS if recognised(*statuses().get(name, ("", "")))}
    assert wanted == {*FAMILIES}


@pytest.mark.parametrize("kind", ["big_bird", "bigbird_pegasus"])
def test_sparse_attention_is_made_full(tmp_path: Path, rows: str, kind: str) -> None:
    """BigBird's reads padding where batches are wider than 14 tokens here, and says which it is."""
    sparse = {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1}
    model = write_classifier(tmp_path / kind, kind, **sparse)
    found = [api.evaluate(model, validation_file=rows, device="cpu", batch_size=n) for n in (1, 24)]
    assert found[0].evaluation.loss == pytest.approx(found[1].evaluation.loss, rel=1e-5)
    assert all("attends fully" in " ".join(one.notes) for one in found)
