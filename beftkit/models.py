"""Models and tokenizers from a folder or the hub; what goes wrong is one line."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from beftkit.checkpoints import check_model_files
from beftkit.checkpoints.reach import cached_commit, cached_folder, hub_or_cache, hub_reason
from beftkit.errors import BeftError

#: what becomes of a checkpoint's head: ``kept``, and must fit; ``fresh``: drawn anew; ``any``:
#: drawn anew where it does not fit, for an adapter that brings another
Head = Literal["kept", "fresh", "any"]
#: what loading raises, beside an error of safetensors
_FAILURES = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError)


@dataclass(frozen=True)
class Loaded:
    """A model for a task, and its tokenizer.

    Attributes:
        model: in evaluation mode, on the CPU unless a device map placed it.
        tokenizer: as it is; with a head, `beftkit.objectives.fits.settle_padding` was at it.
        fresh: parameters that the checkpoint did not hold and that were drawn anew.
        reference: what was loaded.
        commit: the hub's commit, where it came from there.
    """

    model: Any
    tokenizer: Any
    fresh: tuple[str, ...]
    reference: str
    commit: str | None = None


@dataclass(frozen=True)
class Architecture:
    """What kind of model is wanted of a checkpoint.

    Attributes:
        auto: name of transformers' class that loads it.
        configure: sets up its configuration for the task.
        what: what such a model has, for messages.
        expected: which checkpoints can have it, for messages.
        outputs: what its head gives, for messages.
    """

    auto: str
    configure: Callable[[Any], None]
    what: str
    expected: str
    outputs: str


def load_model(
    reference: str,
    architecture: Architecture,
    *,
    revision: str | None = None,
    tokenizer: str | None = None,
    dtype: str = "float32",
    device_map: str | None = None,
    head: Head = "kept",
    seed: int = 0,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load a model and its tokenizer.

    Args:
        reference: model folder or ``owner/name``.
        architecture: what is wanted of it.
        revision: branch, tag or commit on the hub.
        tokenizer: another place for the tokenizer.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` as stored.
        device_map: as transformers takes it.
        head: what becomes of the checkpoint's head.
        seed: of whatever is drawn.
        trust_remote_code: run Python that the model brings.

    Raises:
        BeftError: not there, damaged, no model of this kind, or a head of another size.
    """
    import torch
    import transformers

    _check_reference(reference)
    with quiet(), one_line(reference, "model", architecture):
        config = _config(reference, revision, trust_remote_code)
        commit = cached_commit(reference, revision)
        revision = commit or revision
        architecture.configure(config)
        _seeded(seed)
        model, info = getattr(transformers, architecture.auto).from_pretrained(
            reference,
            config=config,
            revision=revision,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            device_map=device_map,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
        )
        if commit:
            check_model_files(cached_folder(reference, commit) or "")
    away = [name for name, value in model.named_parameters() if value.is_meta]
    if away:
        raise BeftError(
            f"{reference}: does not fit the devices, {away[0]} would be left to the CPU's memory "
            "or the disk; use --dtype=bfloat16, or more GPUs"
        )
    misfits = sorted(map(str, (name for name, *_ in info["mismatched_keys"])))
    if misfits and head == "kept":
        name, given, expected = next(one for one in info["mismatched_keys"] if one[0] == misfits[0])
        raise head_misfit(reference, architecture, name, given, expected)
    maker = load_tokenizer(
        tokenizer or reference,
        revision=None if tokenizer else revision,
        trust_remote_code=trust_remote_code,
    )
    parameters = {name for name, _ in model.named_parameters()}
    fresh = {*info["missing_keys"], *misfits} & parameters
    if head == "fresh":
        fresh |= _drawn_anew(model, [name for name in head_names(model) if name not in fresh], seed)
    return Loaded(model.eval(), maker, tuple(sorted(fresh)), reference, commit)


def head_misfit(
    reference: str,
    architecture: Architecture,
    name: str,
    given: Sequence[int],
    expected: Sequence[int],
) -> BeftError:
    """That a head which is kept has another size than the task needs."""
    return BeftError(
        f"{reference}: its head does not fit: {name} is {list(given)}, this task with "
        f"{architecture.outputs} needs {list(expected)}; --new-head draws a fresh one"
    )


def head_names(model: Any) -> list[str]:
    """Parameters of the classifier: all outside the base model that belong to no pooler.

    A language model's own head is none: it is no part of a task's.
    """
    if model.get_output_embeddings() is not None:
        return []
    prefix = str(getattr(model, "base_model_prefix", ""))
    if not prefix or not hasattr(model, prefix):
        return []
    return [
        name
        for name, _ in model.named_parameters()
        if not name.startswith(f"{prefix}.") and "pooler" not in name.split(".")
    ]


