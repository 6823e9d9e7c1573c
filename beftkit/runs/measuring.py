"""`beftkit.fisher`: the empirical Fisher of every bias of a model on labelled examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import make_accelerator
from beftkit.checkpoints import open_checkpoint
from beftkit.errors import BeftError, UsageError
from beftkit.models import Loaded, load_classifier
from beftkit.registry import TASKS
from beftkit.runs.fisher_means import (
    BATCH,
    BATCH_PUBLISHED,
    example_means,
    published_means,
)
from beftkit.scores import FisherFacts, Scores
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.train import checked
from beftkit.tasks import Data, Encoded, encode, load_files, load_task

if TYPE_CHECKING:
    from beftkit.gradients import Losses, Measured

#: for files of the user's own
OWN_LENGTH = 128


def fisher(
    model: Any,
    batches: Iterable[Any] | None = None,
    *,
    losses: Losses | None = None,
    reduce: str = "mean",
    candidates: Sequence[str] | None = None,
    tower: str | None = None,
    allow_inert: bool = False,
    **settings: Any,
) -> Scores:
    """Empirical Fisher of every bias: mean over examples of (d log p(y_i | x_i) / d b)^2.

    At the true labels, per example, in evaluation mode (facts behind the method, section 1). One
    backward pass of the summed losses of a batch gives all its examples' gradients. The model's
    modes, ``requires_grad`` flags and hooks are as before afterwards.

    Args:
        model: a transformers model in memory, on its device; or a model folder or ``owner/name``,
            which is then measured as `fisher_all` does.
        batches: for a model in memory: mappings of tensors ``[rows, ...]`` with ``labels``, such
            as a data loader gives, or `beftkit.tasks.Batch`.
        losses: a function of model and batch that gives -log p of each example, ``[N]``; by
            default what `beftkit.gradients.negative_log_likelihoods` makes of the logits.
        reduce: a bias vector's score is the ``mean`` or the ``sum`` over its coordinates.
        candidates: roles among which the target is chosen; default q, k, v.
        tower: which tower of several; default the text tower.
        allow_inert: let a bias that softmax ignores be the target.
        settings: for a model by reference: fields of `beftkit.settings.fisher.FisherSettings`.
            For one in memory: ``gradient_checkpointing``, ``budget`` (bytes), ``probe``.

    Returns:
        Scores by role, with ``fisher`` and ``norm_pre`` as figures.

    Raises:
        BeftError: no biases, no examples, a loss that is no sum over examples, whatever loading
            can meet.

    Example:
        >>> scores = beftkit.fisher(model, loader)  # doctest: +SKIP
        >>> scores.roles["v"].figures["fisher"]  # doctest: +SKIP
        2.3e-05
    """
    common = {"reduce": reduce, "tower": tower, "allow_inert": allow_inert}
    if isinstance(model, (str, Path)):
        if batches is not None or losses is not None:
            raise UsageError("batches and losses are for a model in memory; give task=...")
        chosen = None if candidates is None else ",".join(candidates)
        return fisher_all(model, candidates=chosen, **common, **settings)[0]
    if batches is None:
        raise UsageError("a model in memory was given without batches; expected an iterable")
    from beftkit.gradients import (
        example_squares,
        fisher_scores,
        negative_log_likelihoods,
        sites_of,
    )

    measured = sites_of(model, tower)
    found = example_squares(
        model, measured.names, batches, losses or negative_log_likelihoods, **settings
    )
    means = {name: total / found.examples for name, total in found.sums.items()}
    return fisher_scores(
        measured, means, reduce=reduce, candidates=candidates, allow_inert=allow_inert,
        settings=FisherFacts("exact", reduce, examples=found.examples, alone=tuple(found.alone)),
        notes=_alone_notes(found.alone),
    )  # fmt: skip


def fisher_all(model: str | Path, **settings: Any) -> list[Scores]:
    """The Fisher scores of a model on a task's training examples, and at snapshots of a run.

    Args:
        model: folder, or ``owner/name`` on the hub.
        settings: fields of `beftkit.settings.fisher.FisherSettings`: ``task`` or ``train_file``,
            ``examples``, ``variant``, ``reduce``, ``head_seeds``, ``snapshots``, ...

    Returns:
        One result for the model, and one for each snapshot.

    Raises:
        BeftError: anything that is wrong with what was given.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    s = checked(FisherSettings, {**given, "model": str(model)})
    return _Journey(s).run()


