"""`beftkit.BiasBank`: many adapters on one model in memory, each row of a batch with its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beftkit.accelerator import steady_attention
from beftkit.adapters import Step, meant
from beftkit.checkpoints import BiasSet, open_checkpoint, recognise_checkpoint
from beftkit.errors import BeftError, UsageError
from beftkit.spelling import meant as spelled
from beftkit.tuning.bank import Ambiguous, RowModules, Rows, RowVectors
from beftkit.weights.changes import Changed, Changes, read_changes
from beftkit.weights.heads import check_task
from beftkit.weights.opening import info_of

if TYPE_CHECKING:
    import torch


class BiasBank:
    """Many bias adapters on one model: each row of a batch is computed with its own.

    The base lies in memory once; an adapter adds its vectors ``[D]``, in float32, and its head.
    What a row gives is what the model gives with that adapter alone, up to rounding (a bias is
    added to the output, as PEFT adds it before a merge, not to the base's bias). PEFT's BEFT takes
    ``adapter_names`` and ignores it: every row gets the active adapter.

    The model stays as it is; without names it answers as before. Not for several threads at once.
    Rows are answered in evaluation mode, without dropout, whatever mode the model is in; a model in
    training mode is back in it afterwards.

    Args:
        model: a transformers model, on any device and of any dtype.
        adapters: name -> adapter: a folder, a run's, or ``owner/name[@revision]`` on the hub; BEFT,
            LoRA with biases or our own format, trained on this model.
        download: fetch whole files from the hub into its cache.

    Raises:
        UsageError: what is given is no model in memory, or no names with adapters.
        BeftError: an adapter that does not fit, that was trained for another task (a head over
            tokens on a model of whole texts), that changes weights, or a bias that no module adds
            to its output.

    Example:
        >>> adapters = {"sst2": "runs/sst2", "rte": "runs/rte"}
        >>> bank = beftkit.BiasBank(model, adapters)  # doctest: +SKIP
        >>> logits = bank(names=["sst2", "rte", None], **batch)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: torch.nn.Module,
        adapters: Mapping[str, str | Path] | None = None,
        *,
        download: bool = False,
    ) -> None:
        if not callable(getattr(model, "named_modules", None)):
            given = repr(model) if isinstance(model, str | Path) else type(model).__name__
            raise UsageError(f"{given}: expected a model in memory, such as from_pretrained gives")
        if adapters is not None and not isinstance(adapters, Mapping):
            raise UsageError(
                f"{type(adapters).__name__}: expected a name for each adapter, such as "
                "{'sst2': 'runs/sst2'}"
            )
        self.model: Any = model
        self._download = download
        self._names: list[str | None] = [None]  # the model as it is comes first
        self._rows = Rows()
        self._hooks: dict[str, RowVectors | RowModules] = {}
        for name, adapter in (adapters or {}).items():
            self.add(name, adapter)

    def __repr__(self) -> str:
        known = ", ".join(map(repr, self.names)) or "no adapter"
        return f"BiasBank({type(self.model).__name__}: {known})"

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters there are, in the order they came."""
        return tuple(name for name in self._names if name is not None)

    def add(self, name: str, adapter: str | Path) -> None:
        """Take in one adapter more, between two calls.

        Raises:
            UsageError: there is one of that name.
            BeftError: as the bank itself; nothing was taken in.
        """
        if not isinstance(name, str) or not name:
            raise UsageError(f"{name!r}: expected a name for the adapter, a text")
        if name in self._names:
            raise UsageError(f"{name!r}: is in the bank already; remove it first")
        checkpoint = open_checkpoint(meant(str(adapter)), download=self._download)
        check_task(self.model, info_of(checkpoint))
        changes = read_changes(checkpoint, self._base)
        vectors, modules = self._placed(changes)
        for path, (module, vector) in vectors.items():
            if path not in self._hooks:
                count = len(self._names)
                self._hooks[path] = RowVectors(module, path, self._rows, vector.numel(), count)
        for path, (module, _) in modules.items():
            key = f"{path} (whole)"
            if key not in self._hooks:
                self._hooks[key] = RowModules(module, path, self._rows, len(self._names))
        for key, hook in self._hooks.items():
            if isinstance(hook, RowVectors):
                hook.append(vectors[key][1] if key in vectors else None)
            else:
                hook.append(modules[hook.path][1] if hook.path in modules else None)
        self._names.append(name)

    def remove(self, name: str) -> None:
        """Take out one adapter.

        Raises:
            UsageError: there is none of that name.
        """
        [variant] = self._variants([name])
        if not variant:
            raise UsageError("None: is the model as it is, and stays")
        del self._names[variant]
        for key, hook in [*self._hooks.items()]:
            hook.drop(variant)
            if not hook.wanted(range(len(self._names))):
                hook.close()
                del self._hooks[key]

    def close(self) -> None:
        """Take everything off the model."""
        for hook in self._hooks.values():
            hook.close()
        self._hooks.clear()
        self._names = [None]

    def __call__(self, *, names: Sequence[str | None], **inputs: Any) -> list[torch.Tensor]:
        """Run a batch, each row with its own adapter.

        Args:
            names: B names; None: the model as it is.
            inputs: what the model takes, B rows.

        Returns:
            B tensors: a row's logits, ``[labels]`` of its own head, or ``[T, V]`` of a language
            model; of a model without a head its last hidden state ``[T, D]``.

        Raises:
            UsageError: an unknown name, another number of rows, or ``labels``: a loss over rows
                with heads of their own means nothing.
            BeftError: a module that does not keep rows apart, or that did not run as a module.
        """
        if "labels" in inputs:
            raise UsageError("labels: rows have heads of their own, so there is no common loss")
        self._variants(names)
        self._check_rows(names, inputs)
        try:
            found = self._run(names, inputs)
        except Ambiguous:
            self._probe(names, inputs)
            found = self._run(names, inputs)
        widths = self._rows.widths
        outputs = found.logits if hasattr(found, "logits") else found[0]
        if widths is None:
            return list(outputs)
        return [row[..., :width] for row, width in zip(outputs, widths, strict=True)]

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[torch.nn.Module]:
        """The model while each row of its batches has its own adapter, for a loop of one's own.

        Logits are then as the model gives them; where heads have different numbers of labels, rows
        are filled up with minus infinity. Generation works as long as rows are not repeated.
        Within, the model is in evaluation mode, unless you put it into another there.

        Args:
            names: B names; None: the model as it is.
        """
        self._rows.begin(self._variants(names))
        try:
            with _answering(self.model), steady_attention(self._device):
                yield self.model
            self._check_ran()
        finally:
            self._rows.end()

    def _run(self, names: Sequence[str | None], inputs: Mapping[str, Any]) -> Any:
        with self.rows(names) as model:
            return model(**inputs)

    def _probe(self, names: Sequence[str | None], inputs: Mapping[str, Any]) -> None:
        """Run the first row alone, to see that modules put rows first."""
        one = {
            key: value[:1] if getattr(value, "shape", ())[:1] == (len(names),) else value
            for key, value in inputs.items()
        }
        self._rows.begin(self._variants(names[:1]), probing=True)
        try:
            with _answering(self.model), steady_attention(self._device):
                self.model(**one)
        finally:
            self._rows.end()

    @property
    def _device(self) -> torch.device:
        """Of the model, or of the first of its tensors."""
        found: torch.device = next(self.model.parameters()).device
        return found

    def _variants(self, names: Sequence[str | None]) -> list[int]:
        if isinstance(names, str) or not len(names):
            raise UsageError(f"names={names!r}: expected one name for each row")
        for name in names:
            if name not in self._names:
                known = ", ".join(map(repr, self.names)) or "none yet"
                hint = spelled(str(name), self.names)
                raise UsageError(f"{name!r}: not in the bank, which has {known}{hint}")
        return [self._names.index(name) for name in names]

    def _check_rows(self, names: Sequence[str | None], inputs: Mapping[str, Any]) -> None:
        main = getattr(self.model, "main_input_name", "input_ids")
        key = next((k for k in (main, "inputs_embeds") if k in inputs), None)
        count = None if key is None else len(inputs[key])
        if count is not None and count != len(names):
            raise UsageError(f"{len(names)} names for {count} rows; expected one for each row")

    def _check_ran(self) -> None:
        """Every module with a vector has to have run as one: a hook on another's use is blind."""
        variants = self._rows.variants or ()
        for hook in self._hooks.values():
            if hook.wanted(variants) and hook.path not in self._rows.ran:
                raise BeftError(
                    f"{hook.path}: did not run as a module of its own, so its rows were left as "
                    "they are; apply one adapter at a time to this model"
                )

    def _base(self) -> BiasSet:
        """The model's own biases, for adapters that hold values and not changes."""
        from beftkit.checkpoints.live import LiveCheckpoint

        live = LiveCheckpoint(self.model)
        return BiasSet(live, recognise_checkpoint(live, live.config))

    def _placed(self, changes: Changes) -> tuple[dict[str, Any], dict[str, Any]]:
        """Modules whose output an adapter adds to, and those of which it brings the parameters."""
        import torch

        if changes.products:
            raise BeftError(
                f"{changes.reference}: a LoRA that changes {changes.products[0]} and other weights;"
                " PEFT's adapter_names mixes LoRAs in a batch"
            )
        vectors: dict[str, tuple[torch.nn.Module, torch.Tensor]] = {}
        for one in (*changes.biases.values(), *changes.pooler.values()):
            path, module = self._module(one.parameter, changes)
            self._check_vector(one, path, module, changes)
            change = one.change.reshape(-1).astype(np.float32)
            if one.value is None or change.any():  # else it is the base's own value
                vectors[path] = module, torch.from_numpy(change)
        modules: dict[str, tuple[torch.nn.Module, dict[str, torch.Tensor]]] = {}
        for name, value in changes.head.items():
            path, module = self._module(name, changes)
            own = modules.setdefault(path, (module, {}))[1]
            own[name.rpartition(".")[2]] = torch.from_numpy(value.astype(np.float32))
        for path, (module, own) in modules.items():
            _check_head(path, module, own, changes)
        return vectors, modules

    def _module(self, parameter: str, changes: Changes) -> tuple[str, torch.nn.Module]:
        step = Step("add", parameter, ())
        for name in step.spellings(getattr(self.model, "base_model_prefix", "")):
            owner, _, leaf = name.rpartition(".")
            try:
                module: torch.nn.Module = self.model.get_submodule(owner)
            except AttributeError:
                continue
            if hasattr(module, leaf):
                return owner, module
        raise BeftError(
            f"{changes.reference}: changes {parameter}, which this {type(self.model).__name__} has "
            f"not; {changes.info.mismatch}"
        )

    def _check_vector(self, one: Changed, path: str, module: Any, changes: Changes) -> None:
        """Refuse a bias that its module does not add to its output, and another width."""
        import torch

        kind = type(module).__name__
        if isinstance(module, torch.nn.Linear):
            width = module.out_features
        elif kind == "Conv1D":
            width = int(module.nf)
        elif "Norm" in kind and one.parameter.endswith(".bias"):
            width = int(module.weight.numel())
        else:
            raise BeftError(
                f"{changes.reference}: {one.parameter} of a {kind}, which does not simply add it "
                "to its output, so rows cannot have their own; apply one adapter at a time"
            )
        if one.change.size != width:
            raise BeftError(
                f"{changes.reference}: {one.parameter} has {one.change.size} elements, that of "
                f"{path} in this {type(self.model).__name__} {width}; {changes.info.mismatch}"
            )
        if one.weight is None:
            return
        held = module.weight.detach().float().cpu().numpy()
        if not np.allclose(held, one.weight, rtol=1e-2):
            raise BeftError(
                f"{changes.reference}: brings another {path}.weight than the model has; a bank "
                f"holds biases; {changes.info.mismatch}"
            )


@contextmanager
def _answering(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; then each module is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    if any(training for _, training in modes):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training


def _check_head(path: str, module: Any, own: Mapping[str, Any], changes: Changes) -> None:
    """Refuse parameters that the module cannot run with; the number of labels is free."""
    for name, value in own.items():
        there = getattr(module, name)
        if there is None or there.shape[1:] != value.shape[1:]:
            shape = None if there is None else list(there.shape)
            raise BeftError(
                f"{changes.reference}: {path}.{name} is {list(value.shape)}, of this model {shape};"
                f" {changes.info.mismatch}"
            )
