"""Generation from language models: states that are appended to, rolled back and branched.

    decoder = Decoder(network, x)       x: the network's parameters
    state = decoder.start()             state.append(words) -> logits of the next word
"""

from .caches import Full
from .state import Decoder, State

__all__ = ["Decoder", "Full", "State"]
