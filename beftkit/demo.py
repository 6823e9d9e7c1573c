"""A pre/post pair made here and now: a small BERT, a made-up language, bias-only fine-tuning.

Offline, deterministic, in well under a minute on two cores. The language is synthetic on purpose:
nothing is downloaded, and nobody should read its target as advice for a real task.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.errors import BeftError, UsageError, option
from beftkit.files import headed
from beftkit.runs import manifest
from beftkit.runs.whole import clear_leftovers, folder_beside
from beftkit.settings.topics import LAST_SEED

if TYPE_CHECKING:
    from beftkit.selection import Selection

MARKER = "beftkit-demo.json"
RESULT, DATA = "select.json", ("train.jsonl", "validation.jsonl")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_FUNCTION = ("the", "was", "were", "not", "very", "and", "but", "it", "they")


@dataclass(frozen=True)
class DemoSize:
    """How much of everything; tests take less."""

    layers: int = 4
    hidden: int = 64
    corpus: int = 16000
    pretraining_steps: int = 1200
    train_examples: int = 384
    eval_examples: int = 500
    epochs: int = 16


@dataclass(frozen=True)
class DemoResult:
    """Where the pair lies, what training did to accuracy on unseen sentences, what was selected."""

    pre: Path
    post: Path
    accuracy_before: float
    accuracy_after: float
    majority: float
    train_examples: int
    eval_examples: int
    seconds: float
    selection: Selection


class Language:
    """A small language with moods. "not" turns an adjective round, "and" joins two predicates of
    one mood, after "but" the mood turns and the last one counts; noun, "was" and pronoun agree
    in number. Common words are common: frequencies follow Zipf's law, as in real text.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
        stems = [a + b for a in syllables for b in syllables]
        self.rng.shuffle(stems)
        take = iter(stems)
        self.nouns = [next(take) for _ in range(8)]
        self.adjectives = [[next(take) for _ in range(6)] for _ in range(2)]
        self.verbs = [[next(take) for _ in range(3)] for _ in range(2)]
        self.exclamations = [next(take) for _ in range(2)]

    def words(self) -> list[str]:
        """The vocabulary, special tokens first."""
        plurals = [noun + "s" for noun in self.nouns]
        moody = [word for group in (*self.adjectives, *self.verbs) for word in group]
        return [*_SPECIAL, *_FUNCTION, *self.nouns, *plurals, *moody, *self.exclamations]

    def statement(self, mood: int) -> list[str]:
        """``the X was [not|very] Y [and|but [not|very] Y]``, in mood 0 or 1."""
        several = self.rng.random() < 0.5
        words = ["the", self._choose(self.nouns) + ("s" if several else "")]
        words.append("were" if several else "was")
        chance = self.rng.random()
        if chance < 0.15:
            words += [*self._predicate(mood), "and"]
        elif chance < 0.3:
            words += [*self._predicate(1 - mood), "but"]
        return words + self._predicate(mood)

    def text(self, mood: int) -> list[str]:
        """A statement, an exclamation of its mood before it, and at times a verb of its mood
        behind. Guessing these from the statement is how pretraining comes to know the moods; where
        the verb told always, it would never need "not".
        """
        words = [self.exclamations[mood], *self.statement(mood)]
        if self.rng.random() < 0.3:
            words += ["they" if "were" in words else "it", self._choose(self.verbs[mood])]
        return words

    def _predicate(self, mood: int) -> list[str]:
        if self.rng.random() < 0.35:
            return ["not", self._choose(self.adjectives[1 - mood])]
        very = ["very"] if self.rng.random() < 0.3 else []
        return [*very, self._choose(self.adjectives[mood])]

    def _choose(self, words: list[str]) -> str:
        return self.rng.choices(words, weights=[1 / (i + 1) for i in range(len(words))])[0]


