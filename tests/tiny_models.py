"""Tiny random models of every family that the table names: one row a case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tests import tiny_batches as batches
from tests import tiny_blocks as names
from tests.tiny_blocks import Block, Owner


@dataclass(frozen=True)
class Case:
    """One tiny model: transformers' class names, options of its configuration, blocks, an input.

    ``modality`` is that of the main tower.
    """

    id: str
    model: str
    config: str
    options: Mapping[str, Any]
    blocks: tuple[Block, ...]
    inputs: Callable[[Any, torch.Generator], dict[str, Any]] = batches.tokens
    modality: str = "text"

    @property
    def owners(self) -> list[Owner]:
        """Every bias of every block."""
        return [owner for block in self.blocks for owner in block.owners()]

    @property
    def fused(self) -> bool:
        """Whether some bias holds several roles."""
        return any(owner.fused for owner in self.owners)


def build(case: Case | str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """The case's model in evaluation mode, equal at every call.

    Fresh models have zero biases and nearly flat attention, which hide faults: every bias and
    every matrix is drawn anew.
    """
    case = BY_ID[case] if isinstance(case, str) else case
    return build_as(case.model, case.config, {**case.options, **options}, dtype)


def build_as(
    kind: str, config_kind: str, options: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> Any:
    """A tiny model of these of transformers' classes, drawn as `build` draws."""
    import transformers

    config = getattr(transformers, config_kind)(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.1 * noise if is_norm else 0.2 * noise)
    return model.to(dtype).eval()


def batch(case: Case, model: Any) -> dict[str, Any]:
    """A random batch for the model's forward, floats in the model's dtype."""
    made = case.inputs(model.config, torch.Generator().manual_seed(2))
    return {
        key: value.to(model.dtype) if value.is_floating_point() else value
        for key, value in made.items()
    }


