"""Adapters and live models: put one on, gather what one must hold, add up and compare changes."""

from beftkit.adapters import AdapterInfo
from beftkit.weights.apply import AppliedAdapter, adapter_info, apply_adapter
from beftkit.weights.bank import BiasBank
from beftkit.weights.collect import collect_tuned
from beftkit.weights.comparing import compare
from beftkit.weights.cosines import CosineResult

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
