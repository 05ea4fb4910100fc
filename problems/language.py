"""The course's language models: a recurrent network, a small GPT or Llama, on a text, as a Problem."""

from nn.adapters import adapted
from nn.language import gpt2
from nn.language import llama as decoder
from nn.networks import language_model
from problems.datasets import shared
from problems.neural import Neural
from problems.tokens import Windows


def windows(text, length, held=None):
    """The feed of a text's windows; held: so many tokens of its validation and test parts, None: all, 0: neither."""
    parts = (text.validation, text.test) if held is None else (text.validation[:held], text.test[:held])
    return Windows(text.train, length, *(parts if held != 0 else (None, None)), name=text.name)


def language(data, units, length=20, streams=16, layers=1, tokens=None, held=None, **more):
    """A recurrent language model on a text, for batches of samplers.Sequential(streams). Metrics on `held` tokens of
    the validation and the test part each, and on as many rows of the training part as streams. `more` goes to
    nn.networks.language_model.

    tokens   of the training part; None: all
    """
    text = shared(data, rows=tokens)
    network = language_model(len(text.words), length, units, layers, streams=streams, **more)
    return Neural(network, windows(text, length, held), metrics_rows=streams, metrics_batch=2 * streams)


def gpt(data, length=64, features=64, layers=2, heads=4, tokens=None, held=None, **more):
    """GPT-2's decoder on a text. Metrics on `held` tokens of the validation and the test part each (None: all), and on
    128 rows of the training part. `more` goes to nn.language.gpt2.

    tokens   of the training part; None: all
    """
    text = shared(data, rows=tokens)
    network = gpt2(len(text.words), length, features, layers, heads, **more)
    return Neural(network, windows(text, length, held), metrics_rows=128, metrics_batch=64)


def llama(
    data,
    length=64,
    features=64,
    layers=2,
    heads=4,
    tokens=None,
    held=None,
    *,
    adapters=None,
    options=(),
    compute=None,
    **more,
):
    """Llama's decoder on a text, with metrics as of `gpt`. `more` goes to nn.language.llama.

    adapters  a layer of nn/adapters.py or nn/low_rank.py, a class, in the place of the maps of attention and of the
              feed-forward part, with these options, pairs (name, value)
    compute   of problems.neural.Neural
    """
    text = shared(data, rows=tokens)
    network = decoder(len(text.words), length, features, layers, heads, **more)
    if adapters is not None:
        network = adapted(network, adapters, ("attention", "feed"), **dict(options))
    return Neural(network, windows(text, length, held), metrics_rows=128, metrics_batch=64, compute=compute)
