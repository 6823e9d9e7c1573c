"""Near matches: what somebody meant who gave a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

#: other tools' names of our settings (Trainer, PEFT, their example scripts); of several ours the
#: first that a command has; with ``=`` a value of the setting
OF_OTHERS: Mapping[str, tuple[str, ...]] = {
    "adam_beta1": ("beta1",),
    "adam_beta2": ("beta2",),
    "adam_epsilon": ("eps",),
    "adapter_name_or_path": ("adapter",),
    "bf16": ("precision=bf16",),
    "checkpoint": ("model",),
    "dataset": ("task", "train_file"),
    "dataset_name": ("task",),
    "dev_file": ("validation_file",),
    "early_stopping_patience": ("early_stopping",),
    "eval_file": ("validation_file",),
    "fp16": ("precision=fp16",),
    "gradient_accumulation_steps": ("accumulation",),
    "hub_model_id": ("push_to_hub",),
    "label": ("label_column",),
    "labels": ("label_column",),
    "layers_to_transform": ("layers",),
    "learning_rate": ("lr", "lrs"),
    "load_best_model_at_end": ("keep=best",),
    "logging_steps": ("log_steps",),
    "lr_scheduler_type": ("schedule",),
    "max_eval_samples": ("validation_size",),
    "max_seq_len": ("max_length",),
    "max_seq_length": ("max_length",),
    "max_train_samples": ("train_size",),
    "metric_for_best_model": ("metric",),
    "model_max_length": ("max_length",),
    "model_name": ("model",),
    "model_name_or_path": ("model",),
    "model_revision": ("revision",),
    "no_cuda": ("device=cpu",),
    "num_epochs": ("epochs",),
    "num_train_epochs": ("epochs",),
    "output_dir": ("output",),
    "overwrite_output_dir": ("overwrite",),
    "peft_model": ("adapter",),
    "per_device_eval_batch_size": ("eval_batch_size", "batch_size"),
    "per_device_train_batch_size": ("batch_size",),
    "resume_from_checkpoint": ("resume",),
    "save_dir": ("output",),
    "target_modules": ("bias",),
    "task_name": ("task",),
    "test_file": ("validation_file",),
    "text": ("text_columns",),
    "text_column": ("text_columns",),
    "tf32": ("precision=tf32",),
    "tokenizer_name": ("tokenizer",),
    "torch_dtype": ("dtype",),
    "use_cpu": ("device=cpu",),
    "warmup_ratio": ("warmup",),
    "warmup_steps": ("warmup",),
}
#: of roles
OF_ROLES: Mapping[str, tuple[str, ...]] = {
    "query": ("q",), "key": ("k",), "value": ("v",), "layernorm": ("ln1", "ln2"),
    "intermediate": ("m2",),
}  # fmt: skip


def nearest(
    word: str, known: Iterable[str], synonyms: Mapping[str, tuple[str, ...]] | None = None
) -> str | None:
    """The known name that was probably meant, or None.

    Case, hyphens and underscores do not count. A name or synonym itself wins over a beginning that
    only one name has, and that over a like spelling of either.
    """
    names = {_plain(name): name for name in known}
    plain = _plain(word)
    others = {}
    for other, ours in (synonyms or {}).items():
        here = [one for one in ours if _plain(one.partition("=")[0]) in names]
        others.update({other: here[0]} if here else {})
    all_names = others | names
    if plain in all_names:
        return all_names[plain]
    begun = [name for name in names if len(plain) > 2 and name.startswith(plain)]
    close = begun if len(begun) == 1 else get_close_matches(plain, all_names, 1, 0.7)
    return all_names[close[0]] if close else None


def meant(
    word: str, known: Iterable[str], synonyms: Mapping[str, tuple[str, ...]] | None = None
) -> str:
    """The end of a message about an unknown name: ``; did you mean rte?``, or nothing."""
    found = nearest(word, known, synonyms)
    return f"; did you mean {found}?" if found else ""


def flag_of(meant: str) -> str:
    """``--eval-steps`` of ``eval_steps``, ``--as=choice`` of ``as_=choice``."""
    name, equals, value = meant.partition("=")
    return f"--{name.rstrip('_').replace('_', '-')}{equals}{value}"


def _plain(name: str) -> str:
    return name.casefold().strip().lstrip("-").replace("-", "_")
