"""Which tower of several a score is about."""

from __future__ import annotations

from collections.abc import Sequence

from beftkit.errors import BeftError


def choose_tower(towers: Sequence[str], wanted: str | None) -> tuple[str, list[str]]:
    """Settle on one tower of several.

    Args:
        towers: the towers of all sites, one entry a site.
        wanted: what the user asked for, or None for the main one: text if there is any, else the
            tower with most sites.

    Returns:
        The name that `in_tower` takes, and a note where there was a choice.
    """
    names = sorted(set(towers))
    if wanted is not None:
        if wanted != "all" and not any(in_tower(name, wanted) for name in names):
            raise BeftError(f"tower {wanted!r}: expected one of {', '.join([*names, 'all'])}")
        return wanted, []
    modalities = {name.split(".")[0].split(":")[0] for name in names}
    if len(modalities) == 1:
        return modalities.pop(), []
    sizes = {one: sum(in_tower(name, one) for name in towers) for one in sorted(modalities)}
    main = "text" if "text" in sizes else max(sizes, key=lambda one: sizes[one])
    rest = ", ".join(f"{one} ({size} sites)" for one, size in sizes.items() if one != main)
    return main, [f"scored the {main} tower; also there: {rest}; choose with --tower"]


def in_tower(name: str, wanted: str) -> bool:
    """Whether a site's tower belongs to the one asked for (``text`` holds ``text.encoder``)."""
    return wanted == "all" or name == wanted or name.startswith((f"{wanted}.", f"{wanted}:"))
