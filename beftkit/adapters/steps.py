"""What an adapter does to the parameters of its base: steps, their order, what fits, their sums.

One account for biases that are scored (numpy) and for live models (torch), told from names, shapes
and configuration; values stay with whoever opened the file. Formats checked against peft 0.21:
BEFT stores ``<module>.beft_bias`` ``[1, out]``, a change; LoRA with ``lora_bias`` stores
``<module>.lora_B.bias`` ``[out]``, a change scaled by alpha / r; whole tensors (``bias="all"``,
``modules_to_save``, and our own format) replace those of the base.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from beftkit.adapters.reading import AdapterInfo, plain, unused
from beftkit.adapters.scales import Scales
from beftkit.errors import BeftError

#: options of a LoRA that change more than W + B A and the bias
_NOT_PLAIN = """
    use_dora use_qalora use_bdlora layer_replication trainable_token_indices target_parameters
    alora_invocation_tokens arrow_config corda_config eva_config kasa_config monteclora_config
""".split()
_OTHER_LORA = "beftkit does not apply; load this adapter with PEFT"
#: kinds of PEFT 0.21 whose merge leaves a bias as it is, or makes it what the file holds of it
_BIASES_SAVED = """
    BEFT BIASES LORA ADALORA BOFT C3A DEFT DELORA FOURIERFT FROD GRALORA HIRA HRA LN_TUNING LOHA
    LOKR MISS OFT OSF PEANUT PSOFT PVERA RANDLORA SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS
    UNILORA VBLORA VERA WAVEFT
    PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING CPT
