"""The Accelerator of a run: device, precision and processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

from beftkit.errors import BeftError, UsageError, option
from beftkit.spelling import meant

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

_PRECISIONS = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(
    device: str | None = None,
    precision: str = "fp32",
    report_to: str = "none",
    folder: str | None = None,
) -> Accelerator:
    """An Accelerator for one run; several of one process may differ.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ...; None: an accelerator if there is one.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16``; never chosen by itself.
        report_to: trackers, with commas between them, or ``none``.
        folder: where trackers that write files write them.

    Raises:
        BeftError: no such device here, or a precision or tracker that is not to be had.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    wanted = _check_device(device)
    # A process can hold several runs; Accelerate keeps the first one's device and precision.
    AcceleratorState._reset_state()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    alone = world == 1
    if alone:
        PartialState._reset_state()
    trackers = [name for name in report_to.replace(" ", "").split(",") if name and name != "none"]
    _check_trackers(trackers)
    before = os.environ.get("ACCELERATE_TORCH_DEVICE")
    if wanted is not None and alone:
        os.environ["ACCELERATE_TORCH_DEVICE"] = wanted
        if wanted.startswith("cuda"):
            torch.cuda.set_device(wanted)
    try:
        found = Accelerator(
            cpu=wanted == "cpu" or (wanted is None and not alone and not _connected()),
            mixed_precision=_PRECISIONS[precision],
            log_with=trackers or None,
            project_dir=folder,
        )
    except (ValueError, ImportError, RuntimeError) as error:
        said = " ".join(str(error).split())[:240]
        raise BeftError(
            f"{option('device', device or 'auto')}, {option('precision', precision)}, "
            f"{option('report_to', report_to)}: {said}"
        ) from None
    finally:
        if before is None:
            os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
        else:
            os.environ["ACCELERATE_TORCH_DEVICE"] = before
    if found.num_processes != world:
        raise BeftError(
            f"{option('device', device or 'auto')}: {world} processes were started, and Accelerate "
            f"connects {found.num_processes} of them there; give --device=cpu, or start one"
        )
    if precision == "tf32":
        _check_tf32(found.device, typed=wanted == "cpu")
        found.allow_tf32 = True
    elif precision != "fp32" and not found.native_amp:  # on CPUs it takes fp16 and ignores it
        kind = UsageError if wanted == "cpu" else BeftError  # both typed; or what is here
        raise kind(f"{option('precision', precision)}: needs a GPU; use bf16 or fp32")
    return found


def _connected() -> bool:
    """Whether processes here have devices that Accelerate connects; else each would be alone."""
    import torch

    # Apple's devices are none: there it starts no exchange.
    return torch.accelerator.is_available() and not torch.backends.mps.is_available()


def _check_trackers(names: list[str]) -> None:
    """Accelerate leaves a tracker out, with no word, whose package is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = sorted({"all", *LOGGER_TYPE_TO_CLASS})
    for name in names:
        if name not in known:
            expected = f"expected none or some of {', '.join(known)}{meant(name, known)}"
            raise UsageError(f"{option('report_to', name)}: {expected}")
    there = {str(one) for one in get_available_trackers()}
    by_accelerate = {str(one) for one in LoggerType}
    for name in names:
        if name in by_accelerate - there and name != "all":
            what = "its package is not installed here; install it"
            raise BeftError(f"{option('report_to', name)}: {what}")
    if "all" in names and not there:
        raise BeftError("--report-to=all: no tracker's package is installed here")


def _check_device(device: str | None) -> str | None:
    import torch

    if device is None:
        return None
    try:
        wanted = torch.device(device)
    except RuntimeError:
        known = ("cpu", "cuda", "mps")
        likely = meant(device, known, {"gpu": ("cuda",)})
        place = option("device", device)
        raise UsageError(f"{place}: expected cpu, cuda, cuda:1, mps, ...{likely}") from None
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (wanted.index or 0) >= count:
            raise BeftError(
                f"{option('device', device)}: asked for, but torch {torch.__version__} sees "
                f"{count} CUDA devices here; use --device=cpu, or a torch built for your GPU"
            )
        return f"cuda:{wanted.index or 0}"
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        what = "asked for, but not available here; use --device=cpu"
        raise BeftError(f"{option('device', device)}: {what}")
    return str(wanted)


def _check_tf32(device: torch.device, *, typed: bool) -> None:
    """TF32 is a mode of the matrix units of NVIDIA's GPUs; elsewhere it would be fp32, silently."""
    import torch

    if device.type != "cuda" or torch.version.hip:
        kind = UsageError if typed else BeftError
        raise kind(f"{option('precision', 'tf32')}: needs an NVIDIA GPU; use fp32 or bf16")
    if torch.cuda.get_device_capability(device) < (8, 0):
        card = torch.cuda.get_device_name(device)
        raise BeftError(f"{option('precision', 'tf32')}: {card} has no TF32; use fp32 or fp16")


