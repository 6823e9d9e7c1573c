"""`Track` on every backend: the scores of what has moved since the snapshot."""

from __future__ import annotations

import pytest
import torch

from beftkit.scores.statistics import metrics, pair_stats
from beftkit_kernels import Track
from tests.kernels_cases import as_numpy, randn

pytestmark = pytest.mark.usefixtures("poisoned")
Engine = tuple[str, str]
ROLES = {"0.q": "q", "0.m2": "m2", "1.q": "q", "1.m2": "m2", "2.q": "q"}


def vectors_on(device: str) -> dict[str, torch.Tensor]:
    """Five biases of two roles, one of them a strided slice, of three dtypes."""
    fused = randn(40, 2, seed=5, device=device)
    return {
        "0.q": torch.nn.Parameter(randn(16, seed=1, device=device)),
        "0.m2": torch.nn.Parameter(randn(67, seed=2, dtype="bfloat16", device=device)),
        "1.q": fused[:, 1],
        "1.m2": randn(64, seed=3, dtype="float16", device=device),
        "2.q": torch.zeros(9, device=device),
    }


def move(vectors: dict[str, torch.Tensor]) -> None:
    """One step of training: every vector changes in place."""
    with torch.no_grad():
        for seed, vector in enumerate(vectors.values()):
            vector.add_(0.3 * randn(*vector.shape, seed=50 + seed).to(vector))


def test_every_step(engine: Engine) -> None:
    backend, device = engine
    vectors = vectors_on(device)
    before = {name: as_numpy(vector).copy() for name, vector in vectors.items()}
    track = Track(vectors, ROLES, backend=backend)
    assert (track.names, track.roles) == (tuple(vectors), ("q", "m2"))
    assert track.step().tolist() == [0, 0]
    for _ in range(2):
        move(vectors)
        found = track.step()
        assert found is track.means
        ratios = [
            metrics(pair_stats(before[name][None], as_numpy(vector)[None]))["projection"][0]
            for name, vector in vectors.items()
        ]
        torch.testing.assert_close(
            track.ratios.cpu(), torch.tensor(ratios, dtype=torch.float64), rtol=1e-12, atol=0
        )
        assert ratios[4] == 1  # from zero
        wanted = [sum(ratios[::2]) / 3, sum(ratios[1::2]) / 2]
        assert found.tolist() == pytest.approx(wanted, rel=1e-12, abs=0)
        assert track.stats.shape == (5, 6)


def test_a_log(engine: Engine) -> None:
    """Rows of a log are filled in place; the log of a graph that is replayed, for one."""
    backend, device = engine
    vectors = vectors_on(device)
    track = Track(vectors, ROLES, backend=backend)
    log = torch.full((3, 2), float("nan"), dtype=torch.float64, device=device)
    for row in log:
        move(vectors)
        track.step(out=row)
    assert log.isfinite().all()
    assert log[0].tolist() != log[2].tolist()
    assert track.step().tolist() == log[2].tolist()
    with pytest.raises(ValueError, match=r"out is torch.float64 \[3, 2\]"):
        track.step(out=log)


def test_many_sites_of_a_role(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a program adds up at a time."""
    backend, device = engine
    count = 19
    if backend == "triton":
        from beftkit_kernels import projection

        monkeypatch.setattr(projection, "LANES", 8)
    vectors = {str(i): torch.ones(2, device=device) for i in range(count)}
    track = Track(vectors, dict.fromkeys(vectors, "q"), backend=backend)
    for i, vector in enumerate(vectors.values()):
        vector.copy_(torch.tensor([1.0, -1.0]) if i % 2 else torch.tensor([1.0, 1.0]))
    assert track.step().tolist() == [pytest.approx(9 / 19, rel=1e-14)]


def test_what_is_not_finite_stays_in_its_role(engine: Engine) -> None:
    backend, device = engine
    vectors = vectors_on(device)
    track = Track(vectors, ROLES, backend=backend)
    move(vectors)
    with torch.no_grad():
        vectors["1.m2"][3] = float("inf")
    q, m2 = track.step().tolist()
    assert q == q and m2 != m2


def test_a_vector_that_moved_is_not_read(engine: Engine) -> None:
    backend, device = engine
    vectors = vectors_on(device)
    track = Track(vectors, ROLES, backend=backend)
    vectors["0.q"].data = torch.ones(16, device=device)
    with pytest.raises(ValueError, match=r"0\.q has moved in memory"):
        track.step()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"no role for 1.q, 1.m2"):
        Track(vectors_on("cpu"), {"0.q": "q", "0.m2": "m2", "2.q": "q"})
    with pytest.raises(TypeError, match=r"torch.int64; expected"):
        Track({"a": torch.ones(2).long()}, {"a": "q"})
    assert Track({}, {}).step().shape == (0,)
