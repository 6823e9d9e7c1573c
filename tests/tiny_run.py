"""A tiny model on disk and a task it can be trained on, in seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = "good bad nice awful film plot the a was not very and but".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
#: settings of a run that takes a second
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 1e-2}


def write_base(folder: Path, seed: int = 0, **options: Any) -> Path:
    """A random BERT without a head, with its tokenizer; biases are not zero."""
    import torch
    import transformers

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    config = transformers.BertConfig(
        **{
            "vocab_size": len(vocabulary), "hidden_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32,
            **options,
        }
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.BertModel(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(folder)
    return folder


def write_examples(path: Path, count: int, seed: int) -> Path:
    """Sentences of 2 to 9 words whose last word tells the label, as jsonl."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        label = rng.choice(["neg", "pos"])
        words = [*rng.choices(WORDS, k=rng.randint(1, 8)), {"neg": "bad", "pos": "good"}[label]]
        lines.append(json.dumps({"text": " ".join(words), "label": label}) + "\n")
    path.write_text("".join(lines))
    return path


def write_task(folder: Path, train: int = 60, validation: int = 31) -> dict[str, str]:
    """Both files; returns the settings that name them."""
    return {
        "train_file": str(write_examples(folder / "train.jsonl", train, 1)),
        "validation_file": str(write_examples(folder / "dev.jsonl", validation, 2)),
    }


def link(source: Path, folder: Path) -> None:
    """Link to whatever is in another folder."""
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
