"""The gate of a survey under a clock of its own: what is granted is used, and nothing refused."""

from __future__ import annotations

import math
import threading
from email.utils import formatdate
from itertools import pairwise
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

from beftkit.checkpoints.manner import asked_wait, parse_rate
from beftkit.errors import BeftError
from beftkit.surveys.gate import Gate, Stopped

HUB = "https://hub.example"
FILE = f"{HUB}/o/m/resolve/main/model.safetensors"


class Clock:
    """Time that goes by when somebody waits."""

    def __init__(self) -> None:
        self.now, self.waited = 1000.0, 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waited += seconds


class Window:
    """A hub's fixed window on that clock, whose seconds are told as whole ones."""

    def __init__(
        self, clock: Clock, limit: int, length: int = 300, whole: Any = math.floor
    ) -> None:
        self.clock, self.limit, self.length, self.whole = clock, limit, length, whole
        self.used, self.ends, self.refused, self.windows = 0, 0.0, 0, 0

    def answer(self) -> tuple[int, dict[str, str]]:
        if self.clock.now >= self.ends:
            self.used, self.ends = 0, self.clock.now + self.length
            self.windows += 1
        granted = self.used < self.limit
        self.used += granted
        self.refused += not granted
        rest = self.whole(self.ends - self.clock.now)
        head = {"RateLimit": f'"resolvers";r={self.limit - self.used};t={rest}'}
        head["RateLimit-Policy"] = f'"fixed window";"resolvers";q={self.limit};w={self.length}'
        return (200 if granted else 429), head


def gate_of(clock: Clock, notes: list[str] | None = None) -> Gate:
    note = (lambda text: None) if notes is None else notes.append
    return Gate(HUB, note=note, clock=clock, sleep=clock.sleep)


def ask(gate: Gate, hub: Window, took: float = 0.0) -> None:
    """One request, answered when it comes."""
    with gate.passage(FILE) as answered:
        hub.clock.now += took
        status, headers = hub.answer()
        url = SimpleNamespace(netloc=b"hub.example")
        answered(SimpleNamespace(status_code=status, headers=headers, url=url))


def send(gate: Gate, status: int, headers: dict[str, str], url: str = FILE) -> None:
    host = url.split("/")[2].encode()
    with gate.passage(url) as answered:
        answered(
            SimpleNamespace(status_code=status, headers=headers, url=SimpleNamespace(netloc=host))
        )


@pytest.mark.parametrize("whole", [math.floor, math.ceil])
@pytest.mark.parametrize("took", [0.0, 0.02, 0.4])
def test_what_is_granted_is_used_and_nothing_refused(whole: Any, took: float) -> None:
    """Against a window that is counted here. A request of 0.4 s alone cannot use up 10 a second."""
    clock = Clock()
    hub, gate = Window(clock, 3000, whole=whole), gate_of(clock)
    gate.expect(8000)
    begun = clock.now
    for _ in range(8000):
        ask(gate, hub, took)
    assert hub.refused == 0
    most = min(10.0, 1 / took if took else 10.0)
    assert 8000 / (clock.now - begun) > 0.9 * most


def test_what_fits_passes_at_once() -> None:
    clock = Clock()
    hub, gate = Window(clock, 3000), gate_of(clock)
    gate.expect(2500)
    for _ in range(2500):
        ask(gate, hub)
    assert clock.waited == 0 and not gate.scarce()
    gate.expect(501)
    assert gate.scarce() and gate.left() == (500, 3000, pytest.approx(300, abs=1.1))
    assert gate.seconds(400) == 0
    assert gate.seconds(3500) == pytest.approx(600, abs=2)


def test_they_are_spread_over_the_window() -> None:
    clock = Clock()
    hub, gate = Window(clock, 100, 100), gate_of(clock)
    gate.expect(1000)
    ask(gate, hub)
    times = []
    for _ in range(99):
        ask(gate, hub)
        times.append(clock.now)
    pauses = [b - a for a, b in pairwise(times)]
    assert max(pauses) < 1.5 and min(pauses[1:]) > 0.5, "one a second"


def test_others_use_up_the_same_grant() -> None:
    clock = Clock()
    hub, gate = Window(clock, 300), gate_of(clock)
    gate.expect(10_000)
    for number in range(600):
        ask(gate, hub)
        if number % 3 == 0:
            hub.used = min(hub.used + 1, hub.limit)
    assert hub.refused <= 1


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"RateLimit": '"resolvers";r=0;t=55'}, 55),
        ({"RateLimit": '"resolvers";r=0;t=55', "Retry-After": "5"}, 55),
        ({"RateLimit": '"resolvers";r=0;t=5', "Retry-After": "70"}, 70),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "date"}, 88),
        ({}, 1),
        ({"Retry-After": "soon", "RateLimit": "none"}, 1),
    ],
)
def test_after_a_refusal_everybody_waits_as_long_as_asked(
    headers: dict[str, str], least: float
) -> None:
    clock, notes = Clock(), []  # type: ignore[var-annotated]
    gate = gate_of(clock, notes)
    if headers.get("Retry-After") == "date":
        headers = {"Retry-After": formatdate(time() + 90, usegmt=True)}
    send(gate, 429, headers)
    begun = clock.now
    send(gate, 200, {})
    assert least <= clock.now - begun < least + 4 and gate.refused == 1
    assert ("the hub refuses more requests: waiting" in "".join(notes)) == (least > 5)


