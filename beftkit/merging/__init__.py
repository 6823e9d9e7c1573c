"""Adapters and live models: put one on, and gather from a trained model what one must hold."""

from beftkit.merging.apply import AppliedAdapter, apply_adapter
from beftkit.merging.collect import collect_tuned
from beftkit.merging.info import AdapterInfo, adapter_info

__all__ = ["AdapterInfo", "AppliedAdapter", "adapter_info", "apply_adapter", "collect_tuned"]
