"""Statistics of bias changes, the scores made of them, ranking and target. Pure numpy."""

from beftkit.scores.ranking import (
    DEFAULT_CANDIDATES,
    FIGURES,
    METHODS,
    Coverage,
    Inert,
    RoleScore,
    Scores,
    SiteScore,
    choose_target,
    combine_inert,
    document,
    post_labels,
    rank_roles,
)

__all__ = [
    "DEFAULT_CANDIDATES",
    "FIGURES",
    "METHODS",
    "Coverage",
    "Inert",
    "RoleScore",
    "Scores",
    "SiteScore",
    "choose_target",
    "combine_inert",
    "document",
    "post_labels",
    "rank_roles",
]
