"""What tensors are called in Hugging Face's folders, and what their config.json says: for each architecture a network
and a function rename(name, array) -> [(our name, our array)].

    LlamaForCausalLM     pairs of rotary positions are halves
    GPT2LMHeadModel      its maps are written (in, out), ours are (out, in); query, key and value are one array there
    BertModel, BertForMaskedLM, BertForSequenceClassification
    RobertaModel, RobertaForMaskedLM, RobertaForSequenceClassification: the first word's position is behind padding's
"""

import re

from npopt.errors import UserError

import numpy as np

from ..language import bert, gpt2, llama


class Config:
    """Values of a config.json: config("n_head"), config("eps", 1e-5)."""

    def __init__(self, path, values):
        self.path, self.values = path, values

    def __call__(self, name, *default):
        found = self.values.get(name)
        if found is None and not default:
            raise UserError(f"{self.path}: {name} is missing")
        return default[0] if found is None else found

    def must_be(self, name, *known):
        """An error where a value is another than those that the network has."""
        if self.values.get(name, known[0]) not in known:
            raise UserError(f"{self.path}: {name} is {self.values[name]!r}; the network has {known[0]!r} alone")


def of_layer(pattern, name, table):
    """Our name of "h.3.ln_1.weight": the layer's number by the pattern, the rest by the table; None: neither fits."""
    found = re.fullmatch(pattern, name)
    if found is None or found[2] not in table:
        return None
    return f"layer{int(found[1]) + 1}.{table[found[2]]}"


LLAMA = {
    "input_layernorm": "attention_norm.a",
    "self_attn.q_proj": "attention.query.W",
    "self_attn.k_proj": "attention.key.W",
    "self_attn.v_proj": "attention.value.W",
    "self_attn.o_proj": "attention.out.W",
    "post_attention_layernorm": "feed_norm.a",
    "mlp.gate_proj": "feed.gated.gate.W",
    "mlp.up_proj": "feed.gated.up.W",
    "mlp.down_proj": "feed.down.W",
}
LLAMA_ENDS = {"model.embed_tokens.weight": "embed.W", "model.norm.weight": "norm.a", "lm_head.weight": "head.W"}


def of_llama(config):
    """(network, rename) of a LlamaForCausalLM."""
    for name, value in (("hidden_act", "silu"), ("rope_scaling", None), ("attention_bias", False), ("mlp_bias", False)):
        config.must_be(name, value)
    rope = Config(config.path, config("rope_parameters", {}))  # where newer files have theta
    rope.must_be("rope_type", "default")
    features, heads = config("hidden_size"), config("num_attention_heads")
    config.must_be("head_dim", features // heads, None)
    network = llama(
        config("vocab_size"),
        config("max_position_embeddings"),
        features,
        config("num_hidden_layers"),
        heads,
        config("intermediate_size"),
        kv_heads=config("num_key_value_heads", heads),
        theta=rope("rope_theta", config("rope_theta", 1e4)),
        eps=config("rms_norm_eps", 1e-6),
        tied=config("tie_word_embeddings", False),
    )

    def rename(name, array):
        if name.endswith("rotary_emb.inv_freq"):  # old files hold it; it is no parameter
            return []
        ours = LLAMA_ENDS.get(name) or of_layer(r"model\.layers\.(\d+)\.(.+)\.weight", name, LLAMA) or name
        return [(ours, array)]

    return network, rename


GPT2 = {
    "ln_1.weight": "attention_norm.a",
    "ln_1.bias": "attention_norm.b",
    "attn.c_proj.weight": "attention.out.W",
    "attn.c_proj.bias": "attention.out.b",
    "ln_2.weight": "feed_norm.a",
    "ln_2.bias": "feed_norm.b",
    "mlp.c_fc.weight": "feed.up.W",
    "mlp.c_fc.bias": "feed.up.b",
    "mlp.c_proj.weight": "feed.down.W",
    "mlp.c_proj.bias": "feed.down.b",
}
GPT2_ENDS = {
    "wte.weight": "embed.W",
    "wpe.weight": "positions.W",
    "ln_f.weight": "norm.a",
    "ln_f.bias": "norm.b",
    "lm_head.weight": "head.W",
}


def of_gpt2(config):
    """(network, rename) of a GPT2LMHeadModel."""
    config.must_be("activation_function", "gelu_new")
    config.must_be("scale_attn_by_inverse_layer_idx", False)
    config.must_be("scale_attn_weights", True)
    network = gpt2(
        config("vocab_size"),
        config("n_positions"),
        config("n_embd"),
        config("n_layer"),
        config("n_head"),
        config("n_inner", None),
        eps=config("layer_norm_epsilon", 1e-5),
        tied=config("tie_word_embeddings", True),
    )

    def rename(name, array):
        short = name.removeprefix("transformer.")
        if re.fullmatch(r"h\.\d+\.attn\.(bias|masked_bias)", short):  # the causal mask, no parameter
            return []
        array = array.T if re.search(r"\.c_\w+\.weight$", short) else array
        found = re.fullmatch(r"h\.(\d+)\.attn\.c_attn\.(weight|bias)", short)
        if found and len(array) % 3 == 0:  # the maps to queries, keys and values, below one another
            layer, end = f"layer{int(found[1]) + 1}.attention", {"weight": "W", "bias": "b"}[found[2]]
            parts = zip(("query", "key", "value"), np.split(array, 3), strict=True)
            return [(f"{layer}.{to}.{end}", part) for to, part in parts]
        return [(GPT2_ENDS.get(short) or of_layer(r"h\.(\d+)\.(.+)", short, GPT2) or name, array)]

    return network, rename


BERT = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed.up",
    "output.dense": "feed.down",
    "output.LayerNorm": "feed_norm",
}
BERT_ENDS = {
    "embeddings.word_embeddings.weight": "encoder.embed.W",
    "embeddings.position_embeddings.weight": "encoder.positions.W",
    "embeddings.token_type_embeddings.weight": "encoder.types.W",
    "embeddings.LayerNorm.weight": "encoder.norm.a",
    "embeddings.LayerNorm.bias": "encoder.norm.b",
    "cls.predictions.transform.dense.weight": "dense.W",
    "cls.predictions.transform.dense.bias": "dense.b",
    "cls.predictions.transform.LayerNorm.weight": "norm.a",
    "cls.predictions.transform.LayerNorm.bias": "norm.b",
    "cls.predictions.decoder.weight": "head.W",
    "cls.predictions.bias": "head.b",
    "pooler.dense.weight": "pooler.W",
    "pooler.dense.bias": "pooler.b",
    "classifier.weight": "head.W",
    "classifier.bias": "head.b",
}
ROBERTA_ENDS = {name: ours for name, ours in BERT_ENDS.items() if name.startswith("embeddings.")} | {
    "lm_head.dense.weight": "dense.W",
    "lm_head.dense.bias": "dense.b",
    "lm_head.layer_norm.weight": "norm.a",
    "lm_head.layer_norm.bias": "norm.b",
    "lm_head.decoder.weight": "head.W",
    "lm_head.bias": "head.b",
    "classifier.dense.weight": "pooler.W",
    "classifier.dense.bias": "pooler.b",
    "classifier.out_proj.weight": "head.W",
    "classifier.out_proj.bias": "head.b",
}
HEADS = {"Model": None, "ForMaskedLM": "words", "ForSequenceClassification": 0}
ENCODERS = {"Bert": BERT_ENDS, "Roberta": ROBERTA_ENDS}


