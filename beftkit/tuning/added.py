"""Biases where a model has none: a vector of zeros at a projection's output, which then trains.

One mechanism for training, evaluating and measuring: a float32 parameter beside the projection's
weight, and a forward hook that adds it with the arithmetic of PEFT's BEFT. Weights stay what and
where they are. What a hook adds it asks of a `Holder`, so other vectors can take the parameter's
place: one for each row, say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from beftkit.biases import (
    ADDABLE,
    ADDED,
    Site,
    Tensor,
    choose_tower,
    in_tower,
    missing_sites,
)
from beftkit.checkpoints import recognise_checkpoint
from beftkit.errors import BeftError, UsageError, option
from beftkit.spelling import OF_ROLES, meant

if TYPE_CHECKING:
    import torch

#: other words for a role
_ALIASES = {"o": "m1"}


class Holder(Protocol):
    """Knows what is added to a module's output."""

    def rows(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        """``[D]`` for all rows of the output ``[B, ..., D]``, or what broadcasts over it."""
        ...


class OwnVector:
    """One vector for all rows: the module's own parameter."""

    def rows(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        """``[D]``, float32."""
        vector: torch.Tensor = getattr(module, ADDED)
        return vector


class AddingHook:
    """A forward hook that adds what its holder gives: the sum in float32, rounded once.

    That is PEFT's ``(result + beft_bias).to(dtype)``, to the bit. Nothing in it depends on values,
    and nothing on the step.

    Attributes:
        holder: what is added; another may take its place at any time.
    """

    def __init__(self, holder: Holder | None = None) -> None:
        self.holder: Holder = holder or OwnVector()

    def __call__(
        self, module: torch.nn.Module, given: object, output: torch.Tensor
    ) -> torch.Tensor:
        return (output + self.holder.rows(module, output)).to(output.dtype)


def attach(module: torch.nn.Module) -> torch.nn.Parameter:
    """Add a vector of zeros to a Linear's output; once: a second call gives the first's vector.

    Returns:
        The parameter, ``[out]`` on the weight's device: float32, or float64 as the weight is.
    """
    import torch

    held = getattr(module, ADDED, None)
    if isinstance(held, torch.nn.Parameter):
        return held
    weight: Any = module.weight
    wide = weight.dtype if weight.dtype == torch.float64 else torch.float32
    zeros = torch.zeros(int(module.out_features), dtype=wide, device=weight.device)  # type: ignore[arg-type]
    vector = torch.nn.Parameter(zeros)
    module.register_parameter(ADDED, vector)
    module.register_forward_hook(AddingHook())
    return vector


def detach(module: torch.nn.Module) -> None:
    """Take off what `attach` put on."""
    hooks = module._forward_hooks
    for number in [number for number, hook in hooks.items() if isinstance(hook, AddingHook)]:
        del hooks[number]
    module._parameters.pop(ADDED, None)


def owner_of(parameter: str) -> str | None:
    """The module that an added vector is of, by the parameter's name; None: it is none."""
    module, _, leaf = parameter.rpartition(".")
    return module if leaf == ADDED else None


def stored_name(parameter: str) -> str:
    """The name that files know a parameter by: of an added vector, that of its module's bias."""
    owner = owner_of(parameter)
    return parameter if owner is None else f"{owner}.bias"


def attached(model: Any) -> list[str]:
    """The modules of a model that have an added vector."""
    named = model.named_parameters()
    return [owner for name, _ in named if (owner := owner_of(name)) is not None]


@dataclass(frozen=True)
class Added:
    """What ``--add-bias`` means for one model.

    Attributes:
        sites: the vectors' places; a fused projection's parameter holds several.
        widths: parameter -> scalars in it, at runtime; one for each module.
        layers: of the model, where a bias could be added or is.
        notes: what a reader should know.
    """

    sites: tuple[Site, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    layers: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """Of the sites, in their order."""
        return tuple(dict.fromkeys(site.role for site in self.sites))

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the modules whose output a vector is added to."""
        return tuple(name.removesuffix(f".{ADDED}") for name in self.widths)


def parse_added(roles: str) -> tuple[str, ...]:
    """Read ``v`` or ``q,o``: roles of projections, in the order of the roles.

    Raises:
        UsageError: anything else.
    """
    words = [word for word in roles.replace(" ", "").split(",") if word]
    unknown = next((word for word in words if _ALIASES.get(word, word) not in ADDABLE), None)
    if unknown is not None or not words:
        known = (*ADDABLE, *_ALIASES)
        raise UsageError(
            f"{option('add_bias', roles)}: expected roles out of {', '.join(ADDABLE)} (o is m1; "
            f"several with commas){meant(unknown or '', known, OF_ROLES)}"
        )
    wanted = {_ALIASES.get(word, word) for word in words}
    return tuple(role for role in ADDABLE if role in wanted)


def choose_added(
    model: Any,
    roles: str | None,
    *,
    layers: frozenset[int] | None = None,
    allow_partial: bool = False,
) -> Added:
    """Settle where vectors are added, and leave the model as it is.

    Args:
        model: a transformers model in memory, or on the meta device.
        roles: as `parse_added` takes them; None: nowhere.
        layers: only these; None: all.
        allow_partial: accept a role whose projections only some of the layers have.

    Raises:
        UsageError: roles that are none.
        BeftError: a role that has its bias already, or no projection here.
    """
    from beftkit.checkpoints.live import LiveCheckpoint

    if roles is None:
        return Added()
    wanted = parse_added(roles)
    checkpoint = LiveCheckpoint(model)
    tensors = [Tensor(name, one.dtype, one.shape) for name, one in checkpoint.tensors.items()]
    there = recognise_checkpoint(checkpoint, checkpoint.config).sites
    lacking = missing_sites(tensors, checkpoint.config, checkpoint.reference)
    both, new = [*there, *lacking], {*lacking}
    if not both:
        raise BeftError(
            f"{option('add_bias', roles)}: no projection of this {type(model).__name__} is known; "
            "expected a model of a family that beftkit recognises (docs/families.md)"
        )
    tower, _ = choose_tower([site.tower for site in both], None)
    inside = [site for site in both if in_tower(site.tower, tower)]
    numbers = frozenset(site.layer for site in inside)
    if layers is not None and not layers <= numbers:
        return Added(layers=numbers)  # `choose` has the words for it
    chosen = [site for site in inside if layers is None or site.layer in layers]
    there, lacking = (
        tuple(site for site in chosen if (site in new) is which) for which in (False, True)
    )
    _check_roles(wanted, there, lacking, allow_partial)
    sites = [site for site in lacking if site.role in wanted]
    one, widths, notes = _by_module(model, sites)
    notes += _held_notes(wanted, there)
    return Added(tuple(one), widths, numbers, tuple(notes))


def _check_roles(
    roles: Sequence[str], there: Sequence[Site], lacking: Sequence[Site], allow_partial: bool
) -> None:
    """Refuse roles that have biases already, or no projection."""
    could = ", ".join(role for role in ADDABLE if any(site.role == role for site in lacking))
    places = {(site.tower, site.layer) for site in (*there, *lacking)}
    for role in roles:
        place = option("add_bias", role)
        found = [site for site in lacking if site.role == role]
        held = [site for site in there if site.role == role]
        if held and not found:
            raise BeftError(
                f"{place}: this model has that bias ({held[0].name}); train it by "
                f"{option('bias', role)}"
            )
        if not found:
            raise BeftError(
                f"{place}: this model has no such projection that is known; a bias can be added to "
                f"{could or 'none'}"
            )
        covered = {(site.tower, site.layer) for site in (*found, *held)}
        if covered != places and not allow_partial:
            raise BeftError(
                f"{place}: {len(covered)} of {len(places)} layers have such a projection; "
                "--allow-partial adds it to these"
            )


def _held_notes(roles: Sequence[str], there: Sequence[Site]) -> list[str]:
    """Say where some of a role's projections have a bias; the others get one."""
    return [
        f"{role}: added where there is none; {len(held)} are there already (e.g. {held[0].name}), "
        f"which {option('bias', role)} trains"
        for role in roles
        if (held := [site for site in there if site.role == role])
    ]


def _by_module(model: Any, sites: Iterable[Site]) -> tuple[list[Site], dict[str, int], list[str]]:
    """One vector a module: of a module that several layers share the first name alone."""
    import torch

    modules = dict(model.named_modules(remove_duplicate=False))
    first: dict[int, str] = {}
    shared: dict[str, set[str]] = {}
    kept, widths = [], {}
    for site in sites:
        path = site.name.removesuffix(f".{ADDED}")
        module = modules.get(path)
        if not isinstance(module, torch.nn.Linear):
            raise BeftError(
                f"{option('add_bias', site.role)}: {path} is a {type(module).__name__}; expected a "
                "Linear layer, to whose output a bias can be added"
            )
        name = first.setdefault(id(module), site.name)
        if name != site.name:
            shared.setdefault(name, {name}).add(site.name)
            continue
        kept.append(site)
        widths[name] = module.out_features
    notes = [
        f"{owner_of(name)} serves {len(names)} layers, which have one vector together"
        for name, names in shared.items()
    ]
    return kept, widths, notes


def add(model: Any, roles: str | None) -> tuple[str, ...]:
    """Put vectors of zeros onto a model; they stay.

    Args:
        model: in memory, or on the meta device.
        roles: as `parse_added` takes them; None: none.

    Returns:
        The modules that have one now and had none.

    Raises:
        BeftError: as `choose_added`.
    """
    before = {*attached(model)}
    modules = [name for name in choose_added(model, roles).modules if name not in before]
    for name in modules:
        attach(model.get_submodule(name))
    return tuple(modules)


@contextmanager
def adding(model: Any, roles: str | None) -> Iterator[None]:
    """A model with vectors of zeros while it lasts; those that it had before stay."""
    modules = add(model, roles)
    try:
        yield
    finally:
        for name in modules:
            detach(model.get_submodule(name))
