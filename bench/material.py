"""What training and Fisher are timed on: BERT-base, drawn, and texts of SST-2's lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BATCH, SEED = 16, 0
#: tokens of SST-2's sentences, [CLS] and [SEP] included, at these percentiles of train and dev
PERCENTILES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
TOKENS = {
    "train": (3, 4, 4, 6, 7, 8, 10, 13, 16, 20, 27, 33, 44, 66),
    "dev": (4, 10, 12, 16, 19, 21, 24, 27, 30, 34, 40, 44, 51, 55),
}
WORDS = [f"w{number}" for number in range(5000)]


def sst2(data: Path | None, split: str, count: int) -> list[tuple[str, str]]:
    """Sentences and labels: SST-2's own, or words drawn at its lengths."""
    import numpy as np

    random = np.random.default_rng(["train", "dev"].index(split))
    if data is not None:
        path = data / "data" / "glue" / "SST-2" / f"{split}.tsv"
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        rows = [line.split("\t") for line in lines]
        return [(rows[i][0], rows[i][1]) for i in random.permutation(len(rows))[:count]]
    # Evenly spaced, then shuffled: a small draw has the lengths of the whole, too.
    even = (np.arange(count) + 0.5) / count * 100
    lengths = random.permutation(np.interp(even, PERCENTILES, TOKENS[split]).round().astype(int))
    words = (random.integers(len(WORDS), size=length - 2) for length in lengths)
    return [(" ".join(WORDS[i] for i in row), str(random.integers(2))) for row in words]


def write_model(folder: Path, tokenizer: Path | None = None, *, config: Any = None) -> None:
    """BERT-base, drawn; its tokenizer is bert-base-uncased's, where there is one, or word by word.

    Args:
        tokenizer: a folder that has one with BERT's vocabulary.
        config: another geometry than BERT-base's.
    """
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    BertForSequenceClassification(config or BertConfig()).save_pretrained(folder)
    if tokenizer is not None:
        maker = AutoTokenizer.from_pretrained(tokenizer)
    else:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        maker = BertTokenizer(vocab={word: i for i, word in enumerate([*special, *WORDS])})
    maker.save_pretrained(folder)


def write_data(folder: Path, data: Path | None, train: int, dev: int) -> None:
    """Write so many sentences of SST-2 in GLUE's own layout."""
    (folder / "data" / "SST-2").mkdir(parents=True)
    for split, count in (("train", train), ("dev", dev)):
        rows = ["sentence\tlabel", *map("\t".join, sst2(data, split, count))]
        path = folder / "data" / "SST-2" / f"{split}.tsv"
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_batches(folder: Path, examples: int, vocabulary: int) -> None:
    """Random tokens at SST-2's lengths, batches of like lengths as `beftkit fisher` makes them."""
    import numpy as np
    import torch

    from beftkit.tasks import plan_evaluation

    random = np.random.default_rng(SEED)
    even = (np.arange(examples) + 0.5) / examples * 100
    lengths = random.permutation(np.interp(even, PERCENTILES, TOKENS["train"]).round().astype(int))
    batches = []
    for plan in plan_evaluation(torch.from_numpy(lengths), BATCH):
        sizes = torch.from_numpy(lengths)[plan]
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        ids = torch.from_numpy(random.integers(1000, vocabulary, mask.shape))
        batches.append(
            {
                "input_ids": torch.where(mask, ids, 0),
                "attention_mask": mask.long(),
                "labels": torch.from_numpy(random.integers(0, 2, len(plan))),
            }
        )
    torch.save(batches, folder / "batches.pt")