def make_demo_pair(
    output: Path,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    size: DemoSize | None = None,
) -> DemoResult:
    """Pretrain, fine-tune all biases, select one, and write ``output/pre`` and ``output/post``.

    Args:
        output: folder to make; a former demo's is replaced, anything else is refused.
        seed: seed of the language, the model and both trainings.
        progress: called with a line now and then.
        size: how much of everything.

    Returns:
        Where the two ordinary Hugging Face model folders lie, and accuracies.

    Raises:
        BeftError: the folder holds something else, or cannot be written.
        UsageError: no such seed.
    """
    if not 0 <= seed <= LAST_SEED:
        raise UsageError(f"{option('seed', seed)}: expected a whole number from 0 to {LAST_SEED}")
    _former(output)
    size = size or DemoSize()
    import torch
    import transformers
    from safetensors import SafetensorError

    say = progress or (lambda line: None)
    started = time.perf_counter()
    try:
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BeftError(f"{output}: cannot be made ({error.strerror}); give --output") from None
    clear_leftovers(output.absolute())
    with folder_beside(output.absolute()) as beside:
        try:
            (work := beside / "made").mkdir()
            with _calm(seed):
                before, after, majority, found = _train_and_save(work, output, seed, size, say)
            counts = size.train_examples, size.eval_examples
            seconds = round(time.perf_counter() - started, 1)
            both = output / "pre", output / "post"
            result = DemoResult(*both, before, after, majority, *counts, seconds, found)
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            record = {"seed": seed, "size": asdict(size), "versions": versions, "data": "synthetic"}
            record |= {"accuracy_before": before, "accuracy_after": after, "majority": majority}
            (work / MARKER).write_text(json.dumps(headed(record), indent=2) + "\n")
            _move_in(work, output)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BeftError(
                f"{output}: cannot be written ({reason}); give another --output"
            ) from None
    return result


def _move_in(work: Path, output: Path) -> None:
    """Put the new pair in place; what a user keeps beside or in a former one stays."""
    output.mkdir(exist_ok=True)
    former = set(_former(output))
    names = manifest.move_files(work, output)
    manifest.remove(output, former - {output / name for name in names})


def _former(output: Path) -> list[Path]:
    """What a former demo made there.

    Raises:
        BeftError: the folder holds something else, or what a demo made there is nowhere listed.
    """
    if not output.exists():
        return []
    if not output.is_dir():
        raise BeftError(f"{output}: is a file; expected a folder to make, give another --output")
    if not any(output.iterdir()):
        return []
    try:
        seed = json.loads((output / MARKER).read_text(encoding="utf-8"))["seed"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        seed = None
    if not isinstance(seed, int):
        raise BeftError(
            f"{output}: holds something that is not a former demo; give another --output"
        )
    made = manifest.made(output, "a demo")
    for name in ("pre/*", "post/*", RESULT, *DATA):
        for path in manifest.matching(output, name):
            if path not in made:
                raise manifest.unlisted(path)
    return made


@contextmanager
def _calm(seed: int) -> Iterator[None]:
    """Seeded and quiet while it lasts; the caller's generators and settings come back after."""
    import torch
    from transformers.utils import logging

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # faster than two for so small a model, and the same everywhere
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed a GPU as well
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _train_and_save(
    work: Path, output: Path, seed: int, size: DemoSize, say: Callable[[str], None]
) -> tuple[float, float, float, Selection]:
    """The whole run; returns accuracy before and after, that of the commoner label, and the
    selection as if made in ``output``.
    """
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    from beftkit.objectives.heads import load_classifier
    from beftkit.runs import train_with
    from beftkit.runs.results import run_metrics
    from beftkit.selection import select
    from beftkit.settings.train import TrainSettings
    from beftkit.weights import apply_adapter

    language = Language(seed)
    vocabulary = {word: index for index, word in enumerate(language.words())}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=32)  # a file's name goes unread
    texts = [" ".join(language.text(number % 2)) for number in range(size.corpus)]
    shape: dict[str, Any] = {"hidden_size": size.hidden, "num_hidden_layers": size.layers}
    shape |= {"num_attention_heads": 4, "intermediate_size": 2 * size.hidden}
    shape |= {"vocab_size": len(tokenizer), "max_position_embeddings": 32}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**shape, initializer_range=0.1)
    masked = BertForMaskedLM(config)
    say(f"pretraining a {size.layers}-layer BERT on a made-up language, e.g. {texts[1]!r}")
    loss = _pretrain(masked, tokenizer(texts, padding=True, return_tensors="pt"), size)
    say(f"  masked-word loss after {size.pretraining_steps} steps: {loss:.2f}")
    masked.save_pretrained(work / "pre")
    tokenizer.save_pretrained(work / "pre")
    labels = _write_examples(work, language, size)
    settings: dict[str, Any] = {"metric": ("accuracy",), "max_length": 32, "device": "cpu"}
    settings |= {f"{name}_file": str(work / f"{name}.jsonl") for name in ("train", "validation")}
    settings["seeds"] = (seed,)
    start = TrainSettings(model=str(work / "pre"), epochs=0, bias="all", lr=1e-3, **settings)
    before = run_metrics(train_with(start).runs[0], "last")["accuracy"] or 0.0
    say(f"probe: fine-tuning all biases on {size.train_examples} sentences")
    run = work / "run"
    found = select(work / "pre", output=run, epochs=(size.epochs,), lrs=(1e-3,), **settings)
    probe = found.cells[0].runs["probe"]
    loaded = load_classifier(str(work / "pre"), ("bad", "good"), seed=seed)
    apply_adapter(loaded.model, run / probe.folder / "adapter")
    loaded.model.save_pretrained(work / "post")
    tokenizer.save_pretrained(work / "post")
    shutil.rmtree(run)  # its adapter names a folder that is about to be renamed
    found = _moved(found, work, output)
    (work / RESULT).write_text(json.dumps(found.to_dict(), indent=2) + "\n")
    share = sum(labels) / len(labels)
    return before, probe.last["accuracy"] or 0.0, max(share, 1 - share), found


