"""The empirical Fisher of bias terms, from per-example gradients at the true labels.

Not called ``fisher``: that is the public function (`beftkit.fisher`), and a module of its name
would take its place.
"""

from beftkit.fisher_sums.batch_mean import batch_mean_squares
from beftkit.fisher_sums.batches import AnyBatch, as_batch
from beftkit.fisher_sums.exact import Squares, example_squares
from beftkit.fisher_sums.losses import Losses, negative_log_likelihoods
from beftkit.fisher_sums.tables import Measured, fisher_scores, sites_of

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
