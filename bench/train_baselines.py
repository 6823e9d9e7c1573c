"""The obvious ways to fine-tune b_v, each as short as a script one would write: for comparison.

Every one takes the folder that `bench/train.py` wrote: ``model`` and ``data/SST-2``.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from bench.material import BATCH, SEED

LR, EPS, MAX_LENGTH = 4e-4, 1e-6, 128


class Cost(NamedTuple):
    """Seconds: of the clock, and of all threads together."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Cost:
        """The clocks as they stand."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


class Figures(NamedTuple):
    """What a contestant spent from the first update on, and how well its model does.

    ``epochs``: wall seconds of each, evaluation included; and of each evaluation. ``began``: the
    clock (`time.perf_counter`) at the first update.
    """

    total: Cost
    evaluation: Cost
    accuracy: float | None
    epochs: tuple[tuple[float, float], ...] = ()
    began: float = 0.0


def read(folder: Path, split: str) -> tuple[list[str], list[int]]:
    """Sentences and labels of ``train`` or ``dev``."""
    with (folder / "data" / "SST-2" / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"] for row in rows], [int(row["label"]) for row in rows]


def load(folder: Path) -> tuple[Any, Any]:
    """Model in float32 and tokenizer; a head that has to be drawn is the same for all."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    set_seed(SEED)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "model", dtype=torch.float32
    )
    return model, AutoTokenizer.from_pretrained(folder / "model")


def freeze(model: Any) -> list[torch.nn.Parameter]:
    """Let the value biases, the pooler bias and the classifier train; returns these."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(
            name.endswith(("attention.self.value.bias", "pooler.dense.bias"))
            or name.startswith("classifier.")
        )
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.AdamW:
    """As the paper has it."""
    return torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.999), eps=EPS, weight_decay=0.0)


def recipe(folder: Path) -> Figures:
    """(a) As published: rows of 128 tokens, train and validation set evaluated every epoch."""
    from torch.utils.data import DataLoader, TensorDataset

    model, tokenizer = load(folder)
    sets = {}
    for split in ("train", "dev"):
        sentences, labels = read(folder, split)
        rows = tokenizer(
            sentences, padding="max_length", truncation=True, max_length=MAX_LENGTH,
            return_tensors="pt",
        )  # fmt: skip
        columns = rows["input_ids"], rows["attention_mask"], rows["token_type_ids"]
        sets[split] = TensorDataset(*columns, torch.tensor(labels))
    optimizer = adamw(freeze(model))
    torch.manual_seed(SEED)

    def logits(ids: Any, mask: Any, types: Any) -> Any:
        return model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    def evaluate(split: str) -> float:
        model.eval()
        right = 0
        with torch.no_grad():
            for *inputs, labels in DataLoader(sets[split], BATCH):
                right += int((logits(*inputs).argmax(-1) == labels).sum())
        return right / len(sets[split])

    begin = Cost.now()
    model.train()
    for *inputs, labels in DataLoader(sets["train"], BATCH, shuffle=True):
        loss = functional.cross_entropy(logits(*inputs), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    trained = Cost.now()
    evaluate("train")
    accuracy = evaluate("dev")
    end = Cost.now()
    return Figures(end - begin, end - trained, accuracy)


def trainer(folder: Path, **how: Any) -> Figures:
    """(b) transformers' Trainer, biases alone, rows padded to the longest of their batch."""
    model, tokenizer = load(folder)
    freeze(model)
    return _trainer(model, tokenizer, folder, **how)


def peft_beft(folder: Path, **how: Any) -> Figures:
    """(c) PEFT's BEFT on the value projections, and the classifier."""
    from peft import BeftConfig, TaskType, get_peft_model

    model, tokenizer = load(folder)
    config = BeftConfig(task_type=TaskType.SEQ_CLS, target_modules=["value"])
    return _trainer(get_peft_model(model, config), tokenizer, folder, **how)


def peft_lora(folder: Path, **how: Any) -> Figures:
    """(c) PEFT's LoRA of rank 8 on query and value, and the classifier."""
    from peft import LoraConfig, TaskType, get_peft_model

    model, tokenizer = load(folder)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, target_modules=["query", "value"]
    )
    return _trainer(get_peft_model(model, config), tokenizer, folder, **how)


def _trainer(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    device: str = "cpu",
    epochs: int = 1,
    seconds: float = 1e9,
    **options: Any,
) -> Figures:
    """``seconds``: after so many no further epoch is begun; ``options``: of TrainingArguments."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    sets = {}
    for split in ("train", "dev"):
        sentences, labels = read(folder, split)
        rows = tokenizer(sentences, truncation=True, max_length=MAX_LENGTH)
        columns = {**rows, "labels": labels}
        sets[split] = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    evaluation, found, each = Cost(0, 0), {}, []

    class Timed(Trainer):
        def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
            nonlocal evaluation, since
            before = Cost.now()
            found.update(super().evaluate(*args, **options))
            evaluation += Cost.now() - before
            now = time.perf_counter()
            each.append((now - since, now - before.wall))
            since = now
            return found

    class Cap(TrainerCallback):
        def on_train_begin(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal began, since
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            began = since = time.perf_counter()

        def on_evaluate(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            if time.perf_counter() - begin.wall > seconds:
                control.should_training_stop = True

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), num_train_epochs=epochs, learning_rate=LR,
        per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, adam_epsilon=EPS,
        lr_scheduler_type="constant", eval_strategy="epoch", logging_strategy="epoch",
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=device == "cpu",
        seed=SEED, label_names=["labels"], **options,
    )  # fmt: skip
    job = Timed(
        model, arguments, train_dataset=sets["train"], eval_dataset=sets["dev"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda p: {"accuracy": float((p[0].argmax(-1) == p[1]).mean())},
        callbacks=[Cap()],
    )  # fmt: skip
    begin = Cost.now()
    began = since = begin.wall
    job.train()
    total = Cost.now() - begin
    return Figures(total, evaluation, found["eval_accuracy"], tuple(each), began)


def floor(folder: Path) -> Figures:
    """(d) Forward and backward of our batches, cut out before, and nothing else."""
    model, losses, batches = plain_loop(folder)
    torch.manual_seed(SEED)
    begin = Cost.now()
    for inputs, targets in batches:
        losses(inputs, targets).backward()
        model.zero_grad()
    return Figures(Cost.now() - begin, Cost(0, 0), None)


def plain_loop(folder: Path) -> tuple[Any, Any, list[Any]]:
    """Model in training mode, a function of its mean loss, and the batches that we train on."""
    from beftkit.tasks import encode, load_task, plan

    model, tokenizer = load(folder)
    freeze(model)
    model.train()
    split = load_task("sst2", data_dir=folder / "data").train
    encoded = encode(split, tokenizer, max_length=MAX_LENGTH)
    planned = plan(encoded.lengths, BATCH, seed=SEED, epoch=0)
    batches = [(batch.inputs, batch.targets) for batch in map(encoded.batch, planned)]

    def mean_loss(inputs: dict[str, Any], targets: Any) -> Any:
        return functional.cross_entropy(model(**inputs).logits, targets)

    return model, mean_loss, batches
