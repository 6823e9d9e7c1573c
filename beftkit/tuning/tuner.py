"""How the chosen scalars train: everything else frozen, float32 whatever the model's dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beftkit.biases import Tensor, is_bias
from beftkit.tuning.added import attach, stored_name
from beftkit.tuning.choice import Choice, Part

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class Unit:
    """A part on its model: the parameter, and the float32 values that the optimiser moves.

    Attributes:
        part: what it is.
        parameter: the model's own tensor.
        values: float32 ``[size]``, or the parameter itself where that is float32 and whole.
        positions: int64 ``[size]``, into the flat parameter; None: all of it.
        before: the whole parameter as it was, float32 on the CPU, where it is kept.
    """

    part: Part
    parameter: torch.nn.Parameter
    values: torch.Tensor
    positions: torch.Tensor | None = None
    before: torch.Tensor | None = field(default=None, repr=False)

    @property
    def is_copy(self) -> bool:
        """Whether the values lie apart from the parameter and have to be written back."""
        return self.values is not self.parameter

    def put_into(self, whole: torch.Tensor) -> None:
        """Write the values to their places in such a parameter, in its dtype, on its device."""
        flat = whole.view(-1)
        values = self.values.detach().to(flat.device, flat.dtype)
        if self.positions is None:
            flat.copy_(values)
        else:
            flat[self.positions.to(flat.device)] = values


class Tuner:
    """Freezes a model but for a choice of its scalars, and keeps those in float32.

    A whole float32 parameter trains as it is. Of any other (a slice of a fused bias, drawn
    scalars, a bfloat16 model) a float32 copy trains: its gradient is taken from the parameter's as
    soon as that is there, and `write_back` puts the new values in place; no other scalar of the
    parameter is touched.

    Args:
        model: the model, on its device already.
        choice: what trains.
        device: where float32 copies live; several devices of a model share it.

    Attributes:
        units: in the order of ``choice.parts``.
    """

    def __init__(self, model: Any, choice: Choice, device: Any) -> None:
        import torch

        for name in choice.added:
            attach(model.get_submodule(name))
        self.choice, self._parameters = choice, dict(model.named_parameters())
        for parameter in self._parameters.values():
            parameter.requires_grad_(False)
        self._handles: list[Any] = []
        self.units: list[Unit] = []
        for part in choice.parts:
            parameter = self._parameters[part.parameter].requires_grad_(True)
            device_here = parameter.device == torch.device(device)
            if parameter.dtype == torch.float32 and not part.positions and device_here:
                unit = Unit(part, parameter, parameter)
            else:
                unit = self._copied(part, parameter, device)
            if part.kind in ("bias", "head"):
                unit.before = parameter.detach().to("cpu", torch.float32, copy=True)
            self.units.append(unit)

    def _copied(self, part: Part, parameter: torch.nn.Parameter, device: Any) -> Unit:
        import torch

        where = None
        flat = parameter.detach().reshape(-1)
        if part.positions:
            where = torch.tensor(part.positions, device=parameter.device)
            flat = flat[where]
        values = flat.to(device, torch.float32, copy=True).requires_grad_(True)
        unit = Unit(part, parameter, values, where)

        def take_gradient(tensor: torch.Tensor) -> None:
            assert tensor.grad is not None
            gradient = tensor.grad.reshape(-1)
            gradient = (gradient if where is None else gradient[where]).to(device, torch.float32)
            if values.grad is None:
                values.grad = gradient.clone()
            else:  # in place: a captured update finds it where it was
                values.grad.add_(gradient)
            tensor.grad = None

        self._handles.append(parameter.register_post_accumulate_grad_hook(take_gradient))
        return unit

    @property
    def values(self) -> list[torch.Tensor]:
        """What the optimiser is given: one float32 leaf a unit."""
        return [unit.values for unit in self.units]

    def write_back(self) -> None:
        """Put trained copies into their parameters, rounded to the parameters' dtype."""
        import torch

        with torch.no_grad():
            for unit in self.units:
                if unit.is_copy:
                    unit.put_into(unit.parameter)

    def vectors(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """The tracked bias vectors as they train, and the role of each, for `Track`."""
        owners = {site: unit for unit in self.units for site in unit.part.sites}
        found, roles = {}, {}
        for site in self.choice.sites:
            name = site.name if site.cut is None else f"{site.name} {site.cut}"
            unit = owners.get(site)
            if unit is None or unit.positions is None:
                whole = (self._parameters[site.name] if unit is None else unit.values).detach()
                found[name] = whole if site.cut is None else site.cut.part(whole)
            else:
                before = unit.part.sites[: unit.part.sites.index(site)]
                begin = sum(other.width for other in before)
                found[name] = unit.values.detach()[begin : begin + site.width]
            roles[name] = site.role
        return found, roles

    def at_zero(self) -> list[str]:
        """Roles that are zero as they are now, of which the projection ratio will be 1."""
        found, roles = self.vectors()
        others = {roles[name] for name, vector in found.items() if bool(vector.any())}
        return [role for role in dict.fromkeys(roles.values()) if role not in others]

    def biases(self) -> dict[str, torch.Tensor]:
        """Every bias vector of the model, trained or not: whole, float32, on the CPU.

        An added one has the name that a bias of its module would have.
        """
        import torch

        units = {unit.part.parameter: unit for unit in self.units}
        return {
            stored_name(name): self.after(units[name])
            if name in units
            else parameter.detach().to("cpu", torch.float32, copy=True)
            for name, parameter in self._parameters.items()
            if is_bias(Tensor(name, "F32", tuple(parameter.shape)))
        }

    def state(self) -> dict[str, torch.Tensor]:
        """The trained values by parameter name; not copied."""
        return {unit.part.parameter: unit.values.detach() for unit in self.units}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take values from `state` of an equal choice, and write them back."""
        import torch

        with torch.no_grad():
            for unit in self.units:
                unit.values.copy_(state[unit.part.parameter])
        self.write_back()

    def after(self, unit: Unit) -> torch.Tensor:
        """A unit's whole parameter as trained, float32 on the CPU."""
        import torch

        whole = unit.parameter.detach().to("cpu", torch.float32, copy=True)
        if unit.is_copy:
            unit.put_into(whole)
        return whole

    def close(self) -> None:
        """Take the hooks off; the model keeps its trained values."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def store_for_autocast(model: Any, dtype: torch.dtype) -> int:
    """Keep frozen matrices in the dtype that autocast would cast them to at every use.

    The results are equal to the bit, without the copies: autocast remembers none of a weight that
    needs no gradient. Embeddings, norms, biases and tied matrices stay as they are.

    Returns:
        How many matrices there were.
    """
    count = 0
    for weight in _frozen_matrices(model):
        if weight.dtype != dtype:
            weight.data = weight.data.to(dtype)
            count += 1
    return count


def checkpoint_activations(model: Any) -> None:
    """Compute activations again in the backward pass instead of keeping them."""
    # Renamed in transformers 5.2x. The reentrant kind wants inputs that need a gradient.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


def _frozen_matrices(model: Any) -> Iterator[torch.nn.Parameter]:
    import torch
    from transformers.pytorch_utils import Conv1D

    owners: dict[int, set[type]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(type(module))
    plain = {torch.nn.Linear, Conv1D}
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        if type(module) in plain and not weight.requires_grad and owners[id(weight)] <= plain:
            yield weight
