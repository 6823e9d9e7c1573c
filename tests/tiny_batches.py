"""Random inputs for the tiny models; one row of text is padded on the right.

Padding on the left would leave a causal query without any key: then softmax is over masked
entries alone, and no statement about biases holds there.
"""

from __future__ import annotations

from typing import Any

import torch

T = 7
Batch = dict[str, Any]


def _ids(config: Any, generator: torch.Generator, length: int = T) -> torch.Tensor:
    vocab_size = config.get_text_config().vocab_size
    return torch.randint(5, vocab_size, (2, length), generator=generator)


def _mask(length: int = T) -> torch.Tensor:
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, -2:] = 0
    return mask


def tokens(config: Any, generator: torch.Generator) -> Batch:
    """Text with padding."""
    return {"input_ids": _ids(config, generator), "attention_mask": _mask()}


def unpadded(config: Any, generator: torch.Generator) -> Batch:
    """Text for a forward that takes no mask of this kind."""
    return {"input_ids": _ids(config, generator)}


def cross(config: Any, generator: torch.Generator) -> Batch:
    """Text of a decoder with the states of some encoder, padded too."""
    states = torch.randn(2, T - 2, config.hidden_size, generator=generator)
    return {
        **tokens(config, generator),
        "encoder_hidden_states": states,
        "encoder_attention_mask": _mask(T - 2),
    }


def longformer(config: Any, generator: torch.Generator) -> Batch:
    """Text with one global token, so that the ``*_global`` projections are used."""
    attends = torch.zeros(2, T, dtype=torch.long)
    attends[:, 0] = 1
    return {**tokens(config, generator), "global_attention_mask": attends}


def seq2seq(config: Any, generator: torch.Generator) -> Batch:
    """Source and target text."""
    return {**tokens(config, generator), "decoder_input_ids": _ids(config, generator, T - 2)}


def image(config: Any, generator: torch.Generator) -> Batch:
    """Two small pictures."""
    vision = getattr(config, "vision_config", config)
    shape = (2, 3, vision.image_size, vision.image_size)
    return {"pixel_values": torch.randn(shape, generator=generator)}


def text_and_image(config: Any, generator: torch.Generator) -> Batch:
    """Captions and pictures."""
    return {**tokens(config, generator), **image(config, generator)}


def unpadded_text_and_image(config: Any, generator: torch.Generator) -> Batch:
    """Captions without padding, and pictures."""
    return {**unpadded(config, generator), **image(config, generator)}


def spectrogram(config: Any, generator: torch.Generator) -> Batch:
    """Whisper's input features and target text."""
    shape = (2, config.num_mel_bins, 2 * config.max_source_positions)
    return {
        "input_features": torch.randn(shape, generator=generator),
        "decoder_input_ids": _ids(config, generator),
    }


def wave(config: Any, generator: torch.Generator) -> Batch:
    """Sound, the second shorter than the first."""
    mask = torch.ones(2, 400, dtype=torch.long)
    mask[1, 250:] = 0
    return {"input_values": torch.randn(2, 400, generator=generator), "attention_mask": mask}


def qwen_vl(config: Any, generator: torch.Generator) -> Batch:
    """Two prompts, each with a picture of 4 x 4 patches, which merge into 2 x 2 tokens."""
    ids = _ids(config, generator, 10)
    ids[:, 2:6] = config.image_token_id
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        "input_ids": ids,
        "attention_mask": _mask(10),
        "pixel_values": torch.randn(2 * 16, patch, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]]),
        "mm_token_type_ids": (ids == config.image_token_id).int(),
    }
