"""Published weights: a Network and its flat x from files. Nothing here unpickles anything.

network, x = weights.llama2c("stories260K.bin")      llama2.c's checkpoints
network, x = weights.hub("folder")                   a Hugging Face folder: config.json and *.safetensors
"""

from .hub import hub
from .llama2c import llama2c

__all__ = ["hub", "llama2c"]
