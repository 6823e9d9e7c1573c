"""LoRA by PEFT, the baseline: matrices A and B beside the projections of queries and values.

What trains is named before anything is put in, from the base alone, so that plans and digests of
the base see it as it is. PEFT puts the matrices in, computes with them and writes them.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beftkit.adapters import CONFIG_NAME, WEIGHTS_NAME
from beftkit.biases import Site, Tensor, choose_tower, in_tower, recognise
from beftkit.errors import BeftError
from beftkit.files import stable_header
from beftkit.models import head_names, quiet
from beftkit.tuning.choice import Choice, Part
from beftkit.tuning.tuner import Tuner, Unit

if TYPE_CHECKING:
    import torch

#: as published beside the method (paper section 4): rank, and what B A is scaled by, times rank
RANK, ALPHA = 8, 16
_ROLES = ("q", "v")
#: PEFT's name of an adapter that nobody named, within the names of its parameters
_NAME = "default"


def check_peft() -> None:
    """Make sure that PEFT is there.

    Raises:
        BeftError: it is not; the message says how to get it.
    """
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise BeftError("--peft=lora needs PEFT: pip install 'beftkit[baselines]'")


def choose_lora(model: Any, *, freeze_head: bool = False) -> Choice:
    """Name what a LoRA of this model trains, and leave the model as it is.

    Args:
        model: a transformers model in memory, or on the meta device, without a LoRA.
        freeze_head: do not train the classifier along.

    Raises:
        BeftError: its projections of queries and values are not known, or no layers of their own.
    """
    sites = _sites(model)
    parts, modules = [], dict(model.named_modules())
    owners = list(dict.fromkeys(site.name.rpartition(".")[0] for site in sites))
    for owner in owners:
        inner, outer = _widths(modules.get(owner), owner)
        parts += [
            Part(f"{owner}.lora_A.{_NAME}.weight", RANK * inner, kind="lora"),
            Part(f"{owner}.lora_B.{_NAME}.weight", outer * RANK, kind="lora"),
        ]
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    head = [] if freeze_head else head_names(model)
    scalars = sum(part.size for part in parts)
    parts += [Part(_wrapped(name), sizes[name], kind="head") for name in head]
    notes = ["a LoRA changes no bias, so there are no projection scores"]
    if fused := [site.name.rpartition(".")[0] for site in sites if site.cut is not None]:
        notes.append(
            f"q and v are parts of one projection here ({fused[0]} and its like), and the LoRA is "
            "on the whole of it"
        )
    outer_scalars = sum(sizes[name] for name in head)
    total = sum(sizes.values())
    return Choice("none", tuple(parts), (), scalars, outer_scalars, total, tuple(notes))


def _sites(model: Any) -> list[Site]:
    """The projections of queries and values of the main tower, by the biases that they have.

    Where they have none, by those they would have.
    """
    from beftkit.checkpoints.live import LiveCheckpoint

    checkpoint = LiveCheckpoint(model)
    there = [Tensor(name, one.dtype, one.shape) for name, one in checkpoint.tensors.items()]
    about = checkpoint.config, checkpoint.reference
    bare = {*recognise(there, *about).without_bias}
    there += [
        Tensor(f"{owner}.bias", one.dtype, one.shape[:1])
        for name, one in checkpoint.tensors.items()
        if (owner := name.removesuffix(".weight")) != name
        and re.sub(r"(?<=\.)\d+(?=\.)", "*", owner) in bare
    ]
    found = [site for site in recognise(there, *about).sites if site.role in _ROLES]
    tower = choose_tower([site.tower for site in found], None)[0] if found else ""
    found = [site for site in found if in_tower(site.tower, tower)]
    if {site.role for site in found} != {*_ROLES}:
        raise BeftError(
            f"--peft=lora: the projections of queries and values of this {type(model).__name__} "
            "are not known; a LoRA is put on those"
        )
    return found


def _widths(module: Any, name: str) -> tuple[int, int]:
    """How many inputs and outputs a projection has."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if type(module) is Conv1D:
        inner, outer = module.weight.shape
        return int(inner), int(outer)
    raise BeftError(
        f"--peft=lora: the projections in {name} ({type(module).__name__}) are no Linear layers of "
        "their own, and a LoRA is put on such; expected another model, or --bias"
    )


