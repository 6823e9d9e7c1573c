"""Places that no model says anything of: the first of a row, and those that a shorter row lacks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from beftkit.objectives import language, make_objective
from beftkit.objectives.passages import encode_conversations
from beftkit.tasks import Batch
from beftkit.tasks.conversations import conversation
from tests import chats

#: the assistant's words alone, so that the first of them begin the row
_ANSWERS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}"
)


def test_the_first_token_is_never_learnt() -> None:
    turns = conversation(chats.turns("a dull film", "It was terrible"), "messages", "x:1")
    found = encode_conversations([turns], np.zeros(1), chats.tokenizer(_ANSWERS), 100)
    assert found.learnt is not None
    assert found.learnt.tolist() == [0, *[1] * (len(found.ids) - 1)]
    [at] = found.batch(torch.tensor([0])).inputs["answer_at"].tolist()
    assert at == [*range(1, len(found.ids))]


class Parrot(nn.Module):
    """Says at each place what stands there."""

    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=9))

    def get_output_embeddings(self) -> None:
        """There is none."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return SimpleNamespace(logits=9.0 * functional.one_hot(input_ids, 9))


def test_places_that_a_row_has_not_are_no_hits() -> None:
    ids = torch.tensor([[5, 6, 6], [5, 7, 0]])
    at = torch.tensor([[1, 2], [1, -1]])
    batch = Batch(
        {"input_ids": ids, "attention_mask": (ids > 0).long(), "answer_at": at}, torch.zeros(2)
    )
    losses, hits, counts = make_objective("language").outputs(Parrot(), batch).T
    assert hits.tolist() == [1, 0] and counts.tolist() == [2, 1]
    wrong = float(functional.cross_entropy(9.0 * torch.eye(9)[5], torch.tensor(6)))
    right = float(functional.cross_entropy(9.0 * torch.eye(9)[6], torch.tensor(6)))
    torch.testing.assert_close(losses, torch.tensor([wrong + right, wrong]))


def test_an_example_alone_has_room_for_all_of_its_answers() -> None:
    """Beside others it has, and there -inf fills up what it lacks."""
    objective = make_objective("choice")
    ids = torch.tensor([[5, 6], [5, 5], [5, 7], [5, 5]])
    at = torch.ones(4, 1, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "answer_at": at}
    alone = {name: one[:3] for name, one in inputs.items()}
    found = objective.outputs(Parrot(), Batch(alone, torch.tensor([1]), torch.tensor([0, 0, 0])))
    right = -float(functional.cross_entropy(9.0 * torch.eye(9)[5], torch.tensor(5)))
    torch.testing.assert_close(found, torch.tensor([[right - 9, right, right - 9]]))
    index = torch.tensor([0, 0, 0, 1])
    both = objective.outputs(Parrot(), Batch(inputs, torch.tensor([1, 0]), index))
    assert both.shape == (2, 3) and torch.equal(both[:1], found)
    torch.testing.assert_close(both[1], torch.tensor([right, -torch.inf, -torch.inf]))


@pytest.mark.parametrize("grads", [False, True])
def test_without_gradients_logits_stay_small(grads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows go through one after the other then; with gradients all are kept anyway."""
    seen: list[int] = []
    whole = Parrot.forward

    def forward(self: Parrot, input_ids: Any, attention_mask: Any) -> Any:
        seen.append(len(input_ids))
        return whole(self, input_ids, attention_mask)

    monkeypatch.setattr(Parrot, "forward", forward)
    monkeypatch.setattr(language, "_LOGITS", 2 * 9)  # two places of one row
    ids = torch.tensor([[5, 6, 6], [5, 7, 8], [5, 5, 5]])
    at = torch.tensor([[1, 2]] * 3)
    batch = Batch(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "answer_at": at}, torch.zeros(3)
    )
    with torch.set_grad_enabled(grads):
        found = make_objective("language").outputs(Parrot(), batch)
    assert seen == ([3] if grads else [1, 1, 1]) and found[:, 1].tolist() == [1, 0, 2]
