"""Whether packed rows with budgets of tokens beat graphs of several widths, for a decoder in bf16.

    python bench/packed.py [--seconds 60] [--output FOLDER]    on a GPU: times, each row as measured
    python bench/packed.py --tokens [--data FOLDER --tokenizer FOLDER]    tokens alone, anywhere
    python bench/packed.py --dry    all of it on a CPU with a tiny model: whether it works

SmolLM2-135M's geometry, drawn; zero biases added at v and trained, prompts' lengths of SST-2 and,
longer and less even, of BoolQ. *Budgets* are at most twelve, chosen as widths are; *shuffled* are
batches that no length has a say in: widths need like lengths, packed rows do not. Before a packed
way is timed, its captured updates have to agree with padded ones, and to agree far better than a
pack whose examples see each other; else the row ends there. Needs torch, transformers, accelerate
and pydantic; no data.
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from beftkit.tasks import plan  # noqa: E402
from beftkit.tasks.costs import costs_of  # noqa: E402
from beftkit.tasks.widths import Costs, choose_widths  # noqa: E402
from bench.material import PERCENTILES, SEED  # noqa: E402
from bench.packed_runs import EPOCHS, EXAMPLES, WAYS, build, time_way, warm  # noqa: E402
from bench.packing import choose_budgets, planned_totals  # noqa: E402

#: tokens of prompts by SmolLM2's tokenizer, answers left out, at `PERCENTILES` of training examples
LENGTHS = {
    "sst2": (3, 4, 5, 6, 7, 8, 10, 13, 16, 20, 27, 34, 46, 64),
    "boolq": (24, 53, 65, 84, 99, 111, 125, 142, 160, 183, 231, 275, 400, 933),
}
#: of an update: of a prompt's published recipe, and of BERT's
BATCHES = (8, 16)
NO_TIME = "no time"


# --- lengths, and tokens of each way


def drawn_lengths(name: str, count: int) -> Tensor:
    """int64 [N], spread evenly over the percentiles, shuffled."""
    random = np.random.default_rng(SEED)
    even = (np.arange(count) + 0.5) / count * 100
    drawn = np.interp(even, PERCENTILES, LENGTHS[name]).round().astype(np.int64)
    return torch.from_numpy(random.permutation(drawn))


def real_lengths(name: str, count: int, data: Path, tokenizer: Path) -> Tensor:
    """int64 [N] of a low regime's prompts, as the product makes and draws them."""
    from transformers import AutoTokenizer

    from beftkit.objectives.prompts import encode_prompts, without_answers
    from beftkit.tasks import load_task, subsample

    made = AutoTokenizer.from_pretrained(tokenizer)
    made.pad_token = made.pad_token or made.eos_token
    folder = data / ("glue" if name == "sst2" else "superglue")
    split = load_task(name, data_dir=folder, kind="choice").train
    assert split is not None
    split = subsample(split, min(count, len(split)), SEED)
    return without_answers(encode_prompts(split.asked, split.targets, made, 2048)).lengths


def token_rows(name: str, lengths: Tensor, batch: int, costs: Costs) -> Iterator[dict[str, Any]]:
    """Tokens an update of each way over a run, its graphs chosen by a GPU's costs.

    ``share`` is of the real tokens; ``costed s`` what a run's tokens, launches and recordings come
    to by the costs that graphs are chosen by: an estimate, nothing that was timed.
    """
    for order, grouped in (("grouped", True), ("shuffled", False)):
        epochs = (plan(lengths, batch, seed=SEED, epoch=e, grouped=grouped) for e in range(EPOCHS))
        batches = [one for planned in epochs for one in planned]
        own = [int(lengths[one].max()) for one in batches]
        totals = planned_totals(lengths, batch, EPOCHS, SEED, grouped)
        flat = [total for epoch in totals for total in epoch]
        padded = [width * len(one) for width, one in zip(own, batches, strict=True)]
        widths = choose_widths({one: own.count(one) for one in own}, batch, costs)
        found: dict[str, tuple[list[tuple[int, bool]], int]] = {
            "real": ([(one, False) for one in flat], 0),
            "padded": ([(one, False) for one in padded], 0),
            "widths": (
                [(batch * width, there) for width, there in map(widths.of, own)],
                len(widths.chosen),
            ),
        }
        for kind in ("one", "budgets"):
            chosen = choose_budgets(totals, costs, one=kind == "one", everything=False)
            found[kind] = [*map(chosen.of, flat)], len(chosen.chosen)
        for kind, (updates, graphs) in found.items():
            tokens = sum(count for count, _ in updates)
            yield {
                "set": name, "batch": batch, "order": order, "way": kind,
                "tokens": round(tokens / len(flat), 1), "share": round(tokens / sum(flat), 3),
                "graphs": graphs, "largest": max(flat),
                "costed s": None if kind == "real" else round(costed(updates, graphs, costs), 2),
            }  # fmt: skip