def of_encoder(config):
    """(network, rename) of BERT or RoBERTa, by itself or with the head of a masked language model or a classifier. What
    nothing here reads is left out: poolers without a classifier, and RoBERTa's positions up to that of padding."""
    config.must_be("hidden_act", "gelu")
    config.must_be("position_embedding_type", "absolute")
    family, kind = re.fullmatch(r"(Bert|Roberta)(\w+)", config("architectures")[0]).groups()
    ends, first = ENCODERS[family], config("pad_token_id", 1) + 1 if family == "Roberta" else 0
    head = len(config("id2label", {"0": "", "1": ""})) if HEADS[kind] == 0 else HEADS[kind]
    network = bert(
        config("vocab_size"),
        config("max_position_embeddings") - first,
        config("hidden_size"),
        config("num_hidden_layers"),
        config("num_attention_heads"),
        config("intermediate_size"),
        head=head,
        types=config("type_vocab_size", 2),
        eps=config("layer_norm_eps", 1e-12),
    )

    def rename(name, array):
        short = name.removeprefix(f"{family.lower()}.").replace("LayerNorm.gamma", "LayerNorm.weight")
        short = short.replace("LayerNorm.beta", "LayerNorm.bias")  # in old files
        if short.endswith(("position_ids", ".decoder.bias")):  # numbers 0, 1, ...; head.b again
            return []
        if short == "embeddings.position_embeddings.weight":
            array = array[first:]
        if (
            short.startswith("pooler.")
            and (family == "Roberta" or head in (None, "words"))
            or short.startswith("cls.seq_relationship.")
        ):
            return []
        found = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", short)
        if found and found[2] in BERT:
            end = ("a", "b") if "norm" in BERT[found[2]] else ("W", "b")
            ours = f"encoder.layer{int(found[1]) + 1}.{BERT[found[2]]}.{end[found[3] == 'bias']}"
            return [(ours, array)]
        return [(ends.get(short, name), array)]

    return network, rename


ARCHITECTURES = {"LlamaForCausalLM": of_llama, "GPT2LMHeadModel": of_gpt2}
ARCHITECTURES |= {family + kind: of_encoder for family in ENCODERS for kind in HEADS}
