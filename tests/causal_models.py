"""Tiny causal models on disk that know a little, with tokenizers of their families' kinds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from beftkit.models import quiet
from tests.tiny_models import build

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
GOOD, BAD = ("fine", "lovely", "warm"), ("dull", "awful", "cold")
REST = "the a film plot with some very old new song of its own".split()


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Sentences of which one word tells whether they are good, 1, or bad, 0."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        words = draw.choices(REST, k=draw.randint(1, 3))
        words.insert(draw.randint(0, len(words)), draw.choice((BAD, GOOD)[number % 2]))
        made.append((" ".join(words), number % 2))
    return made


def write_sst2(folder: Path, train: int = 96, validation: int = 60) -> Path:
    """Such sentences as GLUE ships SST-2."""
    place = folder / "SST-2"
    place.mkdir(parents=True)
    for name, count, seed in (("train", train, 1), ("dev", validation, 2)):
        lines = [f"{sentence} \t{label}" for sentence, label in sentences(count, seed)]
        (place / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def texts(count: int, seed: int) -> list[str]:
    """Whole prompts with their right answers."""
    answers = " terrible", " great"
    return [f"{sentence} It was{answers[label]}" for sentence, label in sentences(count, seed)]


def byte_level(corpus: Sequence[str], first: str | None = None, size: int = 330) -> Any:
    """A byte-level BPE as GPT-2's; ``first`` stands before each text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(corpus, trainer)
    made.post_processor = starting(first) if first else processors.ByteLevel(trim_offsets=True)
    return made


def starting(first: str, last: str = "") -> Any:
    """What puts a token before each text, and perhaps one behind."""
    from tokenizers import processors

    known = [(one, SPECIAL.index(one)) for one in (first, last) if one]
    return processors.TemplateProcessing(single=f"{first} $A {last}".strip(), special_tokens=known)


def wrapped(made: Any) -> Any:
    """A tokenizer of transformers around one of tokenizers."""
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>",
    )  # fmt: skip


def questions(count: int, seed: int) -> list[str]:
    """Whole prompts of SQuAD's form over `sentences`, with their right answers."""
    answers = "terrible", "great"
    return [
        f"Title: t\nContext: {sentence}\nQuestion: How?\nAnswer: {answers[label]}\n"
        for sentence, label in sentences(count, seed)
    ]


def write_squad(folder: Path, train: int = 48, validation: int = 24) -> Path:
    """The same as SQuAD's files; an answer has a second form."""
    place = folder / "SQuAD"
    place.mkdir(parents=True)
    forms = ("terrible", "bad"), ("great", "The great!")
    for name, count, seed in (("train-v1.1", train, 1), ("dev-v1.1", validation, 2)):
        paragraphs = [
            {
                "context": sentence,
                "qas": [{
                    "question": "How?", "id": f"{number}",
                    "answers": [{"text": one, "answer_start": 0} for one in forms[label]],
                }],
            }
            for number, (sentence, label) in enumerate(sentences(count, seed))
        ]  # fmt: skip
        document = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (place / f"{name}.json").write_text(json.dumps(document))
    return folder


def write_model(
    folder: Path,
    case: str,
    *,
    steps: int = 0,
    learn: Callable[[int, int], list[str]] = texts,
    tokens: Callable[[int, int], list[str]] = texts,
    **options: Any,
) -> Path:
    """A tiny language model of a case of `tests.tiny_models`; its tokenizer puts </s> first.

    Args:
        folder: made.
        case: its id.
        steps: updates on what it learns; afterwards its biases of the values are spoilt by noise,
            so that training them has something to mend.
        learn: so many whole texts of a seed.
        tokens: the same, which its tokenizer is made of.
        options: of the configuration.
    """
    tokenizer = wrapped(byte_level(tokens(200, 5), "</s>"))
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "n_positions": 128}
    model = build(case, **size, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(steps):
        given = tokenizer(learn(32, 100 + step), padding=True, return_tensors="pt")
        labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
        model(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], labels=labels
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    noise = torch.Generator().manual_seed(3)
    for name, value in model.named_parameters():
        if steps and name.endswith(("v_proj.bias", "c_attn.bias")):
            values = value.data[-model.config.hidden_size :]  # of a fused bias the last third
            values += 2 * torch.randn(values.shape, generator=noise)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
