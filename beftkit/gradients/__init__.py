"""The empirical Fisher of bias terms, from per-example gradients at the true labels.

Not called ``fisher``: that is the public function (`beftkit.fisher`), and a module of its name
would take its place.
"""

from beftkit.gradients.batch_mean import batch_mean_squares
from beftkit.gradients.exact import Squares, example_squares
from beftkit.gradients.losses import Losses, negative_log_likelihoods
from beftkit.gradients.rows import AnyBatch, as_batch
from beftkit.gradients.tables import Measured, fisher_scores, sites_of

__all__ = [
    "AnyBatch",
    "Losses",
    "Measured",
    "Squares",
    "as_batch",
    "batch_mean_squares",
    "example_squares",
    "fisher_scores",
    "negative_log_likelihoods",
    "sites_of",
]
