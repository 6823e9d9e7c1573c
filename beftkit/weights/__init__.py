"""Adapters and live models: put one on, gather what one must hold, add up and compare changes.

Names are handed on lazily: a merge of files needs none of what a live model needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beftkit.adapters import AdapterInfo as AdapterInfo
    from beftkit.weights.apply import AppliedAdapter as AppliedAdapter
    from beftkit.weights.apply import apply_adapter as apply_adapter
    from beftkit.weights.bank import BiasBank as BiasBank
    from beftkit.weights.collect import collect_tuned as collect_tuned
    from beftkit.weights.comparing import compare as compare
    from beftkit.weights.cosines import CosineResult as CosineResult
    from beftkit.weights.opening import adapter_info as adapter_info

_HOMES = {
    "AdapterInfo": "beftkit.adapters",
    "AppliedAdapter": "beftkit.weights.apply",
    "BiasBank": "beftkit.weights.bank",
    "CosineResult": "beftkit.weights.cosines",
    "adapter_info": "beftkit.weights.opening",
    "apply_adapter": "beftkit.weights.apply",
    "collect_tuned": "beftkit.weights.collect",
    "compare": "beftkit.weights.comparing",
}
__all__ = [
    "AdapterInfo",
    "AppliedAdapter",
    "BiasBank",
    "CosineResult",
    "adapter_info",
    "apply_adapter",
    "collect_tuned",
    "compare",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'beftkit.weights' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
