"""Adapters and live models: put one on, and gather from a trained model what one must hold."""

from beftkit.adapters import AdapterInfo
from beftkit.weights.apply import AppliedAdapter, adapter_info, apply_adapter
from beftkit.weights.collect import collect_tuned

__all__ = ["AdapterInfo", "AppliedAdapter", "adapter_info", "apply_adapter", "collect_tuned"]