def costed(updates: Sequence[tuple[int, bool]], graphs: int, costs: Costs) -> float:
    """Seconds by the costs: tokens and whether replayed of each update, and the recordings."""
    found = graphs * costs.capture + (costs.first if graphs else 0.0)
    for tokens, replayed in updates:
        found += tokens * costs.token if replayed else max(costs.launch, tokens * costs.token)
    return found


# --- the command


def written(rows: list[dict[str, Any]], path: Path, head: str) -> None:
    """CSV and Markdown, anew after each row."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    lines = [head, "", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(_word(row.get(name)) for name in names)} |" for row in rows]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _word(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def timed(rows: list[dict[str, Any]], chosen: argparse.Namespace, path: Path, head: str) -> None:
    """Row by row, as long as there is time for the next."""
    begun, longest = time.perf_counter(), 0.0
    place = ("cpu", True) if chosen.dry else ("cuda", False)
    warm(*place)
    for batch in chosen.batches:
        for name in LENGTHS:
            lengths = drawn_lengths(name, chosen.examples)
            for way in WAYS:
                row: dict[str, Any] = {"set": name, "batch": batch, "way": way.name}
                rows.append(row)
                since = time.perf_counter()
                if since - begun + longest > chosen.seconds:
                    row["failed"] = NO_TIME
                else:
                    try:
                        row |= time_way(way, lengths, batch, *place)
                    except Exception as error:  # whatever it is, the others are worth having
                        row["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
                    longest = max(longest, time.perf_counter() - since)
                print(
                    ", ".join(f"{name} {_word(value)}" for name, value in row.items()), flush=True
                )
                written(rows, path, head)


def main(given: list[str] | None = None) -> int:
    """Print rows, write files; 1 where a row failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dry", action="store_true", help="on a CPU, with a tiny model")
    parser.add_argument("--tokens", action="store_true", help="count tokens alone, time nothing")
    parser.add_argument("--data", type=Path, help="with glue/ and superglue/, for real prompts")
    parser.add_argument("--tokenizer", type=Path, help="a model's folder, for real prompts")
    parser.add_argument("--batches", type=lambda words: [*map(int, words.split(","))],
                        default=[*BATCHES])  # fmt: skip
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results")
    chosen = parser.parse_args(given)
    if bool(chosen.data) != bool(chosen.tokenizer):
        parser.error("--data and --tokenizer go together")
    cuda = torch.cuda.is_available() and not (chosen.dry or chosen.tokens)
    if not (cuda or chosen.dry or chosen.tokens):
        parser.error("times need a GPU; expected --tokens or --dry here")
    card = torch.cuda.get_device_name() if cuda else "cpu-dry" if chosen.dry else "tokens"
    whose = " of real prompts" if chosen.tokens and chosen.data else ""
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / f"packed-{card.lower().replace(' ', '-')}"
    head = f"{card}{whose}; python {platform.python_version()}, torch {torch.__version__}"
    print(head, flush=True)
    rows: list[dict[str, Any]] = []
    if not chosen.tokens:
        timed(rows, chosen, path, head)
        return int(any(row.get("failed", NO_TIME) != NO_TIME for row in rows))
    costs = costs_of(build("meta"), half=True)
    for name in LENGTHS:
        how = name, chosen.examples
        lengths = real_lengths(*how, chosen.data, chosen.tokenizer) if chosen.data else None
        lengths = drawn_lengths(*how) if lengths is None else lengths
        for batch in chosen.batches:
            for row in token_rows(name, lengths, batch, costs):
                print(
                    ", ".join(f"{name} {_word(value)}" for name, value in row.items()), flush=True
                )
                rows.append(row)
    written(rows, path, head)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