def precision_of(accelerator: Accelerator) -> str:
    """``fp32``, ``tf32``, ``bf16`` or ``fp16``: what it computes in."""
    if getattr(accelerator, "allow_tf32", False):
        return "tf32"
    mixed = str(accelerator.mixed_precision)
    return "fp32" if mixed == "no" else mixed


@contextmanager
def arithmetic(accelerator: Accelerator) -> Iterator[None]:
    """What a run's calls of a model stand in: `steady_attention`, and TF32 where it was asked for.

    TF32 is off otherwise, in cuDNN too, where torch has it on by itself: what is called fp32 is
    fp32. The flags are of the whole process; they are the caller's again afterwards.
    """
    import torch

    with steady_attention(accelerator.device):
        if not _has_flags(accelerator.device):
            yield
            return
        # The newer names alone: read or set beside the older ones, these raise errors.
        backends: Any = torch.backends
        units = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        before = [unit.fp32_precision for unit in units]
        try:
            for unit in units:
                unit.fp32_precision = "tf32" if precision_of(accelerator) == "tf32" else "ieee"
            yield
        finally:
            for unit, former in zip(units, before, strict=True):
                unit.fp32_precision = former


@contextmanager
def steady_attention(device: torch.device) -> Iterator[None]:
    """Attention on CUDA without cuDNN's backend, which makes a plan for every new shape.

    torch prefers it for half precision on newer cards; where widths change from batch to batch its
    plans cost far more than they bring (BERT-base, 20 new widths: 473 ms a step, 36 ms without).
    Other devices: nothing changes, nor where the caller left cuDNN's alone on. The flags are of
    the whole process; they are the caller's again afterwards, also after an error.
    """
    if not _has_flags(device):
        yield
        return
    from torch.backends import cuda
    from torch.nn.attention import SDPBackend, sdpa_kernel

    others = {
        SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled(),
        SDPBackend.MATH: cuda.math_sdp_enabled(),
    }
    kept = [backend for backend, enabled in others.items() if enabled]
    if not kept or not cuda.cudnn_sdp_enabled():
        yield
        return
    with sdpa_kernel(kept):
        yield


def _has_flags(device: torch.device) -> bool:
    """Whether torch's flags of CUDA mean anything for this device."""
    return device.type == "cuda"


@contextmanager
def out_of_memory(advice: str) -> Iterator[None]:
    """Turn any device's lack of memory into one line, with what to lower."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        if not cpu and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise BeftError(f"out of memory {advice}") from None


def released(accelerator: Accelerator, model: ReferenceType[Any], *, last: bool) -> None:
    """Give back the memory of a run that is over.

    Args:
        accelerator: which keeps what it prepared.
        model: of the run.
        last: of the accelerator's. Rings of objects are then looked for only where they hold the
            model, as captured updates do: a look at everything there is takes .2 s.
    """
    from accelerate.utils.memory import clear_device_cache

    if last and model() is None:
        clear_device_cache()
    else:
        accelerator.free_memory()


def sum_over_processes(accelerator: Accelerator, tensors: list[Any]) -> None:
    """Add up float tensors over all processes in place, in one exchange.

    What trains is kilobytes: one flat vector a step takes the place of a wrapper around the model,
    which would want buckets, and every parameter to have a gradient on every process.
    """
    import torch

    if accelerator.num_processes == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    sums = accelerator.reduce(flat, reduction="sum").split([one.numel() for one in tensors])
    for tensor, total in zip(tensors, sums, strict=True):
        tensor.copy_(total.view_as(tensor))


def told_by_main(accelerator: Accelerator, call: Callable[[], Any]) -> Any:
    """What a call on the main process gives, or the error it meets there, on every process."""
    from accelerate.utils import broadcast_object_list

    told: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            told[0] = call()
        except BeftError as error:
            told[1] = error
    broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]


def check_weights(accelerator: Accelerator, model: Any) -> None:
    """Refuse weights that the arithmetic cannot be mixed with.

    Raises:
        BeftError: float16 weights under bf16 autocast on a CPU, whose norms take no such mixture.
    """
    import torch

    if accelerator.device.type != "cpu" or accelerator.mixed_precision != "bf16":
        return
    if any(one.dtype == torch.float16 for one in model.parameters()):
        raise BeftError(
            "--precision=bf16: on a CPU it does not go with weights in float16; give "
            "--dtype=bfloat16 or --dtype=float32, or leave --precision out"
        )
