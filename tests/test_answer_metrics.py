"""How right answers are, against figures worked by hand and other ways to compute them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from sklearn import metrics as judge

from beftkit.errors import BeftError
from beftkit.registry import TASKS
from beftkit.tasks import METRIC_NAMES
from beftkit.tasks.answer_metrics import (
    CHOSEN_METRICS,
    WRITTEN_METRICS,
    drop_em,
    drop_f1,
    drop_plain,
    exact_match,
    measure_chosen,
    measure_written,
    plain,
    token_f1,
)
from beftkit.tasks.prompts import Prompted, prompted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Denver Broncos!", "denver broncos"),
        ("  a  U.S.-led\tforce\n", "usled force"),
        ("An apple, the pear and a fig.", "apple pear and fig"),
        ("theatre anthem banana", "theatre anthem banana"),
        ("3.5%", "35"),
        ("\u00a3 \u2013 caf\u00e9", "\u00a3 \u2013 caf\u00e9"),
        ("l'\u00c9t\u00e9", "l\u00e9t\u00e9"),
        ("the", ""),
        ("a-the", "athe"),
        ("the_cat", "thecat"),
    ],
)
def test_plain_as_squad_has_it(text: str, wanted: str) -> None:
    """Lower case first, then no ASCII punctuation, then no articles, then single blanks."""
    assert plain(text) == wanted


#: answer, right answers, exact match, F1: by hand
SQUAD: list[tuple[str, list[str], int, Fraction]] = [
    ("the Broncos", ["Broncos!"], 1, Fraction(1)),
    ("Denver Broncos", ["Broncos"], 0, Fraction(2, 3)),
    ("Denver Broncos", ["Carolina", "Denver Broncos team"], 0, Fraction(4, 5)),
    ("two two cats", ["two cats cats"], 0, Fraction(2, 3)),  # bags, not sets: 2 of 3 and 3
    ("b c", ["c b"], 0, Fraction(1)),
    ("x", ["y", "z"], 0, Fraction(0)),
    ("", ["x"], 0, Fraction(0)),
    ("the", ["a"], 1, Fraction(0)),  # both empty: a match without a shared word
    ("x", [], 0, Fraction(0)),
    ("in 1999 and 2001", ["1999", "1999, 2001"], 0, Fraction(2, 3)),
]


@pytest.mark.parametrize("case", SQUAD, ids=str)
def test_squad_by_hand(case: tuple[str, list[str], int, Fraction]) -> None:
    answer, gold, match, f1 = case
    assert exact_match(answer, gold) == match
    assert token_f1(answer, gold) == pytest.approx(float(f1), abs=1e-15)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The 12.0 persons", "12.0 persons"),
        ("12", "12.0"),
        ("1.2e1", "12.0"),
        ("5,000", "5000.0"),  # no number with its comma, one without
        ("$5", "5.0"),
        ("3.5%", "35.0"),  # the same: its point is punctuation before it is a number
        ("-7", "7.0"),  # a hyphen parts words
        ("twenty-one", "twenty one"),
        ("A. B. Smith", "b smith"),
        ("un\u2014deux", "un\u2014deux"),
        ("a", ""),
        ("x\ty", "x y"),
        ("inf", "inf"),
    ],
)
def test_plain_as_drop_has_it(text: str, wanted: str) -> None:
    assert drop_plain(text) == wanted


#: answer's spans, right answer's spans, exact match, F1: by hand from the published definition
DROP: list[tuple[list[str], list[str], int, float]] = [
    (["16"], ["16.0"], 1, 1.0),
    (["Smith John"], ["the John Smith"], 0, 1.0),  # sets of words
    (["30-yard"], ["30 yard"], 1, 1.0),
    (["30"], ["30-yard"], 0, 0.67),  # 2 * 1 * 1/2 / (3/2)
    (["yard"], ["30 yard line"], 0, 0.0),  # none of its numbers
    (["31 yards"], ["30 yards"], 0, 0.0),
    (["30 yards"], ["yards"], 0, 0.67),  # numbers of the answer alone do no harm
    (["30 metres"], ["30 yd"], 0, 0.5),
    (["ann"], ["ann", "ann"], 0, 0.5),  # one pair, the other span has none
    (["ann", "ann"], ["ann"], 0, 0.5),
    (["bob", "ann"], ["ann", "bob"], 1, 1.0),  # whatever the order
    (["ann", "ann", "bob"], ["ann", "bob", "bob"], 1, 0.67),  # match: the same set, as many
    (["ann", "ann"], ["ann", "bob"], 0, 0.5),
    (["ann lee", "bob ray"], ["ann ray", "bob lee"], 0, 0.5),  # pairs, not one bag
    (["x", "y", "z"], ["z"], 0, 0.33),
    (["one two", "one"], ["one", "one two three"], 0, 0.9),  # (1 + 4/5) / 2
    (["", ""], ["x", "y"], 0, 0.0),
    ([], ["x"], 0, 0.0),
    (["u v w"], ["u v w x y z s", *"bcdefgh"], 0, 0.08),  # .6 / 8 = .075
]


@pytest.mark.parametrize("case", DROP, ids=str)
def test_drop_by_hand(case: tuple[list[str], list[str], int, float]) -> None:
    found, wanted, match, f1 = case
    assert (drop_em(found, [wanted]), drop_f1(found, [wanted])) == (match, f1)
    if len(found) == 1:
        assert (drop_em(found[0], [wanted]), drop_f1(found[0], [wanted])) == (match, f1)


def test_drop_takes_the_best_of_several_answers() -> None:
    bags = [["17 August"], ["August"], ["17"]]
    assert (drop_em("August", bags), drop_f1("August", bags)) == (1.0, 1.0)
    assert (drop_em("18", bags), drop_f1("18", bags)) == (0.0, 0.0)
    assert (drop_em("x", []), drop_f1("x", [])) == (0.0, 0.0)


def test_pairs_are_the_best_ones() -> None:
    """Against every way to pair spans one to one."""
    random.seed(5)
    words = ["red", "blue", "3", "4", "cat", "dog"]

    def spans() -> list[str]:
        drawn = (random.choices(words, k=random.randint(1, 3)) for _ in range(random.randint(1, 4)))
        return [" ".join(one) for one in drawn]

    def pair(found: str, wanted: str) -> Fraction:
        a, b = ({f"{w}.0" if w.isdigit() else w for w in one.split()} for one in (found, wanted))
        numbers = {one for one in b if one[0].isdigit()}
        return (
            Fraction(2 * len(a & b), len(a) + len(b)) if not numbers or numbers & a else Fraction(0)
        )

    several = 0
    for _ in range(200):
        found, wanted = spans(), spans()
        longer = max(len(found), len(wanted))
        filled = [*found, *[None] * (longer - len(found))]
        best = max(
            sum((pair(one, other) for one, other in zip(order, wanted, strict=False) if one),
                Fraction(0))
            for order in permutations(filled)
        )  # fmt: skip
        several += len(found) > 1 and len(wanted) > 1
        assert drop_f1(found, [wanted]) == float(np.round(float(best / longer), 2))
    assert several > 50


def test_written_answers() -> None:
    asked = [
        Prompted("q", (" 3\n",), (0,), ("3", "three"), (("3",), ("three",))),
        Prompted("q", (" x\n",), (0,), ("x", "y"), (("x", "y"),)),
    ]
    found = measure_written(
        ["token_f1", "exact_match", "drop_f1", "drop_em"], [" 3.0 ", "x"], asked
    )
    # SQuAD's 3.0 is 30; its right answer x stands alone. DROP's 3.0 is 3; x is one of two spans.
    assert found == {"token_f1": 0.5, "exact_match": 0.5, "drop_f1": 0.75, "drop_em": 0.5}
    with pytest.raises(
        BeftError, match="metric='accuracy': for written answers expected token_f1,"
    ):
        measure_written(["accuracy"], ["x", "y"], asked)
    for given in ([], ["x"]):
        with pytest.raises(BeftError, match=f"{len(given)} answers for 2 examples: no metric"):
            measure_written(["token_f1"], given, asked)
    with pytest.raises(BeftError, match="0 answers for 0 examples"):
        measure_written(["token_f1"], [], [])


def test_any_right_entity_counts() -> None:
    row = {"passage": "p", "query": "@placeholder", "entities": ["A", "B", "C"]}
    asked = [prompted("record", {**row, "answers": one}) for one in (["C", "A"], ["B"], ["C"])]
    assert measure_chosen(["accuracy"], [2, 1, 0], asked) == {"accuracy": 2 / 3}
    assert measure_chosen(["accuracy"], [0, 1, 2], asked) == {"accuracy": 1.0}


def multirc(labels: list[int], groups: Sequence[str]) -> list[Prompted]:
    texts = {"paragraph": "p", "question": "q", "answer": "a"}
    return [
        prompted("multirc", {**texts, "group": group}, label)
        for label, group in zip(labels, groups, strict=True)
    ]


def test_multirc() -> None:
    labels, chosen = [1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 0]
    asked = multirc(labels, "aabbcd")
    found = measure_chosen(["accuracy", "multirc_f1a", "multirc_em"], chosen, asked)
    assert found == {
        "accuracy": pytest.approx(4 / 6),
        "multirc_f1a": pytest.approx(judge.f1_score(labels, chosen)),
        "multirc_em": 0.5,  # a and d
    }
    with pytest.raises(BeftError, match="multirc_em: it is not known which answers are of one"):
        measure_chosen(["multirc_em"], chosen, [*asked[:-1], *multirc([0], [""])])


def test_choices_of_classes_have_the_metrics_of_classes() -> None:
    asked = [prompted("cb", {"premise": "p", "hypothesis": "h"}, i) for i in (0, 1, 2, 2)]
    found = measure_chosen(["accuracy", "macro_f1"], [0, 1, 1, 2], asked)
    wanted = judge.f1_score([0, 1, 2, 2], [0, 1, 1, 2], average="macro")
    assert found == {"accuracy": 0.75, "macro_f1": pytest.approx(wanted)}
    with pytest.raises(BeftError, match="3 answers for 4 examples"):
        measure_chosen(["accuracy"], [0, 1, 2], asked)


def test_every_prompt_has_metrics_that_there_are() -> None:
    for task in TASKS.values():
        if task.prompt:
            chosen = {*CHOSEN_METRICS, *METRIC_NAMES}
            known = chosen if task.prompt.kind == "choice" else {*WRITTEN_METRICS}
            assert {*task.prompt.metrics} <= known
