"""Pair the sites of two checkpoints whose names may carry different prefixes."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from beftkit.biases.recognise import Recognition, Site

Pair = tuple[Site, Site]
_Key = tuple[str, tuple[int, ...], str, str, str]


def match_sites(
    pre: Sequence[Site], post: Sequence[Site]
) -> tuple[list[Pair], list[Site], list[Site]]:
    """Pair sites by stack, layer, attention and role.

    Returns:
        The pairs in the order of ``pre``, the sites only in ``pre``, those only in ``post``.
    """
    stacks = match_stacks({site.stack for site in pre}, {site.stack for site in post})
    # A prefix may hold an index of its own: as many indices count as the shorter path has.
    depth = {b: min(a.count("*"), b.count("*")) for a, b in stacks.items()}
    others = dict(zip(_keys(post, {}, depth), post, strict=True))
    pairs: list[Pair] = []
    only_pre: list[Site] = []
    for key, site in zip(_keys(pre, stacks, depth), pre, strict=True):
        other = others.pop(key, None)
        if other is None:
            only_pre.append(site)
        else:
            pairs.append((site, other))
    return pairs, only_pre, list(others.values())


def match_stacks(pre: set[str], post: set[str]) -> dict[str, str]:
    """Map stacks of PRE to those of POST: equal, else one the end of the other.

    A model is saved bare or inside a task model, compiled or wrapped: ``encoder.layer.*`` here is
    ``bert.encoder.layer.*`` there. Ambiguous stacks stay unmatched.
    """
    mapped = {stack: stack for stack in pre & post}
    left, right = pre - mapped.keys(), post - mapped.keys()
    tails = [(a, b) for a in left for b in right if _is_tail(a, b) or _is_tail(b, a)]
    times = Counter(stack for pair in tails for stack in pair)
    return mapped | {a: b for a, b in tails if times[a] == 1 and times[b] == 1}


def _is_tail(short: str, long: str) -> bool:
    return long.endswith(f".{short}")


def _keys(sites: Sequence[Site], stacks: dict[str, str], depth: dict[str, int]) -> list[_Key]:
    def key(site: Site, leaf: str) -> _Key:
        stack = stacks.get(site.stack, site.stack)
        indices = site.indices[-depth.get(stack, len(site.indices)) :]
        return stack, indices, site.attention, site.role, leaf

    times = Counter(key(site, "") for site in sites)
    return [key(site, site.leaf if times[key(site, "")] > 1 else "") for site in sites]


def bias_free(recognition: Recognition) -> str:
    """Say which attention projections have no bias, and what could be trained instead."""
    missing = ", ".join(recognition.without_bias[:6])
    left = f"{recognition.biases} other biases" if recognition.biases else "no bias at all"
    if not recognition.without_bias:
        return f"bias-free: no attention projection by a name known here, and {left}"
    could = f"zero biases could be added to {missing} and trained (--add-bias)"
    if recognition.sites:
        return f"without a bias: {missing}; {could}"
    return f"bias-free: no attention block has a bias ({left}); {could}"


def nearest_names(names: Iterable[str], count: int = 10) -> list[str]:
    """The names that look most like a q, k or v bias, one for each pattern of indices."""
    patterns: dict[str, str] = {}
    for name in names:
        pattern = ".".join("*" if part.isdigit() else part for part in name.split("."))
        patterns.setdefault(pattern, name)
    ideal = "layers.*.self_attn.query_key_value.q_proj.bias"
    unlikeness = {p: -difflib.SequenceMatcher(None, ideal, p).ratio() for p in patterns}
    nearest = sorted(patterns, key=unlikeness.__getitem__)[:count]
    return [shown if len(shown := patterns[p]) <= 80 else f"{shown[:77]}..." for p in nearest]
