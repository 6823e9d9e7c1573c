"""How Transformer blocks name their biases: one row per layout, data only.

A row maps each role to the names (below the layer index) that carry it. A bare name is a module
whose ``.bias`` is meant; a name that ends in ``_bias`` is itself the parameter; ``*`` stands for
an index. Names that hold q, k and v in one tensor stand under ``qkv`` (or ``kv``); how these are
cut is said in ``splits.py``. Names under ``none`` bear no role in that row.

Roles, with the paper's symbols: q, k, v (attention projections), m1 (attention output projection),
m2 (first MLP layer; in a gated MLP both gate and up), m3 (second MLP layer), ln1 (the attention
block's LayerNorm), ln2 (the MLP block's LayerNorm).

A row with ``needs`` holds in module lists ("stacks") that have these names, and there overrules the
others; all other rows hold everywhere, and a test sees that no two of them disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

ROLES = ("q", "k", "v", "m1", "m2", "m3", "ln1", "ln2")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One row. Every role holds names separated by blanks."""

    name: str
    q: str = ""
    k: str = ""
    v: str = ""
    qkv: str = ""
    kv: str = ""
    m1: str = ""
    m2: str = ""
    m3: str = ""
    ln1: str = ""
    ln2: str = ""
    none: str = ""
    attention: str = "self"
    needs: str = ""

    def names(self) -> dict[str, str]:
        """Parameter name below the layer index -> role (or ``qkv``, ``kv``, ``none``)."""
        return {
            parameter(leaf): field.name
            for field in fields(self)
            if field.name not in ("name", "attention", "needs")
            for leaf in getattr(self, field.name).split()
        }


def parameter(leaf: str) -> str:
    """The parameter that a name in a row means."""
    return leaf if leaf.endswith("_bias") else f"{leaf}.bias"


