"""Language models by name: the decoders of GPT-2 and Llama, the encoder of BERT and RoBERTa, and the Transformer that
has both.

Each returns a Network of whole numbers. A row has `length` tokens; `network.layer` takes shorter ones as well.
"""

from npopt.errors import UserError
from npopt.values import whole

from . import init as initialisers
from .activations import GELU, Tanh
from .composites import Sequential
from .dropout import Dropout
from .embedding import Embedding, StableEmbedding
from .encoder import AtGap, Averaged, Chosen, Encoder, EncoderDecoder, First, OneType
from .layer_norm import LayerNorm, RMSNorm
from .linear import Linear
from .network import Network
from .positions import LearnedPositions, SinusoidalPositions
from .rotary import Alibi, Relative, Rotary
from .transformer import NORMS, DecoderLayer, EncoderLayer

START = initialisers.Normal(0.02)


def decoder(words, length, body, layers, norm, features, name, tied):
    """embed and what follows it in `body`, the layers, a norm, and logits of the next word: (B, length, words)."""
    named = {f"layer{i}": layer for i, layer in enumerate(layers, 1)}
    head = Linear(features, words, bias=False, init=START)
    share = {"head.W": "embed.W"} if tied else None
    return Network(Sequential(**body, **named, norm=norm, head=head), (length,), name, share=share)


def depth_scaled(layers):
    """GPT-2's start of the maps that end in a sum: deviation 0.02 / sqrt(2 layers), one sum for each part."""
    return initialisers.Normal(0.02 / (2 * layers) ** 0.5)


