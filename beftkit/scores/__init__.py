"""Statistics of bias changes, the scores made of them, ranking and target. Pure numpy."""

from beftkit.scores.ranking import (
    DEFAULT_CANDIDATES,
    FIGURES,
    METHODS,
    best_first,
    choose_target,
    combine_inert,
    contenders,
    rank_roles,
    unmeasured,
)
from beftkit.scores.results import (
    Coverage,
    FisherFacts,
    Identity,
    Inert,
    RoleScore,
    Scores,
    SiteScore,
    document,
    post_labels,
)

__all__ = [
    "DEFAULT_CANDIDATES",
    "FIGURES",
    "METHODS",
    "Coverage",
    "FisherFacts",
    "Identity",
    "Inert",
    "RoleScore",
    "Scores",
    "SiteScore",
    "best_first",
    "choose_target",
    "combine_inert",
    "contenders",
    "document",
    "post_labels",
    "rank_roles",
    "unmeasured",
]
