"""Tokens and models that must fit each other: what to pad with, and where; lengths and tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from beftkit.errors import BeftError
from beftkit.models import Loaded
from beftkit.tasks import Encoded

#: models whose mask does not hide padding: convolutions, landmarks, hashes; a shifted last token
READ_PADDING = (
    *("canine", "convbert", "fnet", "mobilebert", "nystromformer", "t5gemma", "t5gemma2", "yoso"),
)
#: models whose decoder reads each text behind ``decoder_start_token_id``; mBART and PLBART turn the
#: last token to the front, T5Gemma has a start of its own
READ_START = ("bart", "bigbird_pegasus", "mt5", "mvp", "t5", "umt5")
#: entries of configurations that limit positions
_LIMITS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_decoder_position_embeddings",
)


def settle_padding(loaded: Loaded) -> None:
    """Have tokenizer and model agree on the pad token, and pad where the model is not disturbed.

    A decoder's head reads the last token that is not the configuration's pad token, so that has to
    be the one that rows are filled up with; and absolute positions count from the left, so rows
    are filled up on the right. XLNet's relative ones do not, and its head reads the last cell.

    Raises:
        BeftError: there is no token to pad with.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    configs = [model.config.get_text_config(), model.config]
    if tokenizer.pad_token_id is None:
        own = (
            one.pad_token_id for one in configs if getattr(one, "pad_token_id", None) is not None
        )
        known = (id for id in own if 0 <= id < len(tokenizer))
        token = next((tokenizer.convert_ids_to_tokens(id) for id in known), None)
        tokenizer.pad_token = token or tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise BeftError(f"{loaded.reference}: its tokenizer has no padding token and no end token")
    if not any(_counting(model)):  # else the model as saved would count its positions otherwise
        for one in configs:
            one.pad_token_id = tokenizer.pad_token_id
    last = getattr(model.config, "summary_type", None) == "last"
    tokenizer.padding_side = "left" if last and hasattr(model, "sequence_summary") else "right"


def most_tokens(loaded: Loaded, wanted: int) -> int:
    """The most tokens a row may have: what is wanted, or what tokenizer and model can hold."""
    config = loaded.model.config.get_text_config()
    said = [getattr(one, name, None) for one in (config, loaded.model.config) for name in _LIMITS]
    limits = [loaded.tokenizer.model_max_length, *said]
    # Those count positions from behind the pad token's id on.
    limits += [table.num_embeddings - pad - 1 for table, pad in _counting(loaded.model)]
    return min([wanted, *(int(one) for one in limits if isinstance(one, int | float) and one > 0)])


def fitted(loaded: Loaded, encoded: Encoded, where: str) -> Encoded:
    """The examples, which the model can take.

    Raises:
        BeftError: a token or token type beyond its tables, no start token for its decoder, or a
            row that its head cannot read.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    _check_start(loaded)
    try:
        tokens = model.get_input_embeddings()
    except NotImplementedError:  # CANINE hashes
        tokens = None
    if isinstance(tokens, nn.Embedding):
        highest = max(int(encoded.ids.max()), encoded.pad_id)
        if highest >= tokens.num_embeddings:
            raise BeftError(
                f"{loaded.reference}: token {tokenizer.convert_ids_to_tokens(highest)!r} is number"
                f" {highest}: the tokenizer has {len(tokenizer)} tokens, the model"
                f" {tokens.num_embeddings}; give the tokenizer it was trained with (--tokenizer)"
            )
    if encoded.type_ids is not None:
        highest = max(int(encoded.type_ids.max()), encoded.pad_type_id)
        for name, table in model.named_modules():
            known = table.num_embeddings if isinstance(table, nn.Embedding) else highest + 1
            if name.endswith("token_type_embeddings") and highest >= known:
                raise BeftError(
                    f"{loaded.reference}: the tokenizer has {highest + 1} token types, the model"
                    f" {known}; give the tokenizer it was trained with (--tokenizer)"
                )
    _check_ends(loaded, encoded, where)
    if (sparse := _made_dense(model)) is not None and int(encoded.lengths.max()) > sparse:
        note = (
            f"{type(model).__name__} attends fully: its sparse attention, of batches wider than"
            f" {sparse} tokens, reads padding, and a narrower batch switches it off for good; an"
            " exported or merged model still names it: load that with"
            ' attention_type="original_full" for the same answers'
        )
        encoded = replace(encoded, notes=(*encoded.notes, note))
    if model.config.model_type not in READ_PADDING:
        return encoded
    note = (
        f"{type(model).__name__} reads padding, whatever its mask: evaluation and Fisher put only"
        " rows of one length together; in training a row's loss depends on its batch"
    )
    return replace(encoded, by_length=True, notes=(*encoded.notes, note))


def _made_dense(model: nn.Module) -> int | None:
    """Have BigBird attend fully; the width up to which it would by itself, None: no BigBird.

    Its last block of tokens is seen by all, padding or not; and the first batch that is no wider
    switches every later one, so that what a row gives would depend on what came before.
    """
    config: Any = model.config
    if getattr(config, "attention_type", None) != "block_sparse":
        return None
    with torch.random.fork_rng(devices=[]):  # modules are made anew around the same parameters
        for module in list[Any](model.modules()):
            if hasattr(module, "set_attention_type"):
                module.set_attention_type("original_full")
    return int((5 + 2 * config.num_random_blocks) * config.block_size)


def _check_start(loaded: Loaded) -> None:
    config = loaded.model.config
    if config.model_type in READ_START and getattr(config, "decoder_start_token_id", None) is None:
        raise BeftError(
            f"{loaded.reference}: its configuration names no decoder_start_token_id, which"
            f" {type(loaded.model).__name__} puts before each text; add it to config.json (T5: 0)"
        )


def _check_ends(loaded: Loaded, encoded: Encoded, where: str) -> None:
    """Heads of encoder-decoders read the last end token, and want as many in every row."""
    config = loaded.model.config
    if not config.is_encoder_decoder or config.eos_token_id is None:
        return
    ends = torch.cat([torch.zeros(1).long(), (encoded.ids == config.eos_token_id).long().cumsum(0)])
    counts = ends[encoded.starts].diff()
    usual = int(counts.mode().values)
    found = (counts != usual).nonzero().flatten() if usual else torch.tensor([0])
    if len(found):
        row = int(found[0])
        token = loaded.tokenizer.convert_ids_to_tokens(config.eos_token_id)
        raise BeftError(
            f"{where}: example {row + 1} of {len(counts)} has {int(counts[row])} end tokens"
            f" ({token!r}), expected {usual or 1}, where {type(loaded.model).__name__} reads; take"
            " it out of the text" + ("" if usual else ", or give a tokenizer that adds one")
        )


def _counting(model: nn.Module) -> Iterator[tuple[nn.Embedding, int]]:
    """Tables of positions that are counted from the pad token's id on, with that id (RoBERTa)."""
    for module in model.modules():
        pad, table = (getattr(module, n, None) for n in ("padding_idx", "position_embeddings"))
        if isinstance(pad, int) and isinstance(table, nn.Embedding):
            yield table, pad
