"""The eleven prompts published with the BEFT paper's causal models, by task."""

from __future__ import annotations

from beftkit.registry.schema import Prompt

_NO_YES = ("No", "Yes")

SST2 = Prompt(text="{sentence} It was", answers=(" terrible", " great"), rule="sst2")
RTE = Prompt(
    text='{sentence1}\nDoes this mean that "{sentence2}" is true? Yes or No?\n',
    answers=("Yes", "No"),
)
CB = Prompt(
    text='Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n',
    answers=("Yes", "No", "Maybe"),
    metrics=("accuracy", "macro_f1"),
    lr=1e-2,
)
BOOLQ = Prompt(text="{passage} {question}\n", answers=_NO_YES, rule="boolq")
WSC = Prompt(
    text=(
        '{text}\nIn the previous sentence, does the pronoun "{span2_text}" refer to {span1_text}?'
        " Yes or No?\n"
    ),
    answers=_NO_YES,
    rule="wsc",
    lr=1e-2,
)
WIC = Prompt(
    text=(
        'Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n'
        "{sentence1}\n{sentence2}\n"
    ),
    answers=_NO_YES,
)
MULTIRC = Prompt(
    text=(
        '{paragraph}\nQuestion: {question}\nI found this answer "{answer}". Is that correct?'
        " Yes or No?\n"
    ),
    answers=_NO_YES,
    metrics=("accuracy", "multirc_f1a", "multirc_em"),
)
COPA = Prompt(
    text="{premise} {conjunction}",
    answers=(" {choice1}", " {choice2}"),
    rule="copa",
    columns=("premise", "question", "choice1", "choice2"),
    loss="right",
    lr=1e-4,
)
RECORD = Prompt(
    text="{passage}\n-",
    answers=(" {option}",),
    rule="record",
    columns=("passage", "query", "entities", "answers"),
    loss="right",
    lr=1e-4,
)
SQUAD = Prompt(
    text="Title: {title}\nContext: {context}\nQuestion: {question}\nAnswer:",
    answers=(" {answer}\n",),
    rule="squad",
    columns=("title", "context", "question", "answers"),
    kind="generation",
    metrics=("token_f1", "exact_match"),
)
DROP = Prompt(
    text="Passage: {passage}\nQuestion: {question}\nAnswer:",
    answers=(" {answer}\n",),
    rule="drop",
    columns=("passage", "question", "answers"),
    kind="generation",
    metrics=("token_f1", "drop_f1", "drop_em"),
)
