"""Every architecture of the installed transformers, on the meta device: no numbers, no network."""
# ruff: noqa: E402 - transformers looks at the environment as it is imported

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
for optional in ("timm", "torchvision", "torchaudio", "natten", "detectron2"):
    sys.modules[optional] = None  # as if not installed: the page is the same with and without

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, ResNetConfig
from transformers.initialization import no_init_weights
from transformers.models.auto import modeling_auto

torch.set_num_threads(1)  # nothing is computed
VERSION = transformers.__version__

#: AutoModel's first, then those of the task models
MAPPINGS = [modeling_auto.MODEL_MAPPING_NAMES] + [
    value
    for key, value in vars(modeling_auto).items()
    if re.fullmatch(r"MODEL_(FOR|WITH)_\w+_MAPPING_NAMES", key)
]

#: configuration entries that count layers (cut to 2), and that list the depths of stages
COUNTS = re.compile(r"(?!num_feature_|hc_)(\w+_)?(n_layers?|num_layers|layers|depth|num_blocks)")
DEPTHS = ("depths", "blocks_per_stage")
#: what the default configuration lacks to make a model
_RESNET = {
    "backbone_config": ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"]),
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}
FIX: dict[str, dict[str, Any]] = {
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "nemotron": {"num_key_value_heads": 8},
}
FIX |= {
    name: {"head_dim": 128}
    for name in ("hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan_vl_text", "ministral")
}
FIX |= {
    name: {"prediction_length": 24}
    for name in ("autoformer", "informer", "time_series_transformer")
}
FIX |= dict.fromkeys(
    ("conditional_detr", "dab-detr", "deformable_detr", "detr", "table-transformer"), _RESNET
)
#: the first and last layers are convolutions: two layers would hide the attention
WHOLE = ("sam3_lite_text", "sam3_lite_text_text_model")


def parts(config: Any) -> Iterator[Any]:
    """A configuration and all that it holds."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from parts(value)


def cut_layers(config: Any) -> None:
    """Leave 2 layers everywhere, or as many as it takes to see each type of layer once."""
    entries = dict(vars(config))
    counts = {
        key: value
        for key, value in entries.items()
        if COUNTS.fullmatch(key) and type(value) is int and value > 2
    }
    # Lists of that length say something about each layer: "layer_types", "attention_layers".
    lists = {
        key: value
        for key, value in entries.items()
        if isinstance(value, (list, tuple)) and len(value) in counts.values()
        and not key.startswith(("_", "out_")) and key != "stage_names"
    }  # fmt: skip
    keep = 2
    for value in lists.values():
        if isinstance(value[0], str):
            keep = max(keep, *(value.index(kind) + 1 for kind in set(value)))
    for key, value in counts.items():
        setattr(config, key, min(value, keep))
    for key, value in lists.items():
        setattr(config, key, value[:keep])
    for key in DEPTHS:
        if isinstance(entries.get(key), (list, tuple)):
            shorter = (min(n, 2) if type(n) is int else n for n in entries[key])
            setattr(config, key, type(entries[key])(shorter))


def model_classes(model_type: str, config: Any) -> list[Any]:
    """What AutoModel makes of it, else what other auto classes or the modeling file have for it."""
    name = type(config).__module__.replace("configuration_", "modeling_")
    try:
        module: Any = importlib.import_module(name)
    except ModuleNotFoundError:  # a configuration of its own for another type's model
        module = transformers
    names: dict[str, None] = {}
    for known in (mapping.get(model_type, ()) for mapping in MAPPINGS):
        names |= dict.fromkeys((known,) if isinstance(known, str) else known)
    found = [getattr(module, key, None) or getattr(transformers, key, None) for key in names]
    own = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, PreTrainedModel)
        and item.__module__ == name and getattr(item, "config_class", None) is type(config)
        and not item.__name__.endswith("PreTrainedModel")
    ]  # fmt: skip
    own.sort(key=lambda c: (not c.__name__.endswith("Model"), len(c.__name__), c.__name__))
    return [item for item in found if item][:3] or own[:1]


def make(model_type: str, change: Callable[[Any], object] = lambda config: None) -> Any:
    """The model on the meta device: with few layers, or whole where that does not work."""
    config = CONFIG_MAPPING[model_type](**FIX.get(model_type, {}))
    first: Exception = LookupError("no model of its own")
    for number, cls in enumerate(model_classes(model_type, config)):
        for shorten in (model_type not in WHOLE, False):
            config = CONFIG_MAPPING[model_type](**FIX.get(model_type, {}))
            change(config)
            try:
                if shorten:
                    for part in parts(config):
                        cut_layers(part)
                with torch.device("meta"), no_init_weights():
                    return cls(config)
            except Exception as error:
                first = first if number else error
    raise first


def reason(error: Exception) -> str:
    """Why there is no model, in a few words."""
    if isinstance(error, LookupError) and str(error).startswith("no model"):
        return str(error)
    library = re.search(r"requires the (\S+) library|import of (\S+) halted", str(error))
    return f"needs {library[1] or library[2]}" if library else "defaults make no model"
