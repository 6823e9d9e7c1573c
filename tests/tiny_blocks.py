"""Which module of a layer owns which role's bias in every family, as the architectures have it.

Written from the models' own code, never from what recognition answers: the tests hold recognition
against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ROLES = ("q", "k", "v", "m1", "m2", "m3", "ln1", "ln2")


@dataclass(frozen=True)
class Owner:
    """A bias of one layer: parameter ``name`` at runtime; ``fused`` if it holds other roles too."""

    role: str
    layer: int
    attention: str
    name: str
    fused: bool
    uses: int


@dataclass(frozen=True)
class Block:
    """A stack of layers: ``names`` holds one module for each of `ROLES`, ``-`` where none is.

    A word that ends in ``_bias`` is the parameter itself; a module under several roles is fused;
    ``+`` joins two modules of one role.
    """

    stack: str
    layers: int
    names: str
    attention: str = "self"
    uses: int = 1

    def has(self, role: str) -> bool:
        """Whether the layers have a bias of that role."""
        return self.names.split()[ROLES.index(role)] != "-"

    def owners(self) -> Iterator[Owner]:
        """Every bias of the stack."""
        words = self.names.split()
        for layer in range(self.layers):
            for role, word in zip(ROLES, words, strict=True):
                for leaf in word.split("+") if word != "-" else ():
                    name = leaf if leaf.endswith("_bias") else f"{leaf}.bias"
                    yield Owner(
                        role=role, layer=layer, attention=self.attention,
                        name=f"{self.stack}.{layer}.{name}", fused=words.count(leaf) > 1,
                        uses=self.uses,
                    )  # fmt: skip


# q k v m1 m2 m3 ln1 ln2 below the layer index
BERT = (
    "attention.self.query attention.self.key attention.self.value attention.output.dense "
    "intermediate.dense output.dense attention.output.LayerNorm output.LayerNorm"
)
BERT_CROSS = (
    "crossattention.self.query crossattention.self.key crossattention.self.value "
    "crossattention.output.dense - - crossattention.output.LayerNorm -"
)
GLOBAL = "attention.self.query_global attention.self.key_global attention.self.value_global" + (
    " -" * 5
)
ESM = BERT.replace("attention.output.LayerNorm output.LayerNorm", "attention.LayerNorm LayerNorm")
DEBERTA = BERT.replace(
    "attention.self.query attention.self.key attention.self.value",
    "attention.self.q_bias - attention.self.v_bias",
)
DEBERTA_V2 = (
    BERT.replace("self.query", "self.query_proj")
    .replace("self.key", "self.key_proj")
    .replace("self.value", "self.value_proj")
)
ALBERT = (
    "attention.query attention.key attention.value attention.dense ffn ffn_output "
    "attention.LayerNorm full_layer_layer_norm"
)
DISTILBERT = (
    "attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1 ffn.lin2 "
    "sa_layer_norm output_layer_norm"
)
MPNET = (
    "attention.attn.q attention.attn.k attention.attn.v attention.attn.o intermediate.dense "
    "output.dense attention.LayerNorm output.LayerNorm"
)
BART = (
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj fc1 fc2 "
    "self_attn_layer_norm final_layer_norm"
)
BART_CROSS = (
    "encoder_attn.q_proj encoder_attn.k_proj encoder_attn.v_proj encoder_attn.out_proj - - "
    "encoder_attn_layer_norm -"
)
WHISPER = BART.replace("self_attn.k_proj", "-")
WHISPER_CROSS = BART_CROSS.replace("encoder_attn.k_proj", "-")
GPT2 = f"{'attn.c_attn ' * 3}attn.c_proj mlp.c_fc mlp.c_proj ln_1 ln_2"
GPT2_CROSS = (
    f"crossattention.q_attn {'crossattention.c_attn ' * 2}crossattention.c_proj - - ln_cross_attn -"
)
NEOX = (
    f"{'attention.query_key_value ' * 3}attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h "
    "input_layernorm post_attention_layernorm"
)
BLOOM = NEOX.replace("attention.query", "self_attention.query").replace(
    "attention.dense", "self_attention.dense"
)
FALCON_PARALLEL = BLOOM.replace("post_attention_layernorm", "-")
FALCON_NEW = BLOOM.replace("input_layernorm post_attention_layernorm", "ln_attn ln_mlp")
PHI = (
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.dense mlp.fc1 mlp.fc2 "
    "input_layernorm -"
)
LLAMA_QKV = "self_attn.q_proj self_attn.k_proj self_attn.v_proj - - - - -"
LLAMA_QKVO = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj - - - -"
LLAMA_MLP = LLAMA_QKVO.replace("o_proj - -", "o_proj mlp.gate_proj+mlp.up_proj mlp.down_proj")
STARCODER2 = (
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.c_fc mlp.c_proj "
    "input_layernorm post_attention_layernorm"
)
QWEN2_VISION = f"{'attn.qkv ' * 3}attn.proj mlp.fc1 mlp.fc2 norm1 norm2"
QWEN25_VISION = f"{'attn.qkv ' * 3}attn.proj mlp.gate_proj+mlp.up_proj mlp.down_proj - -"
WAV2VEC2 = (
    "attention.q_proj attention.k_proj attention.v_proj attention.out_proj "
    "feed_forward.intermediate_dense feed_forward.output_dense layer_norm final_layer_norm"
)
CLIP = (
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj mlp.fc1 mlp.fc2 "
    "layer_norm1 layer_norm2"
)
VIT = (
    "attention.q_proj attention.k_proj attention.v_proj attention.o_proj mlp.fc1 mlp.fc2 "
    "layernorm_before layernorm_after"
)