def _moved(found: Selection, work: Path, output: Path) -> Selection:
    """A selection whose files will lie elsewhere."""
    settings = {
        key: value.replace(str(work), str(output)) if isinstance(value, str) else value
        for key, value in found.settings.items()
    }
    return replace(found, model=str(output / "pre"), task="the made-up language", settings=settings)


def _write_examples(work: Path, language: Language, size: DemoSize) -> list[int]:
    """Distinct statements with their moods, as files; the words that give the mood away are left
    out. Returns the moods of the unseen ones.
    """
    found: dict[str, int] = {}
    while len(found) < size.train_examples + size.eval_examples:
        mood = len(found) % 2
        found.setdefault(" ".join(language.statement(mood)), mood)
    rows = [{"text": text, "label": ("bad", "good")[mood]} for text, mood in found.items()]
    parts = {"train": rows[: size.train_examples], "validation": rows[size.train_examples :]}
    for name, part in parts.items():
        lines = "".join(f"{json.dumps(row)}\n" for row in part)
        (work / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return list(found.values())[size.train_examples :]


def _pretrain(model: Any, rows: Any, size: DemoSize) -> float:
    """Masked language modelling, a quarter of the words hidden; returns the last losses' mean."""
    import torch

    steps = size.pretraining_steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 100, (steps - step) / (0.4 * steps))
    )
    ids, mask = rows["input_ids"], rows["attention_mask"]
    lengths = mask.sum(1)
    batches = lengths.argsort(stable=True).split(32)  # equal lengths together: little padding
    losses = []
    model.train()
    for _ in range(steps):
        batch = batches[int(torch.randint(len(batches), ()))]
        length = int(lengths[batch].max())
        words = ids[batch, :length]
        hidden = (torch.rand(words.shape) < 0.25) & (words >= len(_SPECIAL))
        inputs = {"input_ids": words.masked_fill(hidden, _SPECIAL.index("[MASK]"))}
        inputs |= {"attention_mask": mask[batch, :length]}
        loss = model(**inputs, labels=words.masked_fill(~hidden, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(sum(losses[-100:]) / len(losses[-100:]))
