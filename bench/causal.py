"""Time prompts to a causal model against the published way: candidates one by one, all logits.

SmolLM2-135M's geometry, drawn, with biases of attention so that there is a b_v to train; words
drawn at the lengths of RTE and CB, one token each. Evaluation: both ways in one process, in turns,
and they have to find the same losses. Training: `beftkit.train` and transformers' Trainer on the
same examples, each in a process of its own. What counts is the ratio of CPU times. See
bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

from bench.score_cli import cpu_name  # noqa: E402
from bench.train_baselines import Cost  # noqa: E402

BATCH, LR, SEED, SHOTS = 8, 1e-3, 0, 8
#: tokens of prompt and answer by SmolLM2's tokenizer, at these percentiles of the validation split
PERCENTILES = (0, 10, 25, 50, 75, 90, 99, 100)
TOKENS = {
    "rte": (30, 48, 55, 69, 94, 153, 216, 282),
    "cb": (41, 60, 76, 94, 122, 166, 278, 282),
}
LABELS = {
    "rte": ("entailment", "not_entailment"),
    "cb": ("entailment", "contradiction", "neutral"),
}
#: what the prompts themselves consist of
OWN = 'Does this mean that " is true ? Yes or No Suppose Can we infer , Maybe'.split()
WORDS = [f"w{number}" for number in range(3000)]
GOALS = {"rte": 2.0, "cb": 3.0, "shots": 5.0}
GOAL_TRAINING = 1.3
QUIET = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


class Size(NamedTuple):
    """Examples of evaluation, of evaluation behind demonstrations; updates of training."""

    examples: int
    shown: int
    updates: int


SIZES = {"quick": Size(8, 4, 2), "default": Size(48, 12, 6), "full": Size(277, 56, 30)}


def write_model(folder: Path) -> None:
    """The geometry of SmolLM2-135M, drawn; every word and punctuation mark is one token."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        tie_word_embeddings=True, attention_bias=True, bos_token_id=None, eos_token_id=0,
        pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words = ["<pad>", "<unk>", "\n", *dict.fromkeys(OWN), *WORDS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    made.decoder = decoders.Fuse()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split(Regex(r"\n|[^\w\s]"), "isolated"),
        ]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


def write_data(folder: Path, size: Size) -> None:
    """Words at the tasks' lengths, as SuperGLUE ships RTE and CB."""
    import numpy as np

    draw = np.random.default_rng(SEED)
    for task, tokens in TOKENS.items():
        place = folder / "data" / task.upper()
        place.mkdir(parents=True)
        for split, count in (("train", max(64, BATCH * size.updates)), ("val", size.examples)):
            even = (np.arange(count) + 0.5) / count * 100
            lengths = draw.permutation(np.interp(even, PERCENTILES, tokens).round().astype(int))
            rows = []
            for number, length in enumerate(lengths):
                words = draw.choice(WORDS, max(length - 16, 12)).tolist()
                rows.append({
                    "premise": " ".join(words[:-9]), "hypothesis": " ".join(words[-9:]),
                    "label": LABELS[task][number % len(LABELS[task])], "idx": number,
                })  # fmt: skip
            lines = "\n".join(map(json.dumps, rows))
            (place / f"{split}.jsonl").write_text(f"{lines}\n", encoding="utf-8")


# --- evaluation


def evaluation(folder: Path, task: str, shots: int, count: int) -> dict[str, Any]:
    """Ours and the published way on the same rows: what each spent, and how far losses differ."""
    from beftkit.runs.prepare import prepare
    from beftkit.settings.evaluate import EvaluateSettings
    from beftkit.training.evaluation import evaluate_model

    settings = EvaluateSettings(
        model=str(folder / "model"), task=task, data_dir=str(folder / "data"), device="cpu",
        validation_size=count, shots=shots, common_shots=bool(shots),
    )  # fmt: skip
    ready = prepare(settings, SEED)
    splits, (encoded,) = ready.validation, ready.validation.values()
    one_by_one(ready.model, encoded, 1)  # whatever happens once
    began = Cost.now()
    found = evaluate_model(
        ready.model, splits, ready.objective, ["accuracy"], ready.accelerator, 64
    )
    ours, began = Cost.now() - began, Cost.now()
    accuracy, loss = one_by_one(ready.model, encoded, len(encoded))
    theirs = Cost.now() - began
    return {
        "ours": ours, "theirs": theirs, "differs": abs(loss - found.loss),
        "same": accuracy == found.metrics["accuracy"], "tokens": int(encoded.lengths.sum()),
        "examples": len(encoded), "rows": len(encoded.row_lengths),
    }  # fmt: skip