def test_refusals_under_way_at_once_count_as_one() -> None:
    clock = Clock()
    gate = gate_of(clock)
    with gate.passage(FILE) as first, gate.passage(FILE) as second, gate.passage(FILE) as third:
        for answered in (first, second, third):
            url = SimpleNamespace(netloc=b"hub.example")
            answered(SimpleNamespace(status_code=429, headers={}, url=url))
    begun = clock.now
    send(gate, 200, {})
    assert clock.now - begun < 3


def test_requests_under_way_are_not_granted_twice() -> None:
    """The first answer counts neither of the two that are still on their way."""
    gate = gate_of(Clock())
    headers = {"RateLimit": '"resolvers";r=9;t=100'}
    with gate.passage(FILE) as first, gate.passage(FILE), gate.passage(FILE):
        url = SimpleNamespace(netloc=b"hub.example")
        first(SimpleNamespace(status_code=200, headers=headers, url=url))
        left = gate.left()
    assert left is not None and left[0] == 7


def test_nobody_waits_for_hours() -> None:
    clock = Clock()
    gate = gate_of(clock)
    send(gate, 429, {"Retry-After": "7200"})
    with pytest.raises(BeftError, match="asks to wait for 2 h") as error:
        send(gate, 200, {})
    assert error.value.kind == "unreachable" and clock.waited == 0


def test_failures_in_a_row_slow_everybody_down() -> None:
    clock = Clock()
    gate = gate_of(clock)
    for _ in range(3):
        send(gate, 503, {})
    assert clock.waited == 0, "each is tried again by itself"
    for _ in range(5):
        send(gate, 503, {})
    assert clock.waited > 10
    send(gate, 200, {})
    begun = clock.now
    send(gate, 200, {})
    assert clock.now == begun


def test_stores_and_the_other_kind_pass() -> None:
    clock = Clock()
    gate = gate_of(clock)
    send(gate, 429, {"Retry-After": "60"})
    send(gate, 200, {}, url="https://store.example/signed")
    send(gate, 200, {}, url=f"{HUB}/api/models/o/m")
    assert clock.waited == 0


def test_who_waits_can_be_stopped() -> None:
    gate = Gate(HUB)
    send(gate, 429, {"Retry-After": "60"})
    said: list[str] = []

    def wait() -> None:
        try:
            send(gate, 200, {})
        except Stopped:
            said.append("stopped")

    thread = threading.Thread(target=wait)
    thread.start()
    gate.stop()
    thread.join(2)
    assert said == ["stopped"]
    with pytest.raises(Stopped):
        send(gate, 200, {}, url="https://store.example/signed")


def test_a_request_without_an_answer_gives_its_place_back() -> None:
    clock = Clock()
    gate = gate_of(clock)
    for _ in range(50):
        with pytest.raises(OSError, match="cut"), gate.passage(FILE):
            raise OSError("cut")
    send(gate, 200, {"RateLimit": '"resolvers";r=10;t=100'})
    assert gate.left() == (10, None, pytest.approx(101))


def test_rates_as_huggingface_hub_reads_them() -> None:
    """Its reader is the other one."""
    from huggingface_hub.utils import parse_ratelimit_headers

    policy = '"fixed window";"resolvers";q=3000;w=300'
    for headers in (
        {"RateLimit": '"resolvers";r=12;t=55', "RateLimit-Policy": policy},
        {"RateLimit": '"api"; r = 0 ; t = 7'},
        {"RateLimit": "nothing of it"},
        {},
    ):
        theirs, ours = parse_ratelimit_headers(headers), parse_rate(headers)
        assert (theirs is None) == (ours is None)
        if theirs is not None and ours is not None:
            assert (theirs.resource_type, theirs.remaining) == (ours.what, ours.left)
            assert (theirs.reset_in_seconds, theirs.limit) == (ours.seconds, ours.limit)
            assert theirs.window_seconds == ours.window


def test_waits_that_are_asked_for() -> None:
    rate = {"RateLimit": '"resolvers";r=0;t=55'}
    assert asked_wait(429, rate) == 55
    assert asked_wait(503, rate) == 0
    assert asked_wait(429, {"RateLimit": '"resolvers";r=3;t=55'}) == 0
    assert asked_wait(429, {**rate, "Retry-After": "7"}) == 7
    assert asked_wait(503, {"Retry-After": formatdate(time() - 90, usegmt=True)}) == 0
    for word in ("-5", "1e9", "٣", "9" * 400, "Thu, 32 Foo 2026 99:99:99 GMT"):
        assert asked_wait(429, {"Retry-After": word}) == 0