class _Journey:
    """One call."""

    def __init__(self, settings: FisherSettings) -> None:
        self.s = settings

    def run(self) -> list[Scores]:
        s = self.s
        self.accelerator = make_accelerator(s.device, s.precision)
        self.data = _load_data(s)
        first = self.load(s.head_seeds[0])
        if len(s.head_seeds) > 1 and not first.fresh:
            raise BeftError(
                f"{s.model}: holds a trained classifier, so no seed draws one; leave out "
                "--head-seeds"
            )
        self.encoded = self.encode(first)
        result = [self.over_heads(first)]
        former: dict[str, Any] = {}
        for path in _expand(s.snapshots):
            held = _put_snapshot(first.model, path, former)
            head = set(first.fresh) - held
            notes = [f"{sorted(head)[0]} is not in it: drawn by seed {s.head_seeds[0]}"] if (
                head) else []  # fmt: skip
            result.append(self.scores(first, self.means(first), str(path), notes, {}))
        return result

    def over_heads(self, first: Loaded) -> Scores:
        """The model itself: the mean over its fresh heads."""
        s = self.s
        by_seed: dict[int, Scores] = {}
        sums: dict[str, Any] = {}
        loaded: Loaded = first
        for seed in s.head_seeds:
            loaded = first if seed == s.head_seeds[0] else self.load(seed)
            means = self.means(loaded)
            sums = {name: one + sums.get(name, 0) for name, one in means.items()}
            if len(s.head_seeds) > 1:
                by_seed[seed] = self.scores(loaded, means, s.model, (), {})
        count = len(s.head_seeds)
        notes = []
        if first.fresh:
            seeds = ", ".join(map(str, s.head_seeds))
            more = "" if count > 1 else "; --head-seeds 0,1,2 takes the mean over several"
            notes.append(
                f"{', '.join(first.fresh)} drawn by seed {seeds}: scores depend on it{more}"
            )
        heads = {
            str(seed): {role: one.figures["fisher"] for role, one in found.roles.items()}
            for seed, found in by_seed.items()
        }
        means = {name: one / count for name, one in sums.items()}
        return self.scores(first, means, s.model, notes, heads)

    def scores(
        self, loaded: Loaded, means: Mapping[str, Any], reference: str, notes: Sequence[str],
        by_head: Mapping[str, Mapping[str, float | None]],
    ) -> Scores:  # fmt: skip
        from beftkit.gradients import fisher_scores

        s = self.s
        settings = FisherFacts(
            s.variant, s.reduce, self.data.name, len(self.encoded), self.batch_size, self.length,
            s.dtype, s.precision, head_seeds=tuple(s.head_seeds) if loaded.fresh else None,
            alone=tuple(self.alone), by_head_seed=by_head,
        )  # fmt: skip
        return fisher_scores(
            self.measured(loaded), means, reduce=s.reduce, allow_inert=s.allow_inert,
            candidates=s.candidates.replace(" ", "").split(",") if s.candidates else None,
            reference=reference, settings=settings,
            notes=[*self.data.notes, *self.encoded.notes, *self.cut(), *notes,
                   *_alone_notes(self.alone)],
        )  # fmt: skip

    def measured(self, loaded: Loaded) -> Measured:
        from beftkit.gradients import sites_of

        return sites_of(loaded.model, self.s.tower)

    @property
    def batch_size(self) -> int:
        return self.s.batch_size or (BATCH if self.s.variant == "exact" else BATCH_PUBLISHED)

    def load(self, seed: int) -> Loaded:
        s = self.s
        loaded = load_classifier(
            s.model, self.data.labels, revision=s.revision, tokenizer=s.tokenizer, dtype=s.dtype,
            device_map=s.device_map, new_head=s.new_head, seed=seed,
        )  # fmt: skip
        if s.device_map is None:
            loaded.model.to(self.accelerator.device)
        return loaded

    def encode(self, loaded: Loaded) -> Encoded:
        s = self.s
        train = self.data.train
        if train is None:
            raise BeftError(f"{self.data.name}: no training examples there")
        if s.examples is not None:
            if s.examples > len(train):
                raise BeftError(f"{self.data.name}: has {len(train)} training examples, not "
                                f"{s.examples}; lower --examples")  # fmt: skip
            train = train.take(range(s.examples))
        task = TASKS.get(s.task or "")
        self.length = loaded.fit_length(s.max_length or (task.max_length if task else OWN_LENGTH))
        return encode(train, loaded.tokenizer, max_length=self.length)

    def cut(self) -> list[str]:
        """What was cut."""
        count = self.encoded.truncated
        return [f"{count} of {len(self.encoded)} examples cut to {self.length} tokens "
                "(--max-length)"] if count else []  # fmt: skip

    def means(self, loaded: Loaded) -> dict[str, Any]:
        """Parameter to the mean of its squares; also sets `alone`."""
        s = self.s
        names = self.measured(loaded).names
        if s.variant == "exact":
            means, self.alone = example_means(
                loaded.model, names, self.encoded, self.data.labels, self.accelerator,
                batch_size=self.batch_size, budget=s.buffer_mib << 20,
                gradient_checkpointing=s.gradient_checkpointing,
            )  # fmt: skip
        else:
            self.alone = ()
            means = published_means(loaded.model, names, self.encoded, self.data.labels,
                                    self.accelerator, batch_size=self.batch_size)  # fmt: skip
        return means


