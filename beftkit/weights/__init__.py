"""Adapters and live models: put one on, and gather from a trained model what one must hold."""

from beftkit.weights.apply import AppliedAdapter, apply_adapter
from beftkit.weights.collect import collect_tuned
from beftkit.weights.info import AdapterInfo, adapter_info

__all__ = ["AdapterInfo", "AppliedAdapter", "adapter_info", "apply_adapter", "collect_tuned"]
