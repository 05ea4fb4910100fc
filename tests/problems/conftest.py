"""A published encoder in small: a folder as Hugging Face lays it out, with drawn numbers."""

import json

from problems import load
from problems.vocabulary import pieces

import pytest


@pytest.fixture
def published(tmp_path, rng):
    """(path of model.safetensors, its arrays by their published names, Pieces): a BertModel of one layer of 8."""
    numpy = pytest.importorskip("safetensors.numpy")
    words = pieces(load("opinions").train, 280, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    shapes = {f"embeddings.{n}_embeddings.weight": (rows, 8) for n, rows in
              (("word", words.size), ("position", 20), ("token_type", 2))}  # fmt: skip
    norms = ("embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm")
    maps = {f"attention.self.{n}": (8, 8) for n in ("query", "key", "value")}
    maps |= {"attention.output.dense": (8, 8), "intermediate.dense": (12, 8), "output.dense": (8, 12)}
    for name, shape in maps.items():
        shapes |= {f"encoder.layer.0.{name}.weight": shape, f"encoder.layer.0.{name}.bias": shape[:1]}
    shapes |= {f"{norm}.{end}": (8,) for norm in norms for end in ("weight", "bias")}
    arrays = {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    numpy.save_file(arrays, tmp_path / "model.safetensors")
    config = dict(architectures=["BertModel"], vocab_size=words.size, max_position_embeddings=20, hidden_size=8,
                  num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text(words.text)
    return str(tmp_path / "model.safetensors"), arrays, words
