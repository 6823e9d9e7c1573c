"""Whether updates and passes are captured."""

from __future__ import annotations

from typing import Literal

from beftkit.settings.topics import Part, of_device


class GraphsPart(Part):
    """Launches of many kernels at once."""

    graphs: Literal["auto", "on", "off"] = of_device(
        "auto",
        "Capture updates, evaluations and measured batches as CUDA graphs, one for each of few "
        "widths: auto, on GPUs; on, on CPUs too, rounding widths alike with a stand-in; off: not.",
    )
