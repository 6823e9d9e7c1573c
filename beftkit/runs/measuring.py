"""`beftkit.fisher`: the empirical Fisher of every bias of a model on labelled examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.accelerator import make_accelerator
from beftkit.checkpoints import open_checkpoint
from beftkit.diff.compare import settle_candidates
from beftkit.errors import BeftError, UsageError
from beftkit.progress import displayed
from beftkit.runs.loading import load_data
from beftkit.runs.prepare import Prepared, prepare
from beftkit.scores import FisherFacts, Scores
from beftkit.settings.fisher import FisherSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.signatures import documented
from beftkit.tuning import add, adding, stored_name
from beftkit.watching import Unwatched, Watcher, told

if TYPE_CHECKING:
    from beftkit.gradients import Losses


@documented(FisherSettings)
def fisher(
    model: Any,
    batches: Iterable[Any] | None = None,
    *,
    losses: Losses | None = None,
    reduce: str = "mean",
    candidates: Sequence[str] | None = None,
    tower: str | None = None,
    allow_inert: bool = False,
    add_bias: str | None = None,
    watcher: Watcher | None = None,
    progress: bool = False,
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
        add_bias: roles that get a bias of zeros while this lasts (``v``, ``q,v``), where the model
            has none: the gradient is there before the bias is.
        watcher: told how it goes, batch by batch (`beftkit.Watcher`).
        progress: show that on stderr instead.
        settings: for a model by reference: fields of `beftkit.settings.fisher.FisherSettings`.
            For one in memory: ``gradient_checkpointing``, ``budget`` (bytes), ``probe``,
            ``graphs``.

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
    if isinstance(model, (str, Path)):
        if batches is not None or losses is not None:
            raise UsageError("batches and losses are for a model in memory; give task=...")
        chosen = None if candidates is None else ",".join(candidates)
        common: dict[str, Any] = {"reduce": reduce, "tower": tower, "allow_inert": allow_inert}
        common["add_bias"] = add_bias
        common |= {"watcher": watcher, "progress": progress}
        return fisher_all(model, candidates=chosen, **common, **settings)[0]
    if batches is None:
        raise UsageError("a model in memory was given without batches; expected an iterable")
    from beftkit.gradients import example_squares, fisher_scores, negative_log_likelihoods, sites_of

    with displayed(progress, watcher) as looking, adding(model, add_bias):
        measured = sites_of(model, tower)
        looking.started("Fisher", len(batches) if isinstance(batches, Sized) else 0, 0)
        given = told(looking, batches), losses or negative_log_likelihoods
        found = example_squares(model, measured.names, *given, note=looking.note, **settings)
    means = {name: total / found.examples for name, total in found.sums.items()}
    facts = FisherFacts("exact", reduce, examples=found.examples, alone=tuple(found.alone))
    wanted: dict[str, Any] = {"candidates": candidates, "allow_inert": allow_inert}
    notes = _alone_notes(found.alone)
    return fisher_scores(measured, means, reduce=reduce, settings=facts, notes=notes, **wanted)


@documented(FisherSettings)
def fisher_all(
    model: str | Path, *, watcher: Watcher | None = None, progress: bool = False, **settings: Any
) -> list[Scores]:
    """The Fisher scores of a model on a task's training examples, and at snapshots of a run.

    Args:
        model: folder, or ``owner/name`` on the hub.
        watcher, progress: as for `fisher`.
        settings: fields of `beftkit.settings.FisherSettings`: ``task`` or ``train_file``,
            ``train_size``, ``variant``, ``reduce``, ``head_seeds``, ``snapshots``, ...

    Returns:
        One result for the model, and one for each snapshot.

    Raises:
        BeftError: anything that is wrong with what was given.
    """
    wanted = resolve(FisherSettings, None, {**settings, "model": model})
    with displayed(progress, watcher) as looking:
        return fisher_with(wanted, looking)


def fisher_with(settings: FisherSettings, watcher: Watcher | None = None) -> list[Scores]:
    """`fisher_all` (see there) under settings that are resolved."""
    return _Journey(settings, watcher or Unwatched()).run()


class _Journey:
    """One call."""

    def __init__(self, settings: FisherSettings, watcher: Watcher) -> None:
        self.s, self.watcher = settings, watcher
        self.passed = 0
        self.alone: tuple[str, ...] = ()

    def run(self) -> list[Scores]:
        from beftkit.gradients import sites_of

        s = self.s
        self.accelerator = make_accelerator(s.device, s.precision)
        self.data = load_data(s)
        self.first = first = self.prepared(s.head_seeds[0])
        if len(s.head_seeds) > 1 and not first.loaded.fresh:
            raise BeftError(
                f"{s.model}: holds a trained classifier, so no seed draws one; leave out "
                "--head-seeds"
            )
        snapshots = _expand(s.snapshots)
        for path in snapshots:  # what is not there is refused before the work, as below
            open_checkpoint(path)
        self.passes = len(s.head_seeds) + len(snapshots)
        if s.candidate_roles is not None:
            measured = sites_of(first.model, s.tower, s.model)
            settle_candidates(s.candidate_roles, [site.role for site in measured.sites])
        result = [self.over_heads()]
        former: dict[str, Any] = {}
        for path in snapshots:
            held = _put_snapshot(first.model, path, former)
            drawn = sorted(set(first.loaded.fresh) - held)[:1]
            notes = [f"{name} is not in it: drawn by seed {s.head_seeds[0]}" for name in drawn]
            result.append(self.scores(first, self.means(first), str(path), notes))
        return result

    def prepared(self, seed: int) -> Prepared:
        ready = prepare(self.s, seed, accelerator=self.accelerator, data=self.data)
        ready.place()
        add(ready.model, self.s.add_bias)
        return ready

    def over_heads(self) -> Scores:
        """The model itself: the mean over its fresh heads."""
        s, first = self.s, self.first
        count = len(s.head_seeds)
        by_seed: dict[str, Any] = {}
        sums: dict[str, Any] = {}
        for seed in s.head_seeds:
            ready = first if seed == first.seed else self.prepared(seed)
            means = self.means(ready)
            sums = {name: one + sums.get(name, 0) for name, one in means.items()}
            if count > 1:
                roles = self.scores(ready, means, s.model, ()).roles
                by_seed[str(seed)] = {role: one.figures["fisher"] for role, one in roles.items()}
        notes = []
        if first.loaded.fresh:
            seeds = ", ".join(map(str, s.head_seeds))
            more = "" if count > 1 else "; --head-seeds 0,1,2 takes the mean over several"
            fresh = ", ".join(first.loaded.fresh)
            notes.append(f"{fresh} drawn by seed {seeds}: scores depend on it{more}")
        means = {name: one / count for name, one in sums.items()}
        return self.scores(first, means, s.model, notes, by_seed)

    def scores(
        self,
        ready: Prepared,
        means: Mapping[str, Any],
        reference: str,
        notes: Sequence[str],
        by_head: Mapping[str, Any] | None = None,
    ) -> Scores:
        from beftkit.gradients import fisher_scores, sites_of

        s, encoded = self.s, self.first.train
        facts = FisherFacts(
            s.variant,
            s.reduce,
            self.data.name,
            len(encoded),
            s.examples_a_pass,
            self.first.length,
            s.dtype,
            s.precision,
            head_seeds=tuple(s.head_seeds) if ready.loaded.fresh else None,
            alone=tuple(self.alone),
            by_head_seed=by_head or {},
        )
        said = [*self.data.notes, *encoded.notes, *self.first.cut(encoded), *notes]
        return fisher_scores(
            sites_of(ready.model, s.tower, s.model),
            means,
            reduce=s.reduce,
            allow_inert=s.allow_inert,
            candidates=s.candidate_roles,
            reference=reference,
            settings=facts,
            notes=[*said, *_alone_notes(self.alone)],
        )

    def means(self, ready: Prepared) -> dict[str, Any]:
        """Parameter to the mean of its squares; also sets `alone`."""
        from beftkit.gradients import sites_of
        from beftkit.gradients.means import example_means, published_means

        s, model = self.s, ready.model
        if self.passes > 1:
            batches = math.ceil(len(self.first.train) / s.examples_a_pass)
            behind, steps = self.passed * batches, self.passes * batches
            self.watcher.reached(self.passed + 1, self.passes, behind, steps)
        self.passed += 1
        given = model, sites_of(model, s.tower, s.model).names, self.first.train, ready.objective
        if s.variant == "batch-mean":
            how: dict[str, Any] = {"batch_size": s.examples_a_pass, "watcher": self.watcher}
            return published_means(*given, self.accelerator, **how)
        means, self.alone = example_means(
            *given,
            self.accelerator,
            batch_size=s.examples_a_pass,
            budget=s.buffer_mib << 20,
            gradient_checkpointing=s.gradient_checkpointing,
            graphs=s.graphs,
            watcher=self.watcher,
        )
        return means


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
    named = model.named_parameters(remove_duplicate=False)
    parameters = {stored_name(name): parameter for name, parameter in named}
    for name, info in checkpoint.tensors.items():
        if name not in parameters or tuple(parameters[name].shape) != tuple(info.shape):
            raise BeftError(
                f"{path}: holds {name} {list(info.shape)}, which this {type(model).__name__} has "
                "not; expected a snapshot of a run on this model (`beftkit train "
                "--save-snapshots`), with --add-bias where that run added biases"
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
