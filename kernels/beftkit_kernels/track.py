"""Scores of the current parameters against a snapshot, kept on the device.

Letters: V vectors, D bias length, K roles.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .pairs import Pairs, check_out
from .reference import COLUMNS, projection_ratio, role_means


class Track:
    """How far each role has moved since the snapshot, step by step: the mean projection ratio.

    `step` neither allocates (with Triton) nor waits for the device, so it can be recorded in a CUDA
    graph and called on every step of a training. Two launches: all sums, then all means. It writes
    to the same memory each time: copy what is to be kept, or pass ``out``.

    Args:
        vectors: V named tensors of any float dtypes, copied now and read anew by each step; they
            have to be changed in place, as optimisers do.
        roles: the role of each name.
        backend: as in `Pairs`.

    Attributes:
        names: V names, in order.
        roles: K roles, in the order of their first vector.
        stats: ``[V, 6]``, what the last step reduced, columns as in `COLUMNS`.
        ratios: ``[V]``, the projection ratio of each vector at the last step.
        means: ``[K]``, the mean of each role at the last step, unless that was given ``out``.

    Raises:
        TypeError: something else than float tensors.
        ValueError: a vector without a role, several devices, or Triton is not there.

    Example:
        >>> bias = torch.tensor([1.0, 0.0])
        >>> track = Track({"layer.0.q.bias": bias}, {"layer.0.q.bias": "q"})
        >>> bias.copy_(torch.tensor([0.0, 1.0]))
        tensor([0., 1.])
        >>> track.roles, track.step().tolist()
        (('q',), [1.0])
    """

    def __init__(
        self, vectors: Mapping[str, Tensor], roles: Mapping[str, str], *, backend: str = "auto"
    ) -> None:
        lacking = [name for name in vectors if name not in roles]
        if lacking:
            raise ValueError(f"no role for {', '.join(lacking)}")
        self.names = tuple(vectors)
        self.roles = tuple(dict.fromkeys(roles[name] for name in vectors))
        self._vectors = list(vectors.values())
        self._addresses = [vector.data_ptr() for vector in self._vectors]
        before = [vector.detach().clone() for vector in self._vectors]
        self._pairs = Pairs(before, self._vectors, backend=backend)
        self.backend, self.device = self._pairs.backend, self._pairs.device
        members = [
            [index for index, name in enumerate(self.names) if roles[name] == role]
            for role in self.roles
        ]
        self._members = [torch.tensor(which, device=self.device) for which in members]
        ends = torch.tensor([0, *map(len, members)]).cumsum(0)
        self._firsts = ends.to(self.device)
        self._order = torch.cat([*self._members, self._firsts.new_empty(0)])
        count, like = len(self.names), torch.zeros(0, dtype=torch.float64, device=self.device)
        self.stats = like.new_zeros((count, len(COLUMNS)))
        self.ratios = like.new_zeros(count)
        self.means = like.new_zeros(len(self.roles))

    def step(self, out: Tensor | None = None) -> Tensor:
        """Score the vectors as they are now.

        Args:
            out: ``[K]`` float64 on the device, such as one row of a log, to fill in place of
                `means`.

        Returns:
            ``[K]``: `means` or ``out``.

        Raises:
            ValueError: a vector lies elsewhere than when the snapshot was taken.
        """
        for name, vector, address in zip(self.names, self._vectors, self._addresses, strict=True):
            if vector.data_ptr() != address:
                raise ValueError(f"{name} has moved in memory since the snapshot; track it anew")
        means = self.means if out is None else out
        check_out(means, self.means.shape, self.device)
        self._pairs.stats(out=self.stats)
        if self.backend == "triton":
            from .projection import role_means as launch

            launch(self.stats, self._order, self._firsts, self.ratios, means)
        elif self.roles:
            self.ratios.copy_(projection_ratio(self.stats))
            means.copy_(role_means(self.ratios, self._members))
        return means
