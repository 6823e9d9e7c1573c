"""Work that is recorded once and replayed: CUDA graphs, and a stand-in for where there is no GPU.

A replay launches everything a call did at once, with no Python in between. It reads and writes the
very tensors the call did: new inputs are copied into the old ones, results lie where they lay. The
stand-in calls the function again and puts its results into the first ones, so code that is right
with it finds the same values with a graph; while it records it refuses what a graph cannot hold
(a value that the host waits for), so that falling back can be tested on the CPU.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: calls before the recording: what is made or chosen at a first call must not be recorded
WARMUPS = 3
#: operations whose results the host waits for, or whose shapes depend on values
_WAITING = (
    *("_local_scalar_dense", "item", "is_nonzero", "nonzero", "argwhere", "masked_select", "equal"),
    *("_unique2", "_unique", "unique_dim", "unique_consecutive"),
)


#: by number of the device, what is recorded on
_SIDES: dict[int, Any] = {}


class NotCaptured(RuntimeError):
    """The function does what a graph cannot hold; nothing of its recording is left."""


class Graph:
    """A recorded call.

    Attributes:
        result: what the call gave: the tensors that every replay writes anew.
    """

    def __init__(self, replay: Callable[[], None], result: Any) -> None:
        self._replay, self.result = replay, result

    def replay(self) -> Any:
        """Do it again with what its tensors hold now; returns `result`. On CUDA nothing waits."""
        self._replay()
        return self.result


class Pool:
    """Memory that graphs share which never run at the same time.

    A pool ends with its last graph, and an id used again after that is an internal error of torch's
    allocator; one in which a recording failed is not to be used either. So ids are given out here.

    Args:
        new: makes an id that was never used.
    """

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new, self._id = new, new()
        self._graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self._used = False

    @property
    def id(self) -> Any:
        """To record into now: the same while any graph of it lives, else another one."""
        if self._used and not len(self._graphs):
            self.leave()
        return self._id

    def add(self, graph: Graph) -> None:
        """Told of what was recorded into `id`."""
        self._graphs.add(graph)
        self._used = True

    def leave(self) -> None:
        """Record into another one from now on; what was recorded stays where it is."""
        self._id, self._used = self._new(), False
        self._graphs = weakref.WeakSet()


def capture(
    function: Callable[[], Any],
    *,
    device: torch.device,
    warmups: int = WARMUPS,
    pool: Pool | None = None,
) -> Graph:
    """Record a call of ``function``.

    The function is called ``warmups`` times for good before. On CUDA these run on a side stream and
    the recorded call does nothing yet; the stand-in's does: what a caller may not see done more
    often than asked for, it saves before and puts back after.

    Args:
        function: takes nothing; may give a tensor, or lists, tuples and dicts of them.
        device: where its tensors live; CUDA, or the stand-in.
        warmups: calls before the recording.
        pool: of `memory_pool`, shared by graphs that never run at the same time.

    Raises:
        NotCaptured: the host waits for a value in it, or else a graph cannot hold it.
    """
    pool = pool or memory_pool(device)
    try:
        graph = (
            _on_cuda(function, device, warmups, pool.id)
            if device.type == "cuda"
            else _stand_in(function, warmups, pool.id)
        )
    except BaseException:
        pool.leave()
        raise
    pool.add(graph)
    return graph


def memory_pool(device: torch.device) -> Pool:
    """Memory for graphs on a device; of the stand-in's nothing is shared."""
    import torch

    return Pool(torch.cuda.graph_pool_handle if device.type == "cuda" else _StandInPool)


def detach_from_past(leaves: Iterable[torch.Tensor]) -> None:
    """Let the next backward pass of these leaves have nothing of earlier ones.

    Autograd adds up a leaf's gradient in a node that knows the stream it was made on, and takes the
    same one as long as anything keeps it: a loss, a clone. Made on the default stream, it would end
    every recording. A leaf whose dtype changes gets a new one (torch's `set_data`); values, `grad`
    and hooks stay, and so does what an earlier graph does.
    """
    import torch

    for leaf in leaves:
        held = leaf.data
        other = torch.float32 if leaf.dtype == torch.float64 else torch.float64
        leaf.data = torch.empty(0, dtype=other, device=leaf.device)
        leaf.data = held


