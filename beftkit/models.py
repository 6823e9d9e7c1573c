"""Models and tokenizers from a folder or the hub; what goes wrong is one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beftkit.checkpoints.reach import cached_commit, hub_or_cache, hub_reason
from beftkit.errors import BeftError

#: what a tokenizer says that knows of no limit is far above this
_NO_LIMIT = 1_000_000
#: what loading raises, beside an error of safetensors
_FAILURES = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError)


@dataclass(frozen=True)
class Loaded:
    """A model for a task, and its tokenizer.

    Attributes:
        model: in evaluation mode, on the CPU unless a device map placed it.
        tokenizer: with a padding token.
        fresh: parameters that the checkpoint did not hold and that were drawn anew.
        reference: what was loaded.
        commit: the hub's commit, where it came from there.
    """

    model: Any
    tokenizer: Any
    fresh: tuple[str, ...]
    reference: str
    commit: str | None = None

    def fit_length(self, wanted: int) -> int:
        """The most tokens a row may have: what is wanted, or what the model can hold."""
        limit = self.tokenizer.model_max_length
        if limit > _NO_LIMIT:
            limit = getattr(self.model.config, "max_position_embeddings", None) or wanted
        return min(wanted, int(limit))


def load_classifier(
    reference: str,
    labels: Sequence[str],
    *,
    revision: str | None = None,
    tokenizer: str | None = None,
    dtype: str = "float32",
    device_map: str | None = None,
    new_head: bool = False,
    seed: int = 0,
) -> Loaded:
    """Load a model with a classification head (regression: no labels, one output).

    Args:
        reference: model folder or ``owner/name``.
        labels: names in the order of their ids; empty for regression.
        revision: branch, tag or commit on the hub.
        tokenizer: another place for the tokenizer.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` as stored.
        device_map: as transformers takes it.
        new_head: draw a head anew where the checkpoint's does not fit.
        seed: of whatever is drawn.

    Raises:
        BeftError: not there, damaged, no head of this kind, or one of another size.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

    _check_reference(reference)
    with quiet(), one_line(reference, "model"):
        config = AutoConfig.from_pretrained(reference, revision=revision)
        commit = cached_commit(reference, revision)
        revision = commit or revision
        _set_labels(config, labels)
        set_seed(seed)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            reference, config=config, revision=revision, output_loading_info=True,
            ignore_mismatched_sizes=True, device_map=device_map,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
        )  # fmt: skip
    away = [name for name, value in model.named_parameters() if value.is_meta]
    if away:
        raise BeftError(
            f"{reference}: does not fit the devices, {away[0]} would be left to the CPU's memory "
            "or the disk; use --dtype bfloat16, or more GPUs"
        )
    misfits = sorted(map(str, (name for name, *_ in info["mismatched_keys"])))
    if misfits and not new_head:
        name, given, expected = next(one for one in info["mismatched_keys"] if one[0] == misfits[0])
        raise BeftError(
            f"{reference}: its head does not fit: {name} is {list(given)}, this task with "
            f"{f'{len(labels)} labels' if labels else 'values'} needs {list(expected)}; "
            "--new-head draws a fresh one"
        )
    maker = load_tokenizer(tokenizer or reference, revision=None if tokenizer else revision)
    if maker.pad_token_id is None:
        maker.pad_token = maker.eos_token
    if maker.pad_token_id is None:
        raise BeftError(f"{reference}: its tokenizer has no padding token and no end token")
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = maker.pad_token_id
    parameters = {name for name, _ in model.named_parameters()}
    fresh = sorted({*info["missing_keys"], *misfits} & parameters)
    return Loaded(model.eval(), maker, tuple(fresh), reference, commit)


def load_tokenizer(reference: str, *, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub repository.

    Raises:
        BeftError: there is none.
    """
    from transformers import AutoTokenizer

    _check_reference(reference)
    with quiet(), one_line(reference, "tokenizer"):
        found: Any = AutoTokenizer.from_pretrained(reference, revision=revision)
    if found is False or len(found) <= len(found.all_special_ids):
        # transformers makes an empty one from the configuration alone
        raise BeftError(
            f"{reference}: no tokenizer there (its vocabulary is empty); copy its files beside the "
            "model, or name one with --tokenizer"
        )
    return found


def _set_labels(config: Any, labels: Sequence[str]) -> None:
    named = list(labels) or ["LABEL_0"]
    config.id2label = dict(enumerate(named))
    config.label2id = {label: number for number, label in enumerate(named)}
    config.problem_type = "single_label_classification" if labels else "regression"


def _check_reference(reference: str) -> None:
    path = Path(reference)
    try:
        there, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        raise BeftError(f"{reference[:80]!r}: not a usable path") from None
    if there and not is_folder:
        raise BeftError(f"{reference}: is a file; expected a model folder with its config.json")
    if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
        raise BeftError(f"{reference}: is an adapter; give its base model, and it as --adapter")
    if not there and (reference.count("/") > 1 or reference.startswith((".", "/", "~"))):
        raise BeftError(f"{reference}: no such folder; expected a model folder, or owner/name")


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own bars and reports while it lasts."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def one_line(reference: str, what: str) -> Iterator[None]:
    """Turn what loading raises into one line."""
    from safetensors import SafetensorError

    try:
        if Path(reference).exists():
            yield
        else:
            with hub_or_cache():
                yield
    except BeftError:
        raise
    except (*_FAILURES, SafetensorError) as error:
        text = " ".join(str(error).split())
        if "Unrecognized configuration class" in text:
            kind = text.partition("class ")[2].partition(" for")[0]
            raise BeftError(
                f"{reference}: no model with a classification head exists for {kind}; expected a "
                "text encoder or decoder"
            ) from None
        if (reason := hub_reason(error, reference)) is not None:
            raise BeftError(reason) from None
        first = text.split(". ")[0][:240]
        raise BeftError(f"{reference}: no {what} could be loaded from there ({first})") from None


def load_skeleton(reference: str, labels: Sequence[str], *, revision: str | None = None) -> Any:
    """The model without its weights, on the meta device: names and shapes, at once.

    Raises:
        BeftError: not there, or no model with a classification head.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    _check_reference(reference)
    with quiet(), one_line(reference, "model"):
        config = AutoConfig.from_pretrained(reference, revision=revision)
        _set_labels(config, labels)
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config)
