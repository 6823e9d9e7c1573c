"""Settings of a prompt of the user's own."""

from __future__ import annotations

from beftkit.settings.topics import Part, of_data


class TemplatePart(Part):
    """What a causal model is asked about the rows of the user's own files."""

    template: str | None = of_data(
        None,
        "A prompt over your own file's columns, such as '{text} It was', for a causal language "
        "model; \\n is a line feed. Needs --choices.",
    )
    choices: str | None = of_data(
        None,
        "The template's answers, one for each label: terrible,great for the labels in their order, "
        "or bad=terrible,good=great.",
    )
