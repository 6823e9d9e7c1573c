"""An adapter's base: how it is named, and what its modules are called in a task's model."""

from __future__ import annotations

from pathlib import Path

from beftkit.adapters.heads import architecture
from beftkit.biases import plain_name
from beftkit.checkpoints import BiasSet, Checkpoint
from beftkit.checkpoints.hub import parse_reference
from beftkit.errors import UsageError, option
from beftkit.runs.said import hub_id


def prefix_lacking(pre: BiasSet, post: BiasSet, notes: list[str]) -> str:
    """What a task model's names begin with, where the files were saved without it; mostly nothing.

    transformers is asked only where names do not tell.

    Args:
        pre: biases of the base.
        post: biases of the fine-tuned model.
        notes: to which what cannot be told is added.
    """
    name = architecture(post.checkpoint.config) or architecture(pre.checkpoint.config)
    if not name or (name.endswith("Model") and not name.endswith("LMHeadModel")):
        return ""
    if any(not plain_name(one.name).startswith(one.owner) for one in post.sites if one.cut is None):
        return ""  # its own is there
    found = _class_prefix(name)
    if found is None:
        notes.append(
            f"{name}: not a class of transformers, so modules are called as in the files; PEFT "
            "needs the model's own names"
        )
        return ""
    names = post.checkpoint.tensors
    return "" if any(f".{one}".find(f".{found}.") >= 0 for one in names) else found


def _class_prefix(architecture: str) -> str | None:
    """``bert`` of BertForSequenceClassification; None: transformers has no such class."""
    import transformers

    prefix = getattr(getattr(transformers, architecture, None), "base_model_prefix", None)
    return prefix if isinstance(prefix, str) else None


def base_named(checkpoint: Checkpoint, given: str, notes: list[str]) -> tuple[str, str | None]:
    """The base as an adapter names it: a folder by its whole path, a repository and its commit.

    Args:
        checkpoint: the base, opened.
        given: as it was given.
        notes: to which what is lacking there is added.
    """
    path = Path(given)
    if path.exists():
        if path.is_file() and (path.parent / "config.json").is_file():
            path = path.parent
        if not (path / "config.json").is_file():
            notes.append(f"{given}: is no model's folder, so nothing can load the base from there")
        return str(path.resolve()), None
    place = parse_reference(given)
    if place is None:  # opened all the same
        return given, None
    commit = checkpoint.origin().get("commit")
    return place.repo, str(commit) if commit else place.revision


def bare(reference: str) -> str:
    """A model's name without the path of this machine."""
    return reference if is_far(reference) else Path(reference).name


def is_far(reference: str) -> bool:
    """Whether a name is one of a hub's, perhaps with a revision, and nothing here."""
    if hub_id(reference):
        return True
    return not Path(reference).exists() and parse_reference(reference) is not None


def check_revision(model: str | None, revision: str | None) -> None:
    """Refuse a revision of a model that is a folder here, which has none.

    Raises:
        UsageError: so it is.
    """
    if revision is not None and model and Path(model).exists():
        raise UsageError(
            f"{option('revision', revision)}: is of models on the hub, and {model} is here; "
            "leave it out"
        )