def llama(
    words,
    length,
    features,
    layers,
    heads,
    hidden=None,
    *,
    kv_heads=None,
    theta=1e4,
    pairing="half",
    eps=1e-5,
    tied=True,
):
    """The decoder of Llama, Touvron et al. 2023, arXiv:2302.13971: RMSNorm before each part, SwiGLU, rotary positions,
    no biases.

    hidden      width of the feed-forward part; None: 8/3 of the features, rounded up to a multiple of 32
    kv_heads    heads of keys and values; None: as many as of queries
    theta       base of the rotary angles; pairing: "half", Hugging Face's, or "adjacent", Meta's and llama2.c's
    eps         of the norms: 1e-5 in llama2.c and Llama 2, 1e-6 in Llama 1
    tied        whether head.W is embed.W
    """
    layers = whole("llama", "layers", layers)
    hidden = -(-8 * features // 96) * 32 if hidden is None else hidden
    parts = [
        EncoderLayer(
            features,
            heads,
            hidden,
            "swiglu",
            norm=lambda size: RMSNorm(size, eps),
            bias=False,
            init=START,
            causal=True,
            kv_heads=kv_heads,
            positions=Rotary(theta, pairing),
        )
        for _ in range(layers)
    ]
    body = {"embed": Embedding(words, features, START)}
    return decoder(words, length, body, parts, RMSNorm(features, eps), features, f"llama-{layers}x{features}", tied)


def gpt2(words, length, features, layers, heads, hidden=None, *, dropout=0.0, eps=1e-5, tied=True, stable=False):
    """The decoder of GPT-2, Radford et al. 2019: learned positions, LayerNorm before each part, GELU by tanh, biases.

    The maps that end in a sum start with a deviation of 0.02 / sqrt(2 layers), the others with 0.02.
    stable: the words' vectors are those of a StableEmbedding.
    """
    layers = whole("gpt2", "layers", layers)
    parts = []
    for _ in range(layers):
        part = EncoderLayer(
            features,
            heads,
            hidden,
            "gelu-tanh",
            norm=lambda size: LayerNorm(size, eps),
            dropout=dropout,
            init=START,
            bias_init=initialisers.Zeros(),
            causal=True,
        )
        attention, feed = (child.f for child in part.parts)
        attention.out.init["W"] = dict(feed.children())["down"].init["W"] = depth_scaled(layers)
        parts.append(part)
    embed = StableEmbedding(words, features, eps=eps) if stable else Embedding(words, features, START)
    body = {"embed": embed, "positions": LearnedPositions(length, features, START)}
    if dropout:
        body["drop"] = Dropout(dropout)
    return decoder(words, length, body, parts, LayerNorm(features, eps), features, f"gpt2-{layers}x{features}", tied)


def bert(
    words, length, features, layers, heads, hidden=None, *, head=None, types=2, dropout=0.0, eps=1e-12, init=START
):
    """The encoder of BERT, Devlin et al., NAACL 2019: (words, keep) -> (B, length, features), norms behind each part.

    head    None: the vectors of all words; "words": logits of each word, for masked language models, whose last map
            shares embed.W; a number of classes: logits of the row, by the first word's vector
    types   rows of the table that marks a pair's sentences; all words are of the first type here. RoBERTa has 1

    RoBERTa, Liu et al. 2019, arXiv:1907.11692, is this network with eps 1e-5. Its files have two more rows of
    positions, which no word uses; nn/weights leaves them out.
    """
    start = Sequential(
        embed=Embedding(words, features, init),
        positions=LearnedPositions(length, features, init),
        types=OneType(types, features, init),
        norm=LayerNorm(features, eps),
        drop=Dropout(dropout),
    )
    zeros = initialisers.Zeros()
    starts = dict(init=init, bias_init=zeros)
    parts = [
        EncoderLayer(
            features,
            heads,
            hidden,
            "gelu",
            place="post",
            norm=lambda size: LayerNorm(size, eps),
            dropout=dropout,
            **starts,
        )
        for _ in range(whole("bert", "layers", layers))
    ]
    body, share = dict(encoder=Encoder(start, parts)), None
    if head == "words":
        last = Linear(features, words, **starts)
        body |= dict(dense=Linear(features, features, **starts), act=GELU(), norm=LayerNorm(features, eps), head=last)
        share = {"head.W": "encoder.embed.W"}
    network = Network(Sequential(**body), ((length,), (length,)), f"bert-{layers}x{features}", share=share)
    return network if head in (None, "words") else classified(network, head, dropout=dropout, init=init)


def classified(network, classes, length=None, *, pool="first", dropout=0.0, init=START):
    """An encoder without a head, such as bert(...) or weights.hub(folder)[0], with the one that tells classes: (words,
    keep) -> (B, classes), W_2 tanh(W_1 y + b_1) + b_2. The layers of `network` become the new network's.

    length   of a row; None: the encoder's
    pool     y is the vector of the "first" word, as in BERT, or the "mean" of all words that are there
    """
    (found,), _ = network.input_shape
    features, length = network.output_shape[-1], found if length is None else length
    starts, encoder = dict(init=init, bias_init=initialisers.Zeros()), dict(network.layer.children())["encoder"]
    if pool not in ("first", "mean"):
        raise UserError(f'classified: pool must be "first" or "mean", got {pool!r}')
    body = dict(encoder=encoder, first=First()) if pool == "first" else dict(encoder=Averaged(encoder))
    body |= dict(pooler=Linear(features, features, **starts), act=Tanh(), drop=Dropout(dropout))
    last = Linear(features, whole("bert", "head", classes), **starts)
    return Network(Sequential(**body, head=last), ((length,), (length,)), network.name)


def prompted(network, mask, words):
    """A masked language model, bert(..., head="words"), that is asked for one of a few words: (words, keep) -> (B, C),
    the logits of these C words at the first gap of each row. Its segments, and so x, are those of `network`, whose
    layers become the new network's.

    mask     the number of the gap        words    numbers of the C words, such as those of " bad" and " good"
    """
    children = dict(network.layer.children())
    if list(children) != ["encoder", "dense", "act", "norm", "head"]:
        raise UserError('prompted: a masked language model is wanted, such as bert(..., head="words")')
    body = {**children, "encoder": AtGap(children["encoder"], mask), "chosen": Chosen(words)}
    return Network(Sequential(**body), network.input_shape, network.name, share=network.share)


def likened(network, classes, length=None):
    """An encoder without a head that is asked which of C sentences a text is like: (words, keep) -> (B, C), logits
    z = W y / rms(y), y (D,) the mean of the vectors of the words that are there. The layers of `network` become the new
    network's. With rows w_c = s y_c / (|y_c| D^(1/2)) of C sentences' y_c, z_c is s times the cosine of y and y_c.

    length   of a row; None: the encoder's
    """
    (found,), _ = network.input_shape
    features, length = network.output_shape[-1], found if length is None else length
    encoder = Averaged(dict(network.layer.children())["encoder"])
    head = Linear(features, whole("likened", "classes", classes), bias=False)
    body = Sequential(encoder=encoder, norm=RMSNorm(features, eps=1e-12), head=head)
    return Network(body, ((length,), (length,)), network.name)


WITHIN = {"rotary": Rotary, "relative": lambda: Relative(16), "alibi": Alibi}  # positions that attention itself knows
ADDED = ("sinusoidal", "learned", None)


def vectors(words, length, features, positions, dropout, init):
    """The vectors of words, with positions added to them if they are of the kind that is added."""
    if positions not in (*WITHIN, *ADDED):
        raise UserError(f"transformer: positions must be one of {', '.join(map(repr, (*ADDED, *WITHIN)))}")
    parts = {"embed": Embedding(words, features, init)}
    if positions == "sinusoidal":
        parts["positions"] = SinusoidalPositions(features, features**0.5)
    if positions == "learned":
        parts["positions"] = LearnedPositions(length, features, init)
    return Sequential(**parts, drop=Dropout(dropout))


def transformer(
    words,
    source_length,
    length,
    features,
    layers,
    heads,
    hidden=None,
    *,
    positions="sinusoidal",
    activation="relu",
    place="post",
    norm="layer",
    pattern=(),
    dropout=0.0,
    tied=True,
):
    """Encoder and decoder, Vaswani et al., NeurIPS 2017: (source, keep, words so far) -> (B, length, words), logits of
    the next word.

    source: (B, source_length) whole numbers   keep: (B, source_length) bool, which of them are there
    words so far: (B, length): a start, then the target without its end

    layers      of the encoder and of the decoder each
    positions   "sinusoidal" or "learned", added to the vectors of words; "rotary" (Su et al. 2021), "relative" (Shaw et
                al., NAACL 2018, up to 16 places) or "alibi" (Press et al., ICLR 2022), in self-attention alone; None
    activation  "relu", "gelu", "silu", or gated: "swiglu", "geglu", "reglu"; hidden: width of the feed-forward part,
                None: 4 features, or 8/3 features where it is gated, rounded to a whole number: as many parameters
    place       of the norms: "post", behind each sum, or "pre", with one norm more behind each of the two stacks
    norm        "layer" or "rms"
    pattern     of the decoder's self-attention: () or Child's, see MultiHeadAttention
    tied        whether source, target and logits share one table of words (section 3.4)

    Vectors start with a deviation of 1/sqrt(features), and are multiplied by sqrt(features) where sinusoids are added.
    """
    if hidden is None:
        hidden = round(8 * features / 3) if activation in ("swiglu", "geglu", "reglu") else 4 * features
    size, table = (features, heads, hidden, activation), initialisers.Normal(features**-0.5)
    around = dict(place=place, norm=norm, dropout=dropout)
    around |= dict(init=initialisers.XavierUniform(), bias_init=initialisers.Zeros())
    within = {"positions": WITHIN[positions]()} if positions in WITHIN else {}
    starts = [vectors(words, n, features, positions, dropout, table) for n in (source_length, length)]
    layers = range(whole("transformer", "layers", layers))
    encoder = Encoder(starts[0], [EncoderLayer(*size, **around, **within) for _ in layers])
    decoder = [DecoderLayer(*size, pattern=pattern, **around, **within) for _ in layers]
    behind = [NORMS[norm](features) for _ in range(2)] if place == "pre" else [None, None]
    body = {"body": EncoderDecoder(encoder, starts[1], decoder, behind[0])}
    if behind[1] is not None:
        body["norm"] = behind[1]
    head = Linear(features, words, bias=False, init=table)
    tie = {"body.embed.W": "body.encoder.embed.W", "head.W": "body.encoder.embed.W"} if tied else None
    shapes = ((source_length,), (source_length,), (length,))
    return Network(Sequential(**body, head=head), shapes, f"transformer-{len(layers)}x{features}", share=tie)