# fmt: off
LAYOUTS = (
    # --- encoders of the BERT kind -------------------------------------------------------------
    Layout(name="bert", q="attention.self.query", k="attention.self.key", v="attention.self.value",
           m1="attention.output.dense", ln1="attention.output.LayerNorm", m2="intermediate.dense",
           m3="output.dense", ln2="output.LayerNorm"),
    Layout(name="bert, cross-attention", attention="cross", q="crossattention.self.query",
           k="crossattention.self.key", v="crossattention.self.value",
           m1="crossattention.output.dense", ln1="crossattention.output.LayerNorm"),
    Layout(name="longformer, global attention", attention="global", q="attention.self.query_global",
           k="attention.self.key_global", v="attention.self.value_global"),
    Layout(name="led encoder",
           q="self_attn.longformer_self_attn.query", k="self_attn.longformer_self_attn.key",
           v="self_attn.longformer_self_attn.value", m1="self_attn.output"),
    Layout(name="led encoder, global attention", attention="global",
           q="self_attn.longformer_self_attn.query_global",
           k="self_attn.longformer_self_attn.key_global",
           v="self_attn.longformer_self_attn.value_global"),
    Layout(name="bigbird-pegasus encoder",
           q="self_attn.self.query", k="self_attn.self.key", v="self_attn.self.value"),
    Layout(name="deberta", q="attention.self.q_bias", v="attention.self.v_bias"),
    Layout(name="deberta-v2", q="attention.self.query_proj", k="attention.self.key_proj",
           v="attention.self.value_proj"),
    Layout(name="esm, xlm-roberta-xl", ln1="attention.LayerNorm attention.self_attn_layer_norm",
           ln2="LayerNorm"),
    Layout(name="roberta-prelayernorm", ln2="intermediate.LayerNorm"),
    Layout(name="megatron-bert", ln1="attention.ln", ln2="ln"),
    Layout(name="mpnet", q="attention.attn.q", k="attention.attn.k", v="attention.attn.v",
           m1="attention.attn.o"),
    Layout(name="albert, tvp", q="attention.query", k="attention.key", v="attention.value",
           m1="attention.dense", m2="ffn", m3="ffn_output", ln2="full_layer_layer_norm"),
    Layout(name="squeezebert", m1="post_attention.conv1d", ln1="post_attention.layernorm",
           m2="intermediate.conv1d", m3="output.conv1d", ln2="output.layernorm"),
    Layout(name="tvp", ln1="attention.layer_norm", ln2="output.layer_norm"),
    Layout(name="nomic-bert", ln1="attention.output.norm", ln2="output.norm"),
    Layout(name="distilbert", q="attention.q_lin", k="attention.k_lin", v="attention.v_lin",
           m1="attention.out_lin", ln1="sa_layer_norm", m2="ffn.lin1", m3="ffn.lin2",
           ln2="output_layer_norm"),
    Layout(name="xlm, flaubert", q="attentions.*.q_lin", k="attentions.*.k_lin",
           v="attentions.*.v_lin", m1="attentions.*.out_lin", ln1="layer_norm1.*",
           m2="ffns.*.lin1", m3="ffns.*.lin2", ln2="layer_norm2.*"),
    Layout(name="funnel", k="attention.k_head", v="attention.v_head", m1="attention.post_proj",
           m2="ffn.linear_1", m3="ffn.linear_2", ln2="ffn.layer_norm"),
    Layout(name="modernbert", qkv="attn.Wqkv", m1="attn.Wo", ln1="attn_norm", ln2="mlp_norm",
           m2="mlp.Wi", m3="mlp.Wo"),
    Layout(name="gte, on disk", qkv="attention.qkv_proj", m1="attention.o_proj",
           ln1="attn_ln", m2="mlp.up_gate_proj", ln2="mlp_ln"),
    Layout(name="jina, on disk", qkv="mixer.Wqkv", m1="mixer.out_proj"),
    Layout(name="lxmert, cross-attention", attention="cross", q="visual_attention.att.query",
           k="visual_attention.att.key", v="visual_attention.att.value",
           m1="visual_attention.output.dense", ln1="visual_attention.output.LayerNorm"),
    Layout(name="lxmert, language", q="lang_self_att.self.query", k="lang_self_att.self.key",
           v="lang_self_att.self.value", m1="lang_self_att.output.dense",
           ln1="lang_self_att.output.LayerNorm", m2="lang_inter.dense", m3="lang_output.dense",
           ln2="lang_output.LayerNorm"),
    Layout(name="lxmert, vision", q="visn_self_att.self.query", k="visn_self_att.self.key",
           v="visn_self_att.self.value", m1="visn_self_att.output.dense",
           ln1="visn_self_att.output.LayerNorm", m2="visn_inter.dense", m3="visn_output.dense",
           ln2="visn_output.LayerNorm"),

    # --- encoder-decoders and decoders of the BART and OPT kind ----------------------------------
    Layout(name="bart, opt", q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj",
           m1="self_attn.out_proj", ln1="self_attn_layer_norm", m2="fc1 mlp.fc1", m3="fc2 mlp.fc2",
           ln2="final_layer_norm"),
    Layout(name="bart, cross-attention", attention="cross", q="encoder_attn.q_proj",
           k="encoder_attn.k_proj", v="encoder_attn.v_proj encoder_attn.value_proj",
           m1="encoder_attn.out_proj encoder_attn.o_proj encoder_attn.output_proj",
           ln1="encoder_attn_layer_norm"),
    Layout(name="seamless, nllb-moe, kosmos", m2="ffn.fc1", m3="ffn.fc2",
           ln2="ffn_layer_norm ff_layer_norm"),
    Layout(name="seamless, nllb-moe, cross-attention", attention="cross",
           q="cross_attention.q_proj", k="cross_attention.k_proj", v="cross_attention.v_proj",
           m1="cross_attention.out_proj", ln1="cross_attention_layer_norm"),
    Layout(name="cross-attention of decoders over images", attention="cross",
           q="cross_attn.q_proj", k="cross_attn.k_proj", v="cross_attn.v_proj",
           m1="cross_attn.out_proj cross_attn.o_proj", ln1="cross_attn_layer_norm"),
    Layout(name="prophetnet", q="self_attn.query_proj", k="self_attn.key_proj",
           v="self_attn.value_proj", m2="feed_forward.intermediate", m3="feed_forward.output",
           ln2="feed_forward_layer_norm"),
    Layout(name="prophetnet, cross-attention", attention="cross", q="cross_attn.query_proj",
           k="cross_attn.key_proj", v="cross_attn.value_proj"),
    Layout(name="ctrl", q="multi_head_attention.Wq", k="multi_head_attention.Wk",
           v="multi_head_attention.Wv", m1="multi_head_attention.dense", m2="ffn.0", m3="ffn.2",
           ln1="layernorm1", ln2="layernorm2"),
    Layout(name="xglm and its kind in DETR, sharing one encoder", ln2="final_layer_norm.layernorm"),
    Layout(name="moonshine decoder", needs="encoder_attn.q_proj final_layernorm",
           none="post_attention_layernorm", ln2="final_layernorm"),
    Layout(name="moonshine decoder, cross-attention", attention="cross",
           needs="encoder_attn.q_proj final_layernorm", ln1="post_attention_layernorm"),

    # --- fused projections -----------------------------------------------------------------------
    Layout(name="gpt2", qkv="attn.c_attn", m1="attn.c_proj", ln1="ln_1",
           m2="mlp.c_fc", m3="mlp.c_proj", ln2="ln_2"),
    Layout(name="gpt2, cross-attention", attention="cross", q="crossattention.q_attn",
           kv="crossattention.c_attn", m1="crossattention.c_proj", ln1="ln_cross_attn"),
    Layout(name="gpt-neox", qkv="attention.query_key_value"),
    Layout(name="bloom, falcon", qkv="self_attention.query_key_value", m1="self_attention.dense",
           m2="mlp.dense_h_to_4h", m3="mlp.dense_4h_to_h", ln1="ln_attn", ln2="ln_mlp"),
    Layout(name="persimmon, phi", qkv="self_attn.query_key_value", m1="self_attn.dense"),
    Layout(name="bark", qkv="attn.att_proj", m1="attn.out_proj", m2="mlp.in_proj",
           m3="mlp.out_proj", ln1="layernorm_1", ln2="layernorm_2"),
    Layout(name="vision blocks, fused", qkv="attn.qkv", m1="attn.proj", ln1="norm1", ln2="norm2",
           m2="mlp.linear_fc1 mlp.lin1 mlp.proj_in", m3="mlp.linear_fc2 mlp.lin2 mlp.proj_out"),
    Layout(name="blip", qkv="self_attn.qkv self_attn.qkv_proj",
           m1="self_attn.projection self_attn.projection_layer"),
    Layout(name="torch's decoder blocks", attention="cross", m1="multihead_attn.out_proj"),
    Layout(name="torch's blocks", needs="self_attn.out_proj linear1", m2="linear1",
           m3="linear2"),
    Layout(name="timesformer, seggpt", qkv="attention.attention.qkv attention.qkv",
           m1="attention.proj"),
    Layout(name="timesformer, over time", attention="time", qkv="temporal_attention.attention.qkv",
           m1="temporal_attention.output.dense", ln1="temporal_layernorm"),
    Layout(name="kimi, on disk", qkv="wqkv"),
    Layout(name="florence-2, over space", qkv="spatial_block.window_attn.qkv",
           m1="spatial_block.window_attn.proj", ln1="spatial_block.norm1",
           m2="spatial_block.ffn.fc1", m3="spatial_block.ffn.fc2", ln2="spatial_block.norm2"),
    Layout(name="florence-2, over channels", attention="channel",
           qkv="channel_block.channel_attn.qkv", m1="channel_block.channel_attn.proj",
           ln1="channel_block.norm1", m2="channel_block.ffn.fc1", m3="channel_block.ffn.fc2",
           ln2="channel_block.norm2"),

    # --- decoders of the Llama kind -------------------------------------------------------------
    Layout(name="llama, qwen2", m1="self_attn.o_proj",
           m2="mlp.up_proj mlp.gate_proj mlp.gate_up_proj", m3="mlp.down_proj",
           ln1="input_layernorm", ln2="post_attention_layernorm"),
    Layout(name="recurrent-gemma", q="temporal_block.q_proj", k="temporal_block.k_proj",
           v="temporal_block.v_proj", m1="temporal_block.o_proj", m2="mlp_block.up_proj "
           "mlp_block.gate_proj", m3="mlp_block.down_proj"),
    Layout(name="gte, jina", needs="post_mlp_layernorm", ln1="post_attention_layernorm",
           ln2="post_mlp_layernorm"),
    Layout(name="gpt-neo", q="attn.attention.q_proj", k="attn.attention.k_proj",
           v="attn.attention.v_proj", m1="attn.attention.out_proj"),
    Layout(name="gpt-j, codegen", qkv="attn.qkv_proj", m2="mlp.fc_in", m3="mlp.fc_out"),

    # --- vision ----------------------------------------------------------------------------------
    Layout(name="vit", q="attention.q_proj", k="attention.k_proj", v="attention.v_proj",
           m1="attention.out_proj attention.projection_layer",
           ln1="layernorm_before", ln2="layernorm_after"),
    Layout(name="vit on disk, qformer", q="attention.attention.query attention.attention.q_bias",
           k="attention.attention.key", v="attention.attention.value attention.attention.v_bias"),
    Layout(name="qformer, cross-attention", attention="cross", q="crossattention.attention.query",
           k="crossattention.attention.key", v="crossattention.attention.value"),
    Layout(name="qformer", m2="intermediate_query.dense", m3="output_query.dense",
           ln2="output_query.LayerNorm"),
    Layout(name="clip", ln1="layer_norm1", ln2="layer_norm2"),
    Layout(name="vision blocks, separate", q="attn.q_proj attn.q attn.wq attn.to_q",
           k="attn.k_proj attn.k attn.wk attn.to_k", v="attn.v_proj attn.v attn.wv attn.to_v"),
    Layout(name="lightglue", q="self_attention.q_proj", k="self_attention.k_proj",
           v="self_attention.v_proj", m1="self_attention.o_proj"),
    Layout(name="swiftformer", q="attn.to_query", k="attn.to_key", m1="attn.final"),
    Layout(name="x-clip, messages between frames", attention="message",
           q="message_attn.q_proj", k="message_attn.k_proj", v="message_attn.v_proj",
           m1="message_attn.out_proj", ln1="message_ln"),
    Layout(name="segformer", ln1="layer_norm_1", ln2="layer_norm_2", m2="mlp.dense1",
           m3="mlp.dense2"),
    Layout(name="pvt-v2", needs="layer_norm_1 attention.layer_norm", none="attention.layer_norm"),
    Layout(name="cosmos3, on disk", q="self_attn.to_q", k="self_attn.to_k", v="self_attn.to_v"),
    Layout(name="molmo2, on disk", needs="attention.wq", q="attention.wq", k="attention.wk",
           v="attention.wv", m1="attention.wo"),
    Layout(name="cvt", q="attention.attention.projection_query",
           k="attention.attention.projection_key", v="attention.attention.projection_value"),
    Layout(name="dino decoders", q="self_attn.query text_enhancer_layer.self_attn.query",
           k="self_attn.key text_enhancer_layer.self_attn.key",
           v="self_attn.value text_enhancer_layer.self_attn.value "
             "deformable_layer.self_attn.value_proj",
           m1="text_enhancer_layer.self_attn.out_proj"),
    Layout(name="dino decoders, text", attention="cross", q="encoder_attn_text.query",
           k="encoder_attn_text.key", v="encoder_attn_text.value",
           m1="encoder_attn_text.out_proj", ln1="encoder_attn_text_layer_norm"),
    Layout(name="three norms a block: which is whose is said below, or not at all",
           needs="norm3", none="norm1 norm2 norm3"),
    Layout(name="the same", needs="layer_norm3", none="layer_norm2 layer_norm3"),
    Layout(name="sam mask decoder", needs="cross_attn_token_to_image.q_proj",
           ln2="layer_norm3", none="layer_norm2 layer_norm4"),
    Layout(name="sam mask decoder, tokens to image", attention="cross",
           needs="cross_attn_token_to_image.q_proj", q="cross_attn_token_to_image.q_proj",
           k="cross_attn_token_to_image.k_proj", v="cross_attn_token_to_image.v_proj",
           m1="cross_attn_token_to_image.o_proj cross_attn_token_to_image.out_proj",
           ln1="layer_norm2"),
    Layout(name="sam mask decoder, image to tokens", attention="cross",
           needs="cross_attn_image_to_token.q_proj", q="cross_attn_image_to_token.q_proj",
           k="cross_attn_image_to_token.k_proj", v="cross_attn_image_to_token.v_proj",
           m1="cross_attn_image_to_token.o_proj cross_attn_image_to_token.out_proj",
           ln1="layer_norm4"),
    Layout(name="sam memory", needs="cross_attn_image.q_proj layer_norm3", ln2="layer_norm3",
           m2="linear1", m3="linear2"),
    Layout(name="sam memory, cross-attention", attention="cross",
           needs="cross_attn_image.q_proj layer_norm3", q="cross_attn_image.q_proj",
           k="cross_attn_image.k_proj", v="cross_attn_image.v_proj", m1="cross_attn_image.o_proj",
           ln1="layer_norm2"),
    Layout(name="sam3 encoder", needs="cross_attn.q_proj layer_norm3", ln2="layer_norm3"),
    Layout(name="sam3 encoder, cross-attention", attention="cross",
           needs="cross_attn.q_proj layer_norm3", ln1="layer_norm2"),
    Layout(name="sam3 decoder, text", attention="cross", q="text_cross_attn.q_proj",
           k="text_cross_attn.k_proj", v="text_cross_attn.v_proj", m1="text_cross_attn.o_proj",
           ln1="text_cross_attn_layer_norm"),
    Layout(name="sam3 decoder, image", attention="cross", q="vision_cross_attn.q_proj",
           k="vision_cross_attn.k_proj", v="vision_cross_attn.v_proj",
           m1="vision_cross_attn.o_proj", ln1="vision_cross_attn_layer_norm"),
    Layout(name="sam3 decoder", ln2="mlp_layer_norm"),

    # --- audio ------------------------------------------------------------------------------------
    Layout(name="wav2vec2", needs="feed_forward.intermediate_dense",
           m2="feed_forward.intermediate_dense", m3="feed_forward.output_dense",
           ln1="layer_norm self_attn_layer_norm"),
    Layout(name="vits", needs="feed_forward.conv_1", ln1="layer_norm", m2="feed_forward.conv_1",
           m3="feed_forward.conv_2"),
    Layout(name="conformer", q="self_attn.linear_q", k="self_attn.linear_k",
           v="self_attn.linear_v", m1="self_attn.linear_out"),
    Layout(name="cohere-asr decoder, on disk", q="first_sub_layer.query_net",
           k="first_sub_layer.key_net", v="first_sub_layer.value_net"),
    Layout(name="cohere-asr decoder, on disk, cross-attention", attention="cross",
           q="second_sub_layer.query_net", k="second_sub_layer.key_net",
           v="second_sub_layer.value_net"),
    Layout(name="wav2vec2-conformer", needs="ffn2.intermediate_dense", none="final_layer_norm",
           ln2="ffn1_layer_norm ffn2_layer_norm",
           m2="ffn1.intermediate_dense ffn2.intermediate_dense",
           m3="ffn1.output_dense ffn2.output_dense"),
    Layout(name="fastspeech2-conformer", needs="ff_macaron_layer_norm",
           none="final_layer_norm", ln2="ff_layer_norm ff_macaron_layer_norm",
           m2="feed_forward.conv1 feed_forward_macaron.conv1",
           m3="feed_forward.conv2 feed_forward_macaron.conv2"),
    Layout(name="parakeet", ln1="norm_self_att layer_norm_att",
           ln2="norm_feed_forward1 norm_feed_forward2",
           m2="feed_forward1.linear1 feed_forward2.linear1",
           m3="feed_forward1.linear2 feed_forward2.linear2"),
)
# fmt: on
#: torch.nn.MultiheadAttention, wherever its ``in_proj_bias`` is in a block
TORCH = Layout(name="torch's attention")
TORCH_CROSS = Layout(name="torch's attention to another sequence", attention="cross")
