"""Settings of a merge: what goes into what, and what comes along."""

from __future__ import annotations

from beftkit.settings.predict import ExportSettings
from beftkit.settings.topics import of_model


class MergeSettings(ExportSettings):
    """What is merged into what; the base is given."""

    trust_remote_code: bool = of_model(
        False,
        "Take the base's own Python files along, and run them where its classifier is asked for. "
        "Without it they are named and left out.",
    )