#: 3 heads of 8; 2 layers
SMALL = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
#: 4 heads in 2 groups
GROUPED = {**SMALL, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
GPT = {
    "vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
SEQ2SEQ = {
    "vocab_size": 50, "d_model": 24, "encoder_layers": 2, "decoder_layers": 3,
    "encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40, "max_position_embeddings": 32, "pad_token_id": 1,
    "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
DEBERTA = {**SMALL, "relative_attention": True, "max_relative_positions": 8, "type_vocab_size": 0}
PICTURE = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "image_size": 12, "patch_size": 4,
}  # fmt: skip
TWO_TOWERS = {
    "text_config": {**SMALL, "eos_token_id": 1, "bos_token_id": 2, "projection_dim": 16},
    "vision_config": {**PICTURE, "num_hidden_layers": 3, "projection_dim": 16},
}
#: the default multiplies in groups, which knows no float64
EAGER_EXPERTS = {"experts_implementation": "eager"}
MROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
QWEN_VL = {
    "text_config": {**GROUPED, "rope_parameters": MROPE, "bos_token_id": 1, "eos_token_id": 2},
    "image_token_id": 3,
    "video_token_id": 4,
    "vision_start_token_id": 1,
    "vision_end_token_id": 2,
}


def _seq2seq(stack: str, self_names: str, cross_names: str) -> tuple[Block, ...]:
    return (
        Block(f"{stack}.encoder.layers", 2, self_names),
        Block(f"{stack}.decoder.layers", 3, self_names),
        Block(f"{stack}.decoder.layers", 3, cross_names, attention="cross"),
    )


def _encoder(
    id: str, family: str, prefix: str, row: str = names.BERT, head: str = "SequenceClassification",
    stack: str = "encoder.layer", options: Mapping[str, Any] = SMALL, **rest: Any,
) -> Case:  # fmt: skip
    blocks = (Block(f"{prefix}.{stack}", 2, row), *rest.pop("blocks", ()))
    return Case(id, f"{family}For{head}", f"{family}Config", options, blocks, **rest)


def _decoder(
    id: str, model: str, stack: str, row: str, options: Mapping[str, Any], layers: int = 2,
    more: tuple[Block, ...] = (), **rest: Any,
) -> Case:  # fmt: skip
    family = model.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    blocks = (Block(stack, layers, row), *more)
    return Case(id, model, f"{family}Config", options, blocks, **rest)


def _falcon(id: str, row: str, **options: Any) -> Case:
    options = {**SMALL, "hidden_size": 32, "num_attention_heads": 4, "bias": True, **options}
    return _decoder(id, "FalconForCausalLM", "transformer.h", row, options)


def _deberta_v2(id: str, **options: Any) -> Case:
    return _encoder(id, "DebertaV2", "deberta", names.DEBERTA_V2, options={**DEBERTA, **options})


BERT_CROSS = Block("bert.encoder.layer", 2, names.BERT_CROSS, "cross")
GPT2_CROSS = Block("transformer.h", 2, names.GPT2_CROSS, "cross")
VISION = "model.visual.blocks"
CASES = (
    _encoder("bert", "Bert", "bert"),
    Case("bert-bare", "BertModel", "BertConfig", SMALL, (Block("encoder.layer", 2, names.BERT),)),
    _decoder(
        "bert-cross", "BertLMHeadModel", "bert.encoder.layer", names.BERT,
        {**SMALL, "is_decoder": True, "add_cross_attention": True}, more=(BERT_CROSS,),
        inputs=batches.cross,
    ),
    _encoder("roberta", "Roberta", "roberta"),
    _encoder("xlm-roberta", "XLMRoberta", "roberta"),
    _encoder("camembert", "Camembert", "roberta"),
    _encoder("electra", "Electra", "electra", options={**SMALL, "embedding_size": 16}),
    Case(
        "albert", "AlbertForSequenceClassification", "AlbertConfig",
        {**SMALL, "num_hidden_layers": 3, "embedding_size": 16},
        (Block("albert.encoder.albert_layer_groups.0.albert_layers", 1, names.ALBERT, uses=3),),
    ),
    _encoder(
        "distilbert", "DistilBert", "distilbert", names.DISTILBERT, stack="transformer.layer",
        options={"vocab_size": 50, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40,
                 "max_position_embeddings": 32},
    ),
    _encoder("mpnet", "MPNet", "mpnet", names.MPNET),
    _encoder("deberta", "Deberta", "deberta", names.DEBERTA, options={
        **DEBERTA, "pos_att_type": ["c2p", "p2c"]}),
    _deberta_v2("deberta-v2-plain", relative_attention=False),
    _deberta_v2("deberta-v2-c2p", pos_att_type=["c2p"]),
    _deberta_v2("deberta-v2-p2c", pos_att_type=["c2p", "p2c"]),
    _deberta_v2("deberta-v2-share", pos_att_type=["c2p", "p2c"], share_att_key=True,
                position_buckets=4, norm_rel_ebd="layer_norm"),
    _encoder("esm", "Esm", "esm", names.ESM),
    _encoder("esm-rotary", "Esm", "esm", names.ESM, options={
        **SMALL, "position_embedding_type": "rotary"}),
    _encoder("longformer", "Longformer", "longformer", options={**SMALL, "attention_window": 4},
             blocks=(Block("longformer.encoder.layer", 2, names.GLOBAL, "global"),),
             head="TokenClassification", inputs=batches.longformer),
    _decoder("opt", "OPTForCausalLM", "model.decoder.layers", names.BART, {
        "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "ffn_dim": 40, "max_position_embeddings": 32, "word_embed_proj_dim": 24}),
    _decoder("gpt2", "GPT2LMHeadModel", "transformer.h", names.GPT2, GPT),
    _decoder("gpt2-cross", "GPT2LMHeadModel", "transformer.h", names.GPT2,
             {**GPT, "add_cross_attention": True}, more=(GPT2_CROSS,), inputs=batches.cross),
    _decoder("openai-gpt", "OpenAIGPTLMHeadModel", "transformer.h", names.GPT2, GPT),
    _decoder("gpt-neox", "GPTNeoXForCausalLM", "gpt_neox.layers", names.NEOX, SMALL),
    _decoder("bloom", "BloomForCausalLM", "transformer.h", names.BLOOM,
             {"vocab_size": 50, "hidden_size": 24, "n_layer": 2, "n_head": 3}),
    _falcon("falcon-new", names.FALCON_NEW, new_decoder_architecture=True, num_kv_heads=2),
    _falcon("falcon-multi-query", names.FALCON_PARALLEL),
    _falcon("falcon-rw", names.BLOOM, multi_query=False, parallel_attn=False, alibi=True),
    _falcon("falcon-rw-rotary", names.FALCON_PARALLEL, multi_query=False),
    _decoder("gpt-bigcode", "GPTBigCodeForCausalLM", "transformer.h", names.GPT2, GPT),
    _decoder("gpt-bigcode-heads", "GPTBigCodeForCausalLM", "transformer.h", names.GPT2,
             {**GPT, "multi_query": False}),
    _decoder("phi", "PhiForCausalLM", "model.layers", names.PHI, GROUPED),
    _decoder("phi-qk-norm", "PhiForCausalLM", "model.layers", names.PHI,
             {**GROUPED, "qk_layernorm": True}),
    _decoder("qwen2", "Qwen2ForCausalLM", "model.layers", names.LLAMA_QKV, GROUPED),
    _decoder("qwen2-moe", "Qwen2MoeForCausalLM", "model.layers", names.LLAMA_QKV,
             {**GROUPED, **EAGER_EXPERTS, "num_experts": 3, "num_experts_per_tok": 2,
              "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}),
    Case(
        "qwen2-vl", "Qwen2VLForConditionalGeneration", "Qwen2VLConfig",
        {**QWEN_VL, "vision_config": {
            "depth": 3, "embed_dim": 24, "hidden_size": 32, "num_heads": 3, "patch_size": 2}},
        (Block("model.language_model.layers", 2, names.LLAMA_QKV),
         Block(VISION, 3, names.QWEN2_VISION)), inputs=batches.qwen_vl,
    ),
    Case(
        "qwen2.5-vl", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig",
        {**QWEN_VL, "vision_config": {
            "depth": 3, "hidden_size": 24, "out_hidden_size": 32, "num_heads": 3, "patch_size": 2,
            "intermediate_size": 40, "window_size": 8, "fullatt_block_indexes": [1]}},
        (Block("model.language_model.layers", 2, names.LLAMA_QKV),
         Block(VISION, 3, names.QWEN25_VISION)), inputs=batches.qwen_vl,
    ),
    _decoder("starcoder2", "Starcoder2ForCausalLM", "model.layers", names.STARCODER2, GROUPED),
    _decoder("llama", "LlamaForCausalLM", "model.layers", names.LLAMA_QKVO,
             {**GROUPED, "attention_bias": True}),
    _decoder("llama-mlp", "LlamaForCausalLM", "model.layers", names.LLAMA_MLP,
             {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    _decoder("gpt-oss", "GptOssForCausalLM", "model.layers", names.LLAMA_QKVO,
             {**GROUPED, **EAGER_EXPERTS, "head_dim": 8, "num_local_experts": 3,
              "num_experts_per_tok": 2}),
    _decoder("glm4", "Glm4ForCausalLM", "model.layers", names.LLAMA_QKV,
             {**GROUPED, "head_dim": 8}),
    _decoder("gemma2", "Gemma2ForCausalLM", "model.layers", names.LLAMA_QKVO,
             {**GROUPED, "head_dim": 8, "attention_bias": True, "query_pre_attn_scalar": 8}),
    Case("bart", "BartForConditionalGeneration", "BartConfig", SEQ2SEQ,
         _seq2seq("model", names.BART, names.BART_CROSS), inputs=batches.seq2seq),
    Case("mbart", "MBartForConditionalGeneration", "MBartConfig", SEQ2SEQ,
         _seq2seq("model", names.BART, names.BART_CROSS), inputs=batches.seq2seq),
    Case("marian", "MarianMTModel", "MarianConfig", SEQ2SEQ,
         _seq2seq("model", names.BART, names.BART_CROSS), inputs=batches.seq2seq),
    Case("pegasus", "PegasusForConditionalGeneration", "PegasusConfig", SEQ2SEQ,
         _seq2seq("model", names.BART, names.BART_CROSS), inputs=batches.seq2seq),
    Case("whisper", "WhisperForConditionalGeneration", "WhisperConfig",
         {**SEQ2SEQ, "num_mel_bins": 4, "max_source_positions": 6, "max_target_positions": 32,
          "bos_token_id": 1, "eos_token_id": 2, "suppress_tokens": None,
          "begin_suppress_tokens": None},
         _seq2seq("model", names.WHISPER, names.WHISPER_CROSS), inputs=batches.spectrogram),
    Case("wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config",
         {**SMALL, "conv_dim": [8, 8], "conv_stride": [5, 4], "conv_kernel": [10, 3],
          "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
          "num_conv_pos_embedding_groups": 2},
         (Block("wav2vec2.encoder.layers", 2, names.WAV2VEC2),), batches.wave, "audio"),
    Case("vit", "ViTForImageClassification", "ViTConfig", PICTURE,
         (Block("vit.layers", 2, names.VIT),), batches.image, "vision"),
    Case("deit", "DeiTForImageClassification", "DeiTConfig", PICTURE,
         (Block("deit.layers", 2, names.VIT),), batches.image, "vision"),
    Case("clip", "CLIPModel", "CLIPConfig", {**TWO_TOWERS, "projection_dim": 16},
         (Block("text_model.encoder.layers", 2, names.CLIP),
          Block("vision_model.encoder.layers", 3, names.CLIP)), batches.text_and_image),
    Case("siglip", "SiglipModel", "SiglipConfig", TWO_TOWERS,
         (Block("text_model.encoder.layers", 2, names.CLIP),
          Block("vision_model.encoder.layers", 3, names.CLIP)), batches.text_and_image),
)  # fmt: skip
BY_ID = {case.id: case for case in CASES}