def _load_data(settings: FisherSettings) -> Data:
    s = settings
    if s.task:
        return load_task(s.task, data_dir=s.data_dir, revision=s.data_revision)
    columns = s.text_columns
    return load_files(
        s.train_file, None, label_column=s.label_column, labels=() if s.regression else None,
        text_columns=[name.strip() for name in columns.split(",")] if columns else None,
    )  # fmt: skip


def _expand(snapshots: Sequence[str]) -> list[Path]:
    from beftkit.diff.sides import expand_runs

    return [Path(str(one)) for one in expand_runs(snapshots)]


def _put_snapshot(model: Any, path: Path, former: dict[str, Any]) -> set[str]:
    """Put a snapshot's tensors in place of the base's; returns their names.

    Args:
        model: at the base, or at the snapshot before.
        path: of the snapshot.
        former: the base's tensors that the snapshot before replaced; then those of this one.
    """
    import torch

    from beftkit.scores.statistics import decode

    checkpoint = open_checkpoint(path)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, info in checkpoint.tensors.items():
        if name not in parameters or tuple(parameters[name].shape) != tuple(info.shape):
            raise BeftError(
                f"{path}: holds {name} {list(info.shape)}, which this {type(model).__name__} has "
                "not; expected a snapshot of a run on this model (train --save-snapshots)"
            )
    read = checkpoint.read(list(checkpoint.tensors))
    with torch.no_grad():
        while former:  # a snapshot of another run may hold other tensors
            name, value = former.popitem()
            parameters[name].copy_(value)
        for name, raw in read.items():
            info = checkpoint.tensors[name]
            former[name] = parameters[name].clone()
            parameters[name].copy_(torch.from_numpy(decode(raw, info.dtype)).view(info.shape))
    return set(checkpoint.tensors)


def _alone_notes(alone: Sequence[str]) -> list[str]:
    if not alone:
        return []
    more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
    return [
        f"{alone[0]}{more}: measured one example at a time, as one backward pass does not tell "
        "examples apart there"
    ]