def _drawn_anew(model: Any, names: Sequence[str], seed: int) -> set[str]:
    """Draw these parameters as a new model has them; their names."""
    import torch

    _seeded(seed)
    for name in names:
        model.get_parameter(name)._is_hf_initialized = False
    with torch.no_grad():
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
            model._init_weights(model.get_submodule(owner))
    return {*names}


def _seeded(seed: int) -> None:
    """As transformers' `set_seed`, whose module imports all of PEFT, where that is installed."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # of all devices


def _config(reference: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(
        reference, revision=revision, trust_remote_code=trust_remote_code
    )


def load_config(
    reference: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """The configuration of a model.

    Raises:
        BeftError: not there, or none.
    """
    _check_reference(reference)
    with quiet(), one_line(reference, "model"):
        return _config(reference, revision, trust_remote_code)


def code_of(reference: str, revision: str | None = None) -> tuple[str, ...]:
    """Names of the Python files that a model and its tokenizer bring to be run (``auto_map``)."""
    from transformers import PretrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    said = [PretrainedConfig.get_config_dict(reference, revision=revision)[0]]
    said.append(get_tokenizer_config(reference, revision=revision))
    maps = [one.get("auto_map") for one in said]
    values = [value for one in maps for value in (one.values() if isinstance(one, dict) else [one])]
    classes = [c for value in values for c in (value if isinstance(value, list) else [value]) if c]
    return tuple(sorted({f"{str(name).rpartition('.')[0]}.py" for name in classes}))


def load_tokenizer(
    reference: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """The tokenizer of a folder, an adapter's too, or of ``owner/name[@revision]``.

    Raises:
        BeftError: there is none.
    """
    from transformers import AutoTokenizer

    if not (Path(reference) / "tokenizer_config.json").is_file():  # else an adapter has one, too
        _check_reference(reference)
    if not Path(reference).exists():
        place, _, at = reference.removeprefix("hf://").partition("@")
        reference, revision = place, at or revision
    with quiet(), one_line(reference, "tokenizer"):
        found: Any = AutoTokenizer.from_pretrained(
            reference, revision=revision, trust_remote_code=trust_remote_code
        )
    if found is False or len(found) <= len(found.all_special_ids):
        # transformers makes an empty one from the configuration alone
        raise BeftError(
            f"{reference}: no tokenizer there (its vocabulary is empty); copy its files beside the "
            "model, or name one with --tokenizer"
        )
    return found


def _check_reference(reference: str) -> None:
    path = Path(reference)
    try:
        there, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        raise BeftError(f"{reference[:80]!r}: not a usable path") from None
    if there and not is_folder:
        raise BeftError(f"{reference}: is a file; expected a model folder with its config.json")
    if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
        raise BeftError(
            f"{reference}: is an adapter, and its base model is wanted here; "
            f"`beftkit predict` and `beftkit evaluate` take it"
        )
    if (path / "adapter" / "adapter_config.json").exists() and not (path / "config.json").exists():
        raise BeftError(
            f"{reference}: holds no model but an adapter, {reference}/adapter; expected a model "
            "folder, or owner/name"
        )
    if not there and (reference.count("/") > 1 or reference.startswith((".", "/", "~"))):
        raise BeftError(f"{reference}: no such folder; expected a model folder, or owner/name")
    if there:
        check_model_files(path)


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
def one_line(reference: str, what: str, architecture: Architecture | None = None) -> Iterator[None]:
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
        if architecture is not None and "Unrecognized configuration class" in text:
            kind = text.partition("class ")[2].partition(" for")[0]
            raise BeftError(
                f"{reference}: no model with {architecture.what} exists for {kind}; expected "
                f"{architecture.expected}"
            ) from None
        if "trust_remote_code" in text:
            files = ", ".join(code_of(reference)) or "code"
            raise BeftError(
                f"{reference}: its {what} is of a kind of its own, whose {files} would be run; read"
                " it, then allow it with --trust-remote-code"
            ) from None
        if (reason := hub_reason(error, reference)) is not None:
            raise BeftError(reason) from None
        first = text.split(". ")[0][:240]
        raise BeftError(f"{reference}: no {what} could be loaded from there ({first})") from None


def load_skeleton(
    reference: str,
    architecture: Architecture,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The model without its weights, on the meta device: names and shapes, at once.

    Raises:
        BeftError: not there, or no model of this kind.
    """
    import torch
    import transformers

    _check_reference(reference)
    with quiet(), one_line(reference, "model", architecture):
        config = _config(reference, revision, trust_remote_code)
        architecture.configure(config)
        with torch.device("meta"):
            return getattr(transformers, architecture.auto).from_config(
                config, trust_remote_code=trust_remote_code
            )