""".split()


@dataclass(frozen=True)
class Target:
    """A parameter of a live model, as a step meets it.

    Attributes:
        name: the model's own name of it.
        shape: its shape.
        owner: the model's class.
        labels: rows of the model's head, where its configuration says.
        transposed: whether it is a weight ``[in, out]``: transformers' Conv1D.
    """

    name: str
    shape: tuple[int, ...]
    owner: str
    labels: int | None = None
    transposed: bool = False

    @classmethod
    def of(cls, model: Any, name: str, shape: tuple[int, ...], transposed: bool) -> Target:
        """A parameter of this model."""
        labels = getattr(getattr(model, "config", None), "num_labels", None)
        return cls(name, shape, type(model).__name__, labels, transposed)


@dataclass(frozen=True)
class Step:
    """One thing that an adapter does to one parameter of the base.

    Attributes:
        kind: ``replace``, ``add``, or ``low_rank`` (the product of two tensors is added).
        parameter: at runtime, ``...query.bias``, as the base model names it.
        tensors: of the adapter's file; two for ``low_rank``: A, B.
        scale: factor of what is added.
    """

    kind: Literal["replace", "add", "low_rank"]
    parameter: str
    tensors: tuple[str, ...]
    scale: float = 1.0

    @property
    def tensor(self) -> str:
        """The first of its tensors, which messages name."""
        return self.tensors[0]

    def turn(self) -> bool:
        """Key to sort steps by: what is replaced comes before what is added to it."""
        return self.kind != "replace"

    def spellings(self, prefix: str) -> tuple[str, ...]:
        """Names that a model may have for the parameter, likeliest first.

        The bare model's prefix (``bert``) may be missing in an adapter, or be too much.
        """
        longer = f"{prefix}.{self.parameter}".lstrip(".")
        shorter = self.parameter.removeprefix(f"{prefix}.")
        return tuple(dict.fromkeys((self.parameter, longer, shorter)))

    def after(self, before: Any, given: Sequence[Any], transposed: bool = False) -> Any:
        """The parameter's values after the step, formed in the dtype of what is given.

        Args:
            before: the parameter's values, numpy or torch; None where the base has no such bias.
            given: those of the step's tensors, shaped as the parameter, or A and B.
            transposed: as `Target` says.
        """
        if self.kind == "replace":
            return given[0]
        change = given[0]
        if self.kind == "low_rank":
            product = given[1] @ given[0]
            change = product.T if transposed else product
        change = change * self.scale
        return change if before is None else before + change

    def check_shapes(
        self, shapes: Sequence[tuple[int, ...]], target: Target, info: AdapterInfo
    ) -> None:
        """Refuse tensors that do not fit their parameter.

        Args:
            shapes: those of the step's tensors, as stored.
            target: the parameter.
            info: what the adapter says of itself, for messages.
        """
        given, expected = shapes[0], target.shape
        if self.kind == "low_rank":
            inner, outer = shapes
            if len(inner) != 2 or len(outer) != 2 or outer[1] != inner[0]:
                raise BeftError(
                    f"{info.reference}: {self.tensors[0]} {list(inner)} and {self.tensors[1]} "
                    f"{list(outer)} are no pair of matrices, which {_OTHER_LORA}"
                )
            given = (inner[1], outer[0]) if target.transposed else (outer[0], inner[1])
        elif self.kind == "add" and given == (1, *expected):
            given = expected
        if given == expected:
            return
        rows = target.labels
        if self.kind == "replace" and given[1:] == expected[1:] and expected[:1] == (rows,):
            raise BeftError(
                f"{info.reference}: its head has {given[0]} labels, this model's {rows} "
                f"({self.tensor}); load the base with num_labels={given[0]}"
            )
        raise BeftError(
            f"{info.reference}: {self.tensor} is {list(given)}, but {target.name} of this "
            f"{target.owner} is {list(expected)}; {info.mismatch}"
        )


def bias_steps(config: Mapping[str, Any], names: Iterable[str]) -> tuple[list[Step], list[str]]:
    """Sort an adapter's tensors into steps on biases and the rest.

    Args:
        config: its ``adapter_config.json``.
        names: the tensors in its file.

    Returns:
        The steps, and the names of tensors that are not biases; both in the order of ``names``.
    """
    steps, rest, scales = [], [], Scales(config)
    for name in names:
        if unused(name):
            continue
        module, _, leaf = plain(name).rpartition(".")
        if leaf == "beft_bias":
            steps.append(Step("add", f"{module}.bias", (name,)))
        elif leaf == "bias" and module.endswith(".lora_B"):
            module = module.removesuffix(".lora_B")
            steps.append(Step("add", f"{module}.bias", (name,), scales.of(module)))
        elif leaf in ("bias", "beta") or leaf.endswith("_bias"):
            leaf = "bias" if leaf == "beta" else leaf
            steps.append(Step("replace", f"{module}.{leaf}", (name,)))
        else:
            rest.append(name)
    return steps, rest


def check_kind(config: Mapping[str, Any], reference: str) -> None:
    """Refuse an adapter that may change biases by more than the biases in its file.

    IA3 multiplies them, RoAd rotates them, GLoRA computes them: the file alone does not tell.

    Args:
        config: its ``adapter_config.json``.
        reference: the adapter, for messages.

    Raises:
        BeftError: it is of such a kind, or of one that is not known.
    """
    kind = config.get("peft_type")
    if isinstance(kind, str) and kind.upper() not in _BIASES_SAVED:
        raise BeftError(
            f"{reference}: an adapter of type {kind}, whose merge may change biases by more than "
            "its file holds of them; merge it with PEFT, and score the model that comes of it"
        )


def all_steps(config: Mapping[str, Any], names: Collection[str], info: AdapterInfo) -> list[Step]:
    """What every tensor of an adapter does, biases first; to be done in the order of `Step.turn`.

    Args:
        config: its ``adapter_config.json``.
        names: the tensors in its file.
        info: what it says of itself.

    Raises:
        BeftError: a LoRA of a kind that changes more than we would apply.
    """
    if found := _variants(config) if info.format == "lora" else []:
        raise BeftError(f"{info.reference}: a LoRA with {', '.join(found)}, which {_OTHER_LORA}")
    (steps, rest), scales = bias_steps(config, names), Scales(config)
    for tensor in rest:
        module, _, leaf = plain(tensor).rpartition(".")
        if ".lora_" not in tensor:
            steps.append(Step("replace", plain(tensor), (tensor,)))
        elif leaf == "weight" and module.endswith((".lora_A", ".lora_B")):
            module, own = module[:-7], f"{module[-7:]}."
            a, b = (tensor.replace(own, f".lora_{which}.") for which in "AB")
            if tensor == a or a not in names:
                steps.append(Step("low_rank", f"{module}.weight", (a, b), scales.of(module)))
        else:
            raise BeftError(f"{info.reference}: {tensor}, which {_OTHER_LORA}")
    return steps


def _variants(config: Mapping[str, Any]) -> list[str]:
    """Options that make a LoRA change more than we would apply."""
    found = [key for key in _NOT_PLAIN if config.get(key)]
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start not in ("gaussian", "orthogonal"):
        found.append(f"init_lora_weights={start}")  # pissa, olora and others change the base
    return found


def layers_of(paths: Iterable[str]) -> dict[str, set[int]]:
    """Which layers there are: path of a module list -> indices in it that these paths have."""
    found: dict[str, set[int]] = {}
    for path in paths:
        parts = path.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
        if at is not None:
            found.setdefault(".".join(parts[:at]), set()).add(int(parts[at]))
    return found


def fewer_layers(changed: Iterable[str], there: Iterable[str]) -> list[str]:
    """Say where an adapter changes only some layers of a base: it may be that of a smaller one.

    Args:
        changed: paths of what it changes, at runtime, with or without the base model's prefix.
        there: paths of what the base has.
    """
    layers, notes = layers_of(there), []
    for stack, found in layers_of(changed).items():
        like = [one for one in layers if stack in endings(one) or one in endings(stack)]
        like = [stack] if stack in like else like
        whole = layers[like[0]] if len(like) == 1 else set()
        if len(like) == 1 and found < whole:
            shown = ", ".join(map(str, sorted(found)[:12])) + (", ..." if len(found) > 12 else "")
            notes.append(
                f"the adapter changes {len(found)} of the base's {len(whole)} layers "
                f"({like[0]}: {shown}); was it trained on a smaller model?"
            )
    return notes


def endings(path: str) -> list[str]:
    """The path, and what is left of it without its first parts: ``a.b.c``, ``b.c``, ``c``."""
    parts = path.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
