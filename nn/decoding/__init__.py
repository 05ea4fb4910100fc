"""Generation from language models: states that are appended to, rolled back and branched, and choices of words.

decoder = Decoder(network, x)                                   x: the network's parameters
generate(decoder, [1], 100, Sample(0.8, top_p=0.9), seed=0)     a text of at most 100 words that begins with word 1
beam(decoder, [1], 20, width=5)                                 [(text, score)]
score(decoder, texts)                                           log p of their words
state = decoder.start()                                         state.append(words) -> logits of the next word
"""

from .caches import Full
from .choosing import Greedy, Sample
from .chosen import H2O, SnapKV
from .drafts import Cascade, Copying, Datastore, Model, Skipping
from .generation import generate, score
from .kivi import KIVI
from .paged import Paged
from .recent import Streaming, Window
from .search import beam
from .speculative import speculate
from .state import Decoder, State

__all__ = [
    "Cascade",
    "Copying",
    "Datastore",
    "Decoder",
    "Full",
    "Greedy",
    "H2O",
    "KIVI",
    "Model",
    "Paged",
    "Sample",
    "Skipping",
    "SnapKV",
    "State",
    "Streaming",
    "Window",
    "beam",
    "generate",
    "score",
    "speculate",
]
