"""Write docs/formats.md: what each adapter format holds, and what stock PEFT makes of it.

    .venv/bin/python docs/formats.py [OUTPUT]

For each family a tiny random model is classified with, before and after a simulated training run
(random changes; random biases to begin with, since zeros would hide faults). Every format is
written by beftkit and loaded by PEFT in every way; what is shown is the largest difference of its
logits from those of the trained model itself.
"""

from __future__ import annotations

import copy
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from beftkit.adapters import FORMATS, Tuned, storable, write_adapter
from beftkit.errors import BeftError
from beftkit.weights import apply_adapter, collect_tuned

OUTPUT = Path(__file__).with_suffix(".md")
WAYS = (
    "PeftModel", "AutoPeft", "load_adapter", "Class", "merge_and_unload", "merge_adapter",
    "mixed batch", "beftkit",
)  # fmt: skip
LABELS = 3

_SIZES = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
_GROUPED = {**_SIZES, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
_DEBERTA = {
    **_SIZES, "relative_attention": True, "max_relative_positions": 8, "type_vocab_size": 0,
    "pos_att_type": ["c2p", "p2c"],
}  # fmt: skip
#: family -> model type, sizes
FAMILIES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "BERT": ("bert", _SIZES),
    "RoBERTa": ("roberta", _SIZES),
    "DistilBERT": ("distilbert", {
        "vocab_size": 50, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40,
        "max_position_embeddings": 32}),
    "ELECTRA": ("electra", {**_SIZES, "embedding_size": 16}),
    "ALBERT": ("albert", {**_SIZES, "embedding_size": 16}),
    "MPNet": ("mpnet", _SIZES),
    "DeBERTa": ("deberta", _DEBERTA),
    "DeBERTa-v2": ("deberta-v2", _DEBERTA),
    "OPT": ("opt", {
        "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "ffn_dim": 40, "max_position_embeddings": 32, "word_embed_proj_dim": 24}),
    "GPT-2": ("gpt2", {
        "vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}),
    "GPT-NeoX": ("gpt_neox", _SIZES),
    "BLOOM": ("bloom", {
        "vocab_size": 50, "hidden_size": 24, "n_layer": 2, "n_head": 3, "pad_token_id": 0}),
    "Qwen2": ("qwen2", _GROUPED),
    "Llama": ("llama", {**_GROUPED, "attention_bias": True}),
}  # fmt: skip
_VALUE = re.compile(
    r"(value|value_proj|v_proj|v_lin|attn\.v|c_attn|query_key_value)\.bias|\.v_bias"
)
_HEAD = re.compile(r"(classifier|score)\.")

# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """One family's base on disk and in memory, and the same after training."""

    folder: Path
    base: Any
    model: Any
    tuned: list[Tuned]


def build(family: str) -> Any:
    """A tiny model of the family, equal at every call; every bias and matrix is drawn anew."""
    model_type, options = FAMILIES[family]
    config = AutoConfig.for_model(model_type, **options, num_labels=LABELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(parameter + 0.1 * noise if is_norm else 0.2 * noise)
    return model.eval()


def train(family: str, what: str, folder: Path) -> Trained:
    """Change ``v`` (the value biases) or ``all`` biases, and the head, at random."""
    base = build(family)
    if not (folder / "config.json").exists():
        base.save_pretrained(folder)
    model = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(3)
    before = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.1 * torch.randn(parameter.shape, generator=generator)
            if _HEAD.search(name):
                parameter.add_(noise)
            elif name.endswith("bias") and (what == "all" or _VALUE.search(name)):
                before[name] = parameter.clone()
                # A trainer ends so too: on values that base + change can give.
                reached = storable(parameter.numpy(), (parameter + noise).numpy())
                parameter.copy_(torch.from_numpy(reached))
    return Trained(folder, base, model, collect_tuned(model, before, task_type="SEQ_CLS"))


def logits(model: Any, **more: Any) -> torch.Tensor:
    """Logits ``[B, LABELS]`` for a fixed batch."""
    ids = torch.randint(2, 50, (6, 9), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found: torch.Tensor = model.eval()(
            input_ids=ids, attention_mask=torch.ones_like(ids), **more
        ).logits
    return found


def measure(trained: Trained, adapter: Path, ways: Iterable[str] = WAYS) -> dict[str, float | str]:
    """Way -> largest difference of logits, or the name of what was raised."""
    import peft

    def wrapped() -> Any:
        return peft.PeftModel.from_pretrained(copy.deepcopy(trained.base), adapter)

    def loaded() -> Any:
        model = copy.deepcopy(trained.base)
        model.load_adapter(str(adapter))
        return model

    def merged() -> Any:
        model = wrapped()
        model.merge_adapter()
        return model

    def applied() -> Any:
        model = copy.deepcopy(trained.base)
        apply_adapter(model, adapter)
        return model

    auto, label = peft.AutoPeftModelForSequenceClassification, {"num_labels": LABELS}
    makers: dict[str, Callable[[], Any]] = {
        "PeftModel": wrapped,
        "AutoPeft": lambda: auto.from_pretrained(adapter, **label),
        "load_adapter": loaded,
        "Class": lambda: type(trained.base).from_pretrained(adapter, **label),
        "merge_and_unload": lambda: wrapped().merge_and_unload(),
        "merge_adapter": merged,
        "mixed batch": wrapped,
        "beftkit": applied,
    }
    want = logits(trained.model)
    found: dict[str, float | str] = {}
    for way in ways:
        mixed = {"adapter_names": ["default", "__base__"] * 3} if way == "mixed batch" else {}
        expected = want.clone()
        if mixed:
            expected[1::2] = logits(trained.base)[1::2]
        try:
            got = logits(makers[way](), **mixed)
        except Exception as error:
            found[way] = type(error).__name__
            continue
        most = float((got - expected).abs().max())
        same = torch.equal(got.argmax(-1), expected.argmax(-1)) and most < 1e-3
        found[way] = most if same else "ignored" if mixed else "other logits"
    return found


def row(family: str, format: str, folder: Path) -> dict[str, str]:
    """One row: way -> ``yes 4.8e-07``, ``no: TypeError``, ``no``."""
    # With all biases LayerNorms are saved whole, and then no mixed batch works.
    plan = {"all": [way for way in WAYS if way != "mixed batch"], "v": ["mixed batch", "beftkit"]}
    found: dict[str, float | str] = {}
    for what, ways in plan.items():
        trained = train(family, what, folder / family)
        adapter = folder / f"{family}-{what}-{format}"
        try:
            write_adapter(
                adapter, trained.tuned, format=format, base=str(trained.folder),
                task_type="SEQ_CLS", metadata={},
            )  # fmt: skip
        except BeftError:
            return dict.fromkeys(WAYS, "no")
        found |= measure(trained, adapter, ways if format != "biases" else ["beftkit"])
    return {way: cell(found.get(way)) for way in WAYS}


def cell(value: float | str | None) -> str:
    """What was measured, in a word or two."""
    if value is None:
        return "no"
    if isinstance(value, str):
        return f"no: {value}"
    return f"yes {value:.1e}" if value else "yes 0"


# --- writing -------------------------------------------------------------------------------------


def table(rows: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    """The table, one row for a family and format."""
    lines = [f"| family | format | {' | '.join(WAYS)} |", "|---" * (2 + len(WAYS)) + "|"]
    for (family, format), found in rows.items():
        lines.append(f"| {family} | {format} | {' | '.join(found[way] for way in WAYS)} |")
    return "\n".join(lines) + "\n"


def main(output: Path) -> None:
    """Measure everything and write the page: the text that stands there, with a new table."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)  # models this small lose five sixths of the time to threads
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            (family, format): row(family, format, Path(folder))
            for family in FAMILIES
            for format in FORMATS
        }
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    text, mark, _ = OUTPUT.read_text(encoding="utf-8").partition("<!-- table -->\n")
    made = f"Made by `.venv/bin/python docs/formats.py` with {versions}, on CPU in float32."
    output.write_text(f"{text}{mark}\n{made}\n\n{table(rows)}", encoding="utf-8")
    print(f"{output}: {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
