"""Where a family that has no bias can be given one: by a switch of its configuration, or elsewhere.

A switch gives every projection of its row a bias, in all layers; what shall have none gets zeros.
A fold puts what an added bias does into a bias that is there: attention's rows are means of values,
so a constant in each value comes out as a constant, which the output projection maps to
W_o b_v; where attention and MLP stand side by side, the sum of both takes it anywhere in either.
That holds in evaluation mode, without sinks, gates or a norm between the two: only rows that a
float64 test has seen are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_QKVO = (*_QKV, "self_attn.o_proj")
_GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_PLAIN = ("mlp.up_proj", "mlp.down_proj")

#: switch, the modules of a layer that it gives a bias, the model types (`config.json`)
SWITCHES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("attention_bias", _QKVO, "llama gemma gemma2 gemma3_text qwen3 qwen3_moe olmo olmo2 olmo3 "
     "olmoe smollm3 cohere cohere2 granite granitemoe granitemoeshared hunyuan_v1_dense apertus "
     "arcee nemotron phimoe"),
    ("attention_bias", _QKV, "glm glm4 helium"),
    ("use_qkv_bias", _QKV, "stablelm"),
    ("mlp_bias", _GATED, "llama smollm3 granite helium"),
    ("mlp_bias", _PLAIN, "arcee nemotron"),
)  # fmt: skip
#: model types of several towers whose text tower, of a type above, lies in files under such a
#: module, and its configuration under a key of its own
NESTED = {"gemma3": ("language_model", "text_config")}


@dataclass(frozen=True)
class Fold:
    """Where a family takes in what a bias of its values, or of attention's output, would do.

    Attributes:
        types: model types.
        value: the module of a layer that makes the values.
        output: the projection of attention's output.
        into: the module whose bias takes it in.
        blocks: q, v and k stand in the value's module in so many blocks (CodeGen); 0: values alone.
    """

    types: str
    value: str
    output: str
    into: str
    blocks: int = 0

    @property
    def is_parallel(self) -> bool:
        """Whether it is the MLP's bias, which takes that of attention's output as it is."""
        return self.into != self.output


FOLDS = (
    Fold("gpt_neo", "attn.attention.v_proj", "attn.attention.out_proj", "attn.attention.out_proj"),
    Fold("gptj", "attn.v_proj", "attn.out_proj", "mlp.fc_out"),
    Fold("codegen", "attn.qkv_proj", "attn.out_proj", "mlp.fc_out", blocks=4),
)

#: what a configuration of Mistral means where it does not say; Llama's would be others
MISTRAL: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "use_cache": True,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "sliding_window": 4096,
}


def switches_for(model_type: str, modules: Iterable[str]) -> tuple[dict[str, bool], set[str]]:
    """The switches that give these modules of a layer a bias.

    Args:
        model_type: of the configuration.
        modules: paths from the layer on, ``self_attn.v_proj``.

    Returns:
        The switches, turned, and all modules of a layer that then have a bias; without those that
        no switch gives one.
    """
    wanted = {*modules}
    turned: dict[str, bool] = {}
    given: set[str] = set()
    for switch, group, types in SWITCHES:
        if model_type in types.split() and wanted & {*group}:
            turned[switch] = True
            given |= {*group}
    return turned, given


def switched_on(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> bool:
    """Whether a configuration has a switch for biases on that another has off, or lacks."""
    if not before or not after:
        return False
    kind = after.get("model_type")
    if kind in NESTED:
        key = NESTED[kind][1]
        return switched_on(*(one if isinstance(one := side.get(key), dict) else None
                             for side in (before, after)))  # fmt: skip
    rows = [switch for switch, _, types in SWITCHES if kind in types.split()]
    return any(after.get(switch) and not before.get(switch) for switch in rows)


def fold_for(model_type: str) -> Fold | None:
    """The row of a family that folds; None: it has none."""
    return next((row for row in FOLDS if model_type in row.types.split()), None)


def as_llama(config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """A configuration of Mistral as Llama's, which computes the same and has a switch.

    Returns:
        The new configuration, or None and why there is none.
    """
    whole = {**MISTRAL, **config}
    if whole["sliding_window"] is not None:
        return None, (
            f"this Mistral looks back {whole['sliding_window']} tokens (sliding_window), which "
            "Llama, whose configuration has a switch for biases, does not"
        )
    if whole.get("layer_types") not in (None, ["full_attention"] * whole["num_hidden_layers"]):
        return None, "this Mistral's layers are of several kinds (layer_types)"
    names = [str(name) for name in whole.get("architectures") or ["MistralForCausalLM"]]
    if not all(name.startswith("Mistral") for name in names):
        return None, f"its architecture is {names[0]}"
    whole = {key: one for key, one in whole.items() if key not in ("sliding_window", "layer_types")}
    whole |= {
        "model_type": "llama",
        "architectures": [name.replace("Mistral", "Llama", 1) for name in names],
        "mlp_bias": False,
    }
    return whole, ""