def kept_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Tensors that modules hold beside their parameters, also in lists and dicts, by place.

    Those that a forward pass makes anew would lie in a graph's memory, or leave it behind.
    """
    import torch

    owned, modules = ("_parameters", "_modules"), model.named_modules()
    held = {n: {k: v for k, v in vars(one).items() if k not in owned} for n, one in modules}
    found, seen = dict[str, torch.Tensor](), set[int]()  # a list may hold itself
    waiting: list[tuple[str, Any]] = [*held.items()]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            found[place] = value
        elif isinstance(value, list | tuple | dict) and id(value) not in seen:
            seen.add(id(value))
            parts: Any = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{place}.{key}", one) for key, one in parts]
    return found


def _on_cuda(function: Callable[[], Any], device: torch.device, warmups: int, pool: Any) -> Graph:
    import torch

    with torch.cuda.device(device):
        # One stream for all: what warm-ups leave in its memory the next ones find.
        side = _SIDES.setdefault(torch.cuda.current_device(), torch.cuda.Stream())
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for _ in range(warmups - 1):
                    function()
                # A recording that fails leaves traces, so what would fail is looked for before.
                for _ in range(min(warmups, 1)):
                    _tried(function)
        finally:  # what a caller puts back comes after what was begun
            torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        # A recording cannot take what is cached elsewhere, so where less is free, that goes back.
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        if torch.cuda.mem_get_info()[0] < cached:
            torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Not `torch.cuda.graph`: it gives all cached memory back first, for every width.
        with torch.cuda.stream(side), _uncollected():
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                result = function()
                graph.capture_end()
            except BaseException as error:
                _give_up(graph, device, pool)
                if not isinstance(error, Exception):  # Ctrl-C: the process goes on, in a notebook
                    raise
                raise NotCaptured(_line(error)) from error
        torch.cuda.current_stream().wait_stream(side)
    return Graph(graph.replay, result)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing is collected meanwhile: what frees memory or graphs would end a recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _tried(function: Callable[[], Any]) -> None:
    """A call in which waiting for the device is an error.

    Raises:
        NotCaptured: it does.
    """
    import torch

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not see every wait, and says so
        torch.cuda.set_sync_debug_mode("error")
    try:
        with as_if_recording():
            function()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.set_sync_debug_mode(before)
        torch.cuda.synchronize()
        raise NotCaptured(_line(error)) from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def as_if_recording() -> Iterator[None]:
    """Have libraries take the way that they take while a stream records.

    Transformers, for one, looks then at no mask to see whether it could do without.
    """
    import torch

    def always() -> bool:
        return True

    before = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = always
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = before


def _give_up(graph: Any, device: torch.device, pool: Any) -> None:
    """End a recording that has failed; that is an error again, of which nothing is new.

    Left half done, it would leave the allocator waiting for this pool's recording to end, and the
    generator refusing every draw ("Offset increment outside graph capture").
    """
    import torch

    with suppress(RuntimeError):
        graph.capture_end()
    with suppress(RuntimeError, AttributeError, TypeError):
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    with suppress(RuntimeError):
        graph.reset()
    with suppress(RuntimeError):  # an error that was left behind is told once
        torch.cuda.synchronize()
    generator = torch.cuda.default_generators[device.index or torch.cuda.current_device()]
    with suppress(RuntimeError):
        generator.graphsafe_set_state(generator.clone_state())
    torch.cuda.synchronize()


class _StandInPool:
    """Shares nothing, and ends with its last graph, as CUDA's do."""

    def __init__(self) -> None:
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self.used = False

    def add(self, graph: Graph) -> None:
        self.graphs.add(graph)
        self.used = True


def _stand_in(function: Callable[[], Any], warmups: int, pool: _StandInPool) -> Graph:
    if pool.used and not len(pool.graphs):
        raise RuntimeError("the pool has ended with its last graph")
    with as_if_recording():
        for _ in range(warmups):
            function()
        with _refusing():
            result = function()

    def replay() -> None:
        with as_if_recording():
            _copy(result, function())

    graph = Graph(replay, result)
    pool.add(graph)
    return graph


def _refusing() -> Any:
    """A mode in which an operation that no graph can hold is an error."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Refusing(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func.overloadpacket.__name__
            by_mask = name in ("index", "index_put", "index_put_") and any(
                one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
            )
            if name in _WAITING or by_mask:
                raise NotCaptured(f"{name}: the host waits for its result")
            return func(*args, **(kwargs or {}))

    mode: Any = Refusing
    return mode()


def _copy(held: Any, found: Any) -> None:
    """Put tensors where the recorded call's lie."""
    if isinstance(held, dict):
        for key, one in held.items():
            _copy(one, found[key])
    elif isinstance(held, list | tuple):
        for one, other in zip(held, found, strict=True):
            _copy(one, other)
    elif hasattr(held, "copy_") and held is not found:
        held.detach().copy_(found.detach())


def _line(error: Exception) -> str:
    """The first line of what CUDA says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
