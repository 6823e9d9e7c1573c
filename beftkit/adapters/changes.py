"""A bias's change as float32, such that base + change gives the trained value to the last bit.

Adapters of PEFT keep changes, and merging adds them in float32, which rounds. The nearest float32
to post - pre may round to a neighbour of post; one of the two floats beside it may not. Where post
is much smaller than pre, or has the other sign, no float32 change reaches it: `storable` gives the
nearest value that can be reached, half a unit in the last place of the change away at most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def change(pre: Array, post: Array) -> Array:
    """The float32 change that takes ``pre`` to ``post``, exactly where there is one.

    Args:
        pre: values of the base, float32, any shape.
        post: values after training, float32, the same shape.

    Returns:
        float32: ``pre + change == post`` wherever some float32 does that, else the nearest to
        ``post - pre``.
    """
    pre, post = np.asarray(pre, np.float32), np.asarray(post, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = (post.astype(np.float64) - pre).astype(np.float32)
        result = nearest
        for towards in (np.inf, -np.inf):
            beside = np.nextafter(nearest, np.float32(towards))
            better = (pre + result != post) & (pre + beside == post)
            result = np.where(better, beside, result)
    return result


def storable(pre: Array, post: Array) -> Array:
    """The value nearest to ``post`` that ``pre`` plus a float32 change can give.

    A trained bias that is set to this is kept by the formats ``beft`` and ``lora`` to the last bit:
    ``pre + change(pre, storable(pre, post)) == storable(pre, post)``.

    Args:
        pre: values of the base, float32, any shape.
        post: values after training, float32, the same shape.

    Returns:
        float32, the same shape.
    """
    reached: Array = np.asarray(pre, np.float32) + change(pre, post)
    return reached