def _wrapped(name: str) -> str:
    """The name of a head's parameter once PEFT has put its own copy of that head in."""
    module, _, rest = name.partition(".")
    return f"{module}.modules_to_save.{_NAME}.{rest}"


class LoraTuner(Tuner):
    """Puts a LoRA into a model, and trains that and a head alone.

    Args:
        model: the model, on its device already.
        choice: of `choose_lora`.
        device: where float32 copies live.
        task_type: PEFT's ``SEQ_CLS``, ``CAUSAL_LM``, ...
        fresh: the model's parameters that its checkpoint lacked; they travel with the adapter.
        seed: of the matrices A; B begins at zero.
    """

    def __init__(
        self,
        model: Any,
        choice: Choice,
        device: Any,
        *,
        task_type: str,
        fresh: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        import peft
        import torch
        from transformers.pytorch_utils import Conv1D

        suffix = f".lora_A.{_NAME}.weight"
        owners = [
            part.parameter.removesuffix(suffix)
            for part in choice.parts
            if part.parameter.endswith(suffix)
        ]
        modules = dict(model.named_modules())
        heads = {name.partition(".")[0] for name in head_names(model)}
        beside = {name.rpartition(".")[0] for name in fresh if name.partition(".")[0] not in heads}
        config = peft.LoraConfig(
            task_type=task_type,
            r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            target_modules=_endings(owners, modules),
            modules_to_save=sorted(heads | beside) or None,
            fan_in_fan_out=type(modules[owners[0]]) is Conv1D,
        )
        self._model = model
        with torch.random.fork_rng(devices=[]), quiet(), warnings.catch_warnings():
            # It asks transformers by a name that is to go.
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(seed)
            self._peft: Any = peft.get_peft_model(model, config)
        model.eval()
        super().__init__(model, choice, device)

    def save(self, folder: Path, base: str, revision: str | None, said: Mapping[str, str]) -> None:
        """Have PEFT write the adapter into a folder, then put words into its header.

        Values that train apart from a half-precision parameter are written as they train, float32.

        Args:
            folder: empty.
            base: the model that was trained, as ``from_pretrained`` takes it.
            revision: of the base.
            said: text for the header.

        Raises:
            BeftError: a value is not finite.
        """
        from safetensors.torch import load_file, save

        config = self._peft.peft_config[_NAME]
        config.base_model_name_or_path, config.revision = base, revision
        with quiet():
            # Its look for tables of tokens that grew would ask the hub.
            self._peft.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's card is a form to fill in
        tensors = load_file(folder / WEIGHTS_NAME)
        tensors |= {_stored(unit): self.after(unit) for unit in self.units if unit.is_copy}
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise BeftError(f"{name} holds NaN or infinity; no adapter was written")
        written = stable_header(save(tensors, metadata={**said, "format": "pt"}))
        (folder / WEIGHTS_NAME).write_bytes(written)
        plain = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        for key in ("target_modules", "modules_to_save"):  # sets, in no order
            plain[key] = sorted({*plain[key]}) if plain[key] else plain[key]
        text = json.dumps(plain, indent=2, sort_keys=True)
        (folder / CONFIG_NAME).write_text(f"{text}\n", encoding="utf-8")

    def close(self) -> None:
        """Take the LoRA out of the model, which is the base again with its head as trained."""
        super().close()
        if self._peft is not None:
            self._peft.unload()
            self._peft = None
            # By this PEFT knows a model with a LoRA; whether it goes with that is its version's.
            vars(self._model).pop("peft_config", None)


def _endings(owners: list[str], modules: Mapping[str, torch.nn.Module]) -> list[str]:
    """The shortest names that PEFT finds these modules by and no others."""
    leaves = sorted({name.rpartition(".")[2] for name in owners})
    found = {name for name in modules if name.rpartition(".")[2] in leaves}
    return leaves if found == {*owners} else owners


def _stored(unit: Unit) -> str:
    """A parameter's name in PEFT's file."""
    words = unit.part.parameter.split(".")
    kept = [word for word in words if word not in ("modules_to_save", _NAME)]
    return ".".join(["base_model", "model", *kept])