def one_by_one(model: Any, encoded: Any, count: int) -> tuple[float, float]:
    """Each candidate of each example by itself, and all its logits: accuracy and mean loss."""
    import torch

    right, losses = 0, 0.0
    model.eval()
    with torch.no_grad():
        for example in range(count):
            scores = []
            for row in range(*encoded.first_row[example : example + 2].tolist()):
                ids = encoded.ids[encoded.starts[row] : encoded.starts[row + 1]].long()
                logs = model(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
                begin = len(ids) - int(encoded.answers[row])
                scores.append(logs[torch.arange(begin - 1, len(ids) - 1), ids[begin:]].mean())
            logits, target = torch.stack(scores), encoded.targets[example]
            right += int(logits.argmax() == target)
            losses -= float(logits.log_softmax(0)[target])
    return right / count, losses / count


# --- training, each in a process of its own


def ours(folder: Path, updates: int) -> Cost:
    """As a user calls it; no evaluation."""
    import beftkit

    class Watch(beftkit.Unwatched):
        begin = Cost.now()

        def started(self, title: str, steps: int, done: int) -> None:
            self.begin = Cost.now()

    watch = Watch()
    beftkit.train(
        str(folder / "model"), task="rte", data_dir=str(folder / "data"), bias="v", lr=LR,
        batch_size=BATCH, epochs=1, max_steps=updates, eval_steps=10**6, validation_size=1,
        train_size=BATCH * updates, device="cpu", seeds=(SEED,), watcher=watch,
    )  # fmt: skip
    return Cost.now() - watch.begin


def trainer(folder: Path, updates: int) -> Cost:
    """Transformers' Trainer on a row for each answer, biases alone: its own loss, of all logits."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    from beftkit.runs.prepare import prepare, training_examples
    from beftkit.settings.train import TrainSettings
    from beftkit.tasks import plan

    settings = TrainSettings(
        model=str(folder / "model"), task="rte", data_dir=str(folder / "data"), batch_size=BATCH,
        train_size=BATCH * updates, device="cpu", seeds=(SEED,),
    )  # fmt: skip
    ready = prepare(settings, SEED)
    tokenizer = ready.loaded.tokenizer
    drawn = training_examples(ready.settings, ready.data, SEED)
    encoded = ready.objective.encode(drawn, tokenizer, ready.length)  # a row for each answer
    rows = []
    for examples in plan(encoded.lengths, BATCH, seed=SEED, epoch=0):
        for example in examples.tolist():
            for row in range(*encoded.first_row[example : example + 2].tolist()):
                ids = encoded.ids[encoded.starts[row] : encoded.starts[row + 1]].tolist()
                count = int(encoded.answers[row])
                rows.append(
                    {"input_ids": ids, "labels": [-100] * (len(ids) - count) + ids[-count:]}
                )
    del ready
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    for name, value in model.named_parameters():
        value.requires_grad_(name.endswith("v_proj.bias"))

    class InOrder(Trainer):
        def _get_train_sampler(self, *given: Any, **named: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), max_steps=updates, learning_rate=LR,
        per_device_train_batch_size=2 * BATCH, lr_scheduler_type="linear", save_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=True, seed=SEED, logging_strategy="no",
    )  # fmt: skip
    job = InOrder(
        model, arguments, train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )  # fmt: skip
    began = Cost.now()
    job.train()
    return Cost.now() - began


CONTESTANTS = {"ours": ours, "trainer": trainer}


def contestant(name: str, folder: Path, updates: int) -> None:
    """Run one and print its figures."""
    spent = CONTESTANTS[name](folder, updates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": spent.wall, "cpu": spent.cpu, "peak": peak}))


def alone(name: str, folder: Path, updates: int) -> Mapping[str, float]:
    """A contestant's figures."""
    command = [sys.executable, __file__, "--contestant", name, "--folder", str(folder)]
    command += ["--updates", str(updates)]
    ran = subprocess.run(
        command, env={**os.environ, **QUIET}, check=True, stdout=subprocess.PIPE, text=True
    )
    found: Mapping[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print Markdown for bench/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="few examples: a minute or two")
    sizes.add_argument("--full", action="store_true", help="as many as RTE has: half an hour")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--updates", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contestant:
        contestant(chosen.contestant, chosen.folder, chosen.updates)
        return
    os.environ.update(QUIET)
    size = SIZES["quick" if chosen.quick else "full" if chosen.full else "default"]
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")
    )
    print(f"    python {' '.join(sys.argv)}\n")
    print(
        f"{date.today()}, {platform.platform()}, {os.cpu_count()} x {cpu_name()}; "
        f"python {platform.python_version()}, {libraries}.\n"
    )
    folder = Path(tempfile.mkdtemp(prefix="beftkit-bench-"))
    try:
        write_model(folder / "model")
        write_data(folder, size)
        print("| evaluation | examples, rows | ours CPU s | one by one CPU s | ratio | goal |")
        print("|---|---|---|---|---|---|")
        cases = {"rte": ("rte", 0, size.examples), "cb": ("cb", 0, size.examples)}
        cases["shots"] = ("rte", SHOTS, size.shown)
        for name, case in cases.items():
            found = evaluation(folder, *case)
            assert found["same"] and found["differs"] < 1e-4, found
            mine, other = found["ours"].cpu, found["theirs"].cpu
            title = f"RTE, {SHOTS} common shots" if case[1] else name.upper()
            print(
                f"| {title} | {found['examples']}, {found['rows']} | {mine:.1f} | {other:.1f} "
                f"| {other / mine:.2f} | {GOALS[name]:g} |",
                flush=True,
            )
        rows = {name: alone(name, folder, size.updates) for name in CONTESTANTS}
        own, other = rows["ours"], rows["trainer"]
        print(f"\n| training, {size.updates} updates | wall s | CPU s | ratio | peak MiB |")
        print("|---|---|---|---|---|")
        for name, row in rows.items():
            title = "`beftkit.train`" if name == "ours" else "Trainer, all logits"
            print(
                f"| {title} | {row['wall']:.1f} | {row['cpu']:.1f} "
                f"| {row['cpu'] / own['cpu']:.2f} | {row['peak']:.0f} |"
            )
        print(
            f"\nGoals: {GOAL_TRAINING}x over Trainer (reached: {other['cpu'] / own['cpu']:.2f}x), "
            f"peak below its {other['peak']:.0f} MiB (reached: {own['peak']:.0f} MiB)."
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
