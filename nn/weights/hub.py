"""Folders as Hugging Face lays them out: config.json and one or several *.safetensors.

LlamaForCausalLM     pairs of rotary positions are halves
GPT2LMHeadModel      its maps are written (in, out), ours are (out, in); query, key and value are one array there
"""

import json
import pathlib
import re

from npopt.errors import UserError

import numpy as np

from ..language import gpt2, llama
from .assembled import assembled

TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}


def hub(folder):
    """(network, x) of a folder; float32."""
    folder = pathlib.Path(folder)
    config, (kind,) = read_config(folder)
    network, rename = ARCHITECTURES[kind](Config(folder / "config.json", config))
    found = {}
    for name, array in tensors(folder).items():
        for ours, part in rename(name, array):
            if ours in found:
                raise UserError(f"{folder}: {name} gives {ours} a second time; the folder holds two copies of a tensor")
            found[ours] = part
    if network.share and "head.W" in found:  # tied, and written twice
        if not np.array_equal(found.pop("head.W"), found.get("embed.W")):
            raise UserError(f"{folder}: config.json ties the head to the embedding, but the files hold two arrays")
    return network, assembled(network, found, folder)


def read_config(folder):
    """(config, its one architecture) of a folder."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the folder of a model") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    kinds = config.get("architectures") or [None]
    if len(kinds) != 1 or kinds[0] not in ARCHITECTURES:
        raise UserError(f"{path}: the architecture is {kinds[0]!r}; known are {', '.join(ARCHITECTURES)}")
    return config, kinds


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


def tensors(folder):
    """{name: float array} of all *.safetensors of a folder."""
    from safetensors import SafetensorError, deserialize

    paths, found = sorted(folder.glob("*.safetensors")), {}
    if not paths:
        other = next((path.name for path in folder.glob("*.bin")), None)
        hint = f"; {other} is a pickle, which may run any code: convert it to safetensors" if other else ""
        raise UserError(f"{folder}: there is no *.safetensors{hint}")
    for path in paths:
        try:
            entries = deserialize(path.read_bytes())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({error})") from None
        for name, entry in entries:
            if entry["dtype"] not in TYPES:
                raise UserError(f"{path}: {name} is of type {entry['dtype']}; known are {', '.join(TYPES)}")
            if name in found:
                raise UserError(f"{path}: {name} is in another file of the folder, too")
            array = np.frombuffer(bytes(entry["data"]), TYPES[entry["dtype"]]).reshape(entry["shape"])
            found[name] = (array.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else array
    return found


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
        theta=config("rope_theta", 1e4),
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


ARCHITECTURES = {"LlamaForCausalLM": of_llama, "GPT2LMHeadModel": of_gpt2}
