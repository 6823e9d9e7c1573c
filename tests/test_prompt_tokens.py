"""Where an answer begins among a row's tokens, for every kind of tokenizer and every prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from beftkit.errors import BeftError
from beftkit.objectives.prompts import encode_prompts
from beftkit.tasks import Encoded
from beftkit.tasks.prompts import Prompted
from tests.causal_models import SPECIAL, byte_level, starting, wrapped
from tests.test_prompts import CASES, prompted

EXAMPLES = {name: prompted(name, case[0], case[1]) for name, case in CASES.items()}
CORPUS = [one.prompt + answer for one in EXAMPLES.values() for answer in one.answers] * 3
#: pieces of them: where a prompt ends and an answer begins, and what is between blanks
PIECES = [word for text in CORPUS for word in text.split()] + [
    one.prompt[-5:] + answer[:5] for one in EXAMPLES.values() for answer in one.answers * 5
]


def plain_bpe() -> Any:
    """Merges over blanks and line ends: whatever comes often becomes one token."""
    from tokenizers import Tokenizer, decoders, models, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(PIECES, trainer)
    return made


def metaspace_bpe(scheme: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def unigram(scheme: str | None, normalised: bool = False) -> Any:
    """``scheme`` None: no mark for blanks, which are letters like all others."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    if scheme is not None:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    else:
        made.decoder = decoders.Fuse()
    if normalised:  # as T5's: line ends become blanks, several blanks one
        made.normalizer = normalizers.Sequence(
            [normalizers.Replace("\n", " "), normalizers.Lowercase()]
        )
    trainer = trainers.UnigramTrainer(
        vocab_size=260, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def with_template(made: Any, *both: str) -> Any:
    made.post_processor = starting(*both)
    return made


def by_bytes() -> Any:
    """A tokenizer in Python, which tells no places; it puts </s> behind."""
    import transformers

    made = transformers.ByT5Tokenizer()
    assert not made.is_fast
    return made


MAKERS: dict[str, Callable[[], Any]] = {
    "byte-level": lambda: wrapped(byte_level(CORPUS, size=500)),
    "byte-level-bos": lambda: wrapped(byte_level(CORPUS, "<s>", size=500)),
    "bpe": lambda: wrapped(plain_bpe()),
    "bpe-bos-eos": lambda: wrapped(with_template(plain_bpe(), "<s>", "</s>")),
    "bpe-mark": lambda: wrapped(with_template(metaspace_bpe("first"), "<s>")),
    "unigram-mark": lambda: wrapped(unigram("always")),
    "unigram-mark-bos": lambda: wrapped(with_template(unigram("first"), "<s>")),
    "unigram-no-mark": lambda: wrapped(unigram("never")),
    "unigram-letters": lambda: wrapped(unigram(None)),
    "unigram-normalised-eos": lambda: wrapped(
        with_template(unigram("always", normalised=True), "<s>", "</s>")
    ),
    "bytes-in-python": by_bytes,
}
#: those that give back every character of a text
EXACT = {"byte-level", "byte-level-bos", "bpe", "bpe-bos-eos", "unigram-letters", "bytes-in-python"}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    made = MAKERS[request.param]()
    made.kind = request.param
    return made


def encoded(tokenizer: Any, *examples: Prompted, length: int = 10_000) -> Encoded:
    return encode_prompts(examples, [one.right[0] for one in examples], tokenizer, length)


def parts(found: Encoded) -> list[tuple[list[int], list[int]]]:
    """Of each row the ids before the answer, and the answer's."""
    assert found.answers is not None
    rows = [
        found.ids[begin:end].tolist()
        for begin, end in zip(found.starts, found.starts[1:], strict=False)
    ]
    counts = found.answers.tolist()
    return [(row[:-count], row[-count:]) for row, count in zip(rows, counts, strict=True)]


def text_of(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def bare(text: str) -> str:
    return "".join(text.split()).lower()


@pytest.mark.parametrize("task", CASES)
def test_the_answer_comes_back_whole(tokenizer: Any, task: str) -> None:
    example = EXAMPLES[task]
    found = parts(encoded(tokenizer, example))
    for answer, (before, own) in zip(example.answers, found, strict=True):
        whole = tokenizer(example.prompt + answer)["input_ids"]
        assert before + own == [*whole[: len(before + own)]]
        assert {*whole[len(before + own) :]} <= {tokenizer.eos_token_id}  # nothing but an end
        assert own and before
        exact = tokenizer.kind in EXACT
        said = text_of(tokenizer, own)
        assert said.endswith(answer) if exact else bare(said).endswith(bare(answer))
        # and not more than the token that holds the border
        rest = text_of(tokenizer, own[1:])
        assert len(rest) < len(answer) if exact else len(bare(rest)) <= len(bare(answer))
        assert bare(example.prompt).startswith(bare(text_of(tokenizer, before)))


def test_a_token_over_the_border_is_the_answers() -> None:
    """Cutting at the prompt's own count of tokens leaves the answer empty here."""
    tokenizer = MAKERS["bpe"]()
    example = EXAMPLES["multirc"]
    shared = [
        answer for answer, (before, own) in zip(
            example.answers, parts(encoded(tokenizer, example)), strict=True
        ) if len(text_of(tokenizer, own)) > len(answer)
    ]  # fmt: skip
    assert shared
    alone = len(tokenizer(example.prompt)["input_ids"])
    rows = [tokenizer(example.prompt + answer)["input_ids"] for answer in example.answers]
    assert min(len(row) - alone for row in rows) <= 0


def test_places_that_are_wrong_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = MAKERS["byte-level"]()
    wanted = parts(encoded(tokenizer, EXAMPLES["rte"]))
    call = type(tokenizer).__call__

    def shifted(self: Any, *given: Any, **options: Any) -> Any:
        made = call(self, *given, **options)
        if "offset_mapping" in made:
            made["offset_mapping"] = [[(0, 0)] * len(one) for one in made["offset_mapping"]]
        return made

    monkeypatch.setattr(type(tokenizer), "__call__", shifted)
    assert parts(encoded(tokenizer, EXAMPLES["rte"])) == wanted


@pytest.mark.parametrize("kind", ["byte-level", "byte-level-bos"])
def test_a_prompt_is_cut_from_the_left(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    start = kind.endswith("bos")
    example = EXAMPLES["cb"]
    whole = parts(encoded(tokenizer, example))
    longest = max(len(before + own) for before, own in whole)
    cut = encoded(tokenizer, example, length=longest - 7)
    assert cut.truncated == 1
    for (before, own), (left, answer) in zip(whole, parts(cut), strict=True):
        assert answer == own
        assert left == before[:start] + before[start + 7 :]
    assert encoded(tokenizer, example, length=longest).truncated == 0


def test_answers_that_do_not_fit_are_named() -> None:
    tokenizer = MAKERS["byte-level-bos"]()
    fine = Prompted("It was", (" great",), (0,))
    long = Prompted("Well:", (" no", " a very long answer indeed, longer than all"), (0,))
    room = len(tokenizer(long.answers[1])["input_ids"])
    with pytest.raises(
        BeftError, match=r"example 2 of 2: its longest answer leaves no room.*max_l"
    ):
        encoded(tokenizer, fine, long, length=room)
    assert encoded(tokenizer, fine, long, length=room + 1).truncated == 1
    with pytest.raises(BeftError, match="example 1 of 1: no answers"):
        encoded(tokenizer, Prompted("It was", (), (0,)))
    with pytest.raises(BeftError, match="example 2 of 2: an empty answer"):
        encoded(tokenizer, fine, Prompted("It was", ("",), (0,)))
    with pytest.raises(BeftError, match="nothing stands before its answer"):
        encoded(MAKERS["byte-level"](), Prompted("", ("Yes",), (0,)))


@pytest.mark.parametrize("side", ["right", "left"])
def test_answers_in_a_batch(side: str) -> None:
    tokenizer = MAKERS["byte-level-bos"]()
    tokenizer.padding_side = side
    examples = [EXAMPLES[name] for name in ("record", "sst2", "cb")]
    found = encoded(tokenizer, *examples)
    batch = found.batch(torch.tensor([2, 0]))
    assert batch.index is not None and batch.index.tolist() == [0, 0, 0, 1, 1, 1]
    rows = parts(found)
    for at, (before, own) in enumerate([*rows[5:], *rows[:3]]):
        places = batch.inputs["answer_at"][at]
        assert batch.inputs["input_ids"][at][places[places >= 0]].tolist() == own
        read = batch.inputs["attention_mask"][at].bool()
        assert batch.inputs["input_ids"][at][read].tolist() == before + own
