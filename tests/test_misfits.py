"""Tokenizers, texts and models that do not fit each other: one line, or what fits is taken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import beftkit as api
from beftkit.errors import BeftError
from tests.fisher_cases import judged
from tests.tiny_classifiers import write_classifier
from tests.tiny_models import SEQ2SEQ


def write_rows(path: Path, texts: Sequence[str], other: Sequence[str] = ()) -> str:
    lines = [{"text": text, "label": ("neg", "pos")[i % 2]} for i, text in enumerate(texts)]
    if other:
        lines = [
            {"text1": line["text"], "text2": two, "label": line["label"]}
            for line, two in zip(lines, other, strict=True)
        ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("kind", "options", "limit", "held"),
    [
        ("bert", {}, 512, 64),  # the tokenizer says more than the model has
        ("bert", {}, 16, 16),  # and less
        ("roberta", {}, None, 63),  # positions begin behind the pad token's, 0
        ("roberta", {"pad_token_id": 1}, None, 62),
        ("xlm-roberta", {"pad_token_id": 1}, 512, 62),
        ("esm", {"pad_token_id": 1}, None, 62),
        ("llama", {}, None, 64),
        ("opt", {}, None, 64),
        ("bart", {}, None, 64),
    ],
)
def test_rows_as_long_as_the_model_holds(
    kind: str, options: dict[str, Any], limit: int | None, held: int, tmp_path: Path
) -> None:
    model = write_classifier(tmp_path / "m", kind, **options)
    if limit is not None:
        change(model / "tokenizer_config.json", model_max_length=limit)
    rows = write_rows(tmp_path / "d.jsonl", ["good " * 100, "bad film"] * 2)
    found = api.fisher_all(model, train_file=rows, device="cpu")[0]
    assert found.settings is not None
    assert found.settings.max_length == held
    api.evaluate(model, validation_file=rows, device="cpu")


def fails(model: Path, rows: str, message: str) -> None:
    """In each command, before anything is computed."""
    for call in (
        lambda: api.evaluate(model, validation_file=rows, device="cpu"),
        lambda: api.fisher_all(model, train_file=rows, device="cpu"),
        lambda: api.train(model, train_file=rows, device="cpu", epochs=1, bias="none"),
    ):
        with pytest.raises(BeftError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_tokens_beyond_the_table(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "d.jsonl", ["good the film", "bad a film"])
    says = "the tokenizer has 13 tokens, the model 12; give the tokenizer"
    fails(write_classifier(tmp_path / "m", "bert", vocab_size=12), rows, f"token 'a' is .* {says}")
    short = write_rows(tmp_path / "e.jsonl", ["good film", "bad film"])
    assert api.evaluate(tmp_path / "m", validation_file=short, device="cpu").evaluation.loss > 0
    model = write_classifier(tmp_path / "n", "gpt2", pads="a", vocab_size=12)
    fails(model, short, f"token 'a' is number 12: {says}")  # what rows would be filled up with


def test_token_types_beyond_the_table(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "d.jsonl", ["good", "bad"], ["film", "the film"])
    for kind in ("bert", "roberta"):
        model = write_classifier(tmp_path / kind, kind, type_vocab_size=1)
        path = model / "tokenizer.json"
        made = json.loads(path.read_text())
        second = False
        for piece in made["post_processor"]["pair"]:
            (inner,) = piece.values()
            second |= inner["id"] == "B"
            inner["type_id"] = int(second)
        path.write_text(json.dumps(made))
        names = ["input_ids", "token_type_ids", "attention_mask"]
        change(model / "tokenizer_config.json", model_input_names=names)
        fails(model, rows, "the tokenizer has 2 token types, the model 1; give the tokenizer")


def test_a_second_end_token(tmp_path: Path) -> None:
    """Heads of encoder-decoders read the last one, and want as many in every row."""
    model = write_classifier(tmp_path / "m", "bart")
    texts = ["good film", "bad film", "good [END] film", "bad"]
    rows = write_rows(tmp_path / "d.jsonl", texts)
    kind = "BartForSequenceClassification"
    fails(model, rows, rf"example 3 of 4 has 2 end tokens \('\[END\]'\), expected 1, where {kind}")
    pairs = write_rows(tmp_path / "p.jsonl", ["good", "bad"], ["film", "the film"])
    assert api.evaluate(model, validation_file=pairs, device="cpu").evaluation.loss > 0
    change(model / "config.json", eos_token_id=3)
    good = write_rows(tmp_path / "e.jsonl", ["good", "bad"])
    fails(model, good, r"example 1 of 2 has 0 end tokens .* or give a tokenizer that adds one")


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_a_decoder_without_its_start_token(tmp_path: Path, kind: str) -> None:
    model = write_classifier(tmp_path / "m", kind)
    rows = write_rows(tmp_path / "d.jsonl", ["good film [END]", "bad film [END]"])
    change(model / "config.json", decoder_start_token_id=None)
    with pytest.raises(BeftError, match=r"names no decoder_start_token_id, which .* add it to"):
        api.evaluate(model, validation_file=rows, device="cpu")


def test_a_convolution_counts_channels_before_tokens() -> None:
    """SqueezeBERT's projections; the judge is autograd on one example at a time."""
    import torch
    import transformers

    from tests.fisher_cases import classified
    from tests.tiny_classifiers import FAMILIES, small_config

    config = small_config("squeezebert", FAMILIES["squeezebert"])
    config.num_labels = 3
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config).double().eval()
    assert judged(model, classified(model)) < 1e-6
    wide = classified(model, lengths=((24, 24), (24, 9)))  # as many tokens as channels
    assert judged(model, wide) < 1e-6


DECODERS = {
    "LED": {"attention_window": 4, "max_encoder_position_embeddings": 32,
            "max_decoder_position_embeddings": 32},
    "M2M100": {},
    "Blenderbot": {},
    "BlenderbotSmall": {},
    "NllbMoe": {"num_experts": 4, "expert_capacity": 64},
    "Pegasus": {},
}  # fmt: skip


@pytest.mark.parametrize("family", DECODERS)
def test_decoder_inputs_are_made_of_the_labels(family: str) -> None:
    """Equal to those that a batch brings itself: a start token, then the labels but the last."""
    import torch
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**SEQ2SEQ, **DECODERS[family]})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    ids, labels = torch.randint(3, 50, (4, 8)), torch.randint(3, 50, (4, 5))
    labels[0, 3:] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    made = torch.cat([torch.full((4, 1), 2), labels[:, :-1]], 1).masked_fill(labels == -100, 1)
    made[0] = torch.tensor([2, *labels[0, :3].tolist(), 1])
    given = {**batch, "decoder_input_ids": made}
    found, expected = (api.fisher(model, [one]) for one in (batch, given))
    for role, one in expected.roles.items():
        assert found.roles[role].figures["fisher"] == pytest.approx(one.figures["fisher"])
    assert max(one.figures["fisher"] or 0 for one in found.roles.values()) > 0


def test_no_start_token_is_named() -> None:
    import torch
    import transformers

    part = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=32,
    )  # fmt: skip
    both = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(part, part)
    ids = torch.randint(3, 50, (2, 4))
    with pytest.raises(BeftError, match="cannot be made from the labels"):
        api.fisher(transformers.EncoderDecoderModel(both), [{"input_ids": ids, "labels": ids}])
