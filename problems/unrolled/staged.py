"""Training of unrolled networks layer by layer, as in the code of Chen, Liu, Wang & Yin, NeurIPS 2018."""

from npopt import Adam, Phase, Stop
from npopt.errors import UserError
from npopt.values import number, whole


def stages(form, steps, lr=5e-4, factors=(0.2, 0.02), patience=None, *, warm=False, fade=1.0):
    """The phases of npopt.in_phases for a form, three for each layer k = 0, 1, ...: the loss looks at x_{k+1};

        the variables that come in with layer k alone        Adam, rate lr
        all variables of layers 0 to k                       Adam started anew, rate 0.2 lr, then 0.02 lr

    steps     of each phase, a number or one for each kind of phase. The authors' code goes on for 200,000 steps, or
              until the validation error's best value is 4,000 steps old
    factors   of the rates of the later kinds
    patience  rows of columns after which a phase ends without a better "nmse"; None: it makes all its steps
    warm      whether a layer's variables start as those of the layer before it are by then, where that has such ones.
              In the authors' code they start as ISTA's; with few steps they do not get far from there
    fade      layer k's rates are fade^k times those of layer 0; 1 in the authors' code

    Their code also multiplies a layer's gradients by 0.3 for each layer that came after it. Adam's steps do not feel a
    constant factor, and theirs is started anew in each phase, as here: it is left out.
    """
    count = 1 + len(factors)
    steps = tuple(steps) if isinstance(steps, (tuple, list)) else (steps,) * count
    if len(steps) != count:
        raise UserError(f"stages: steps must be a number or {count} of them, got {steps}")
    steps = [whole("stages", "steps", value) for value in steps]
    rates = [number("stages", "lr", lr, low=0) * factor for factor in (1.0, *factors)]
    waits = None if patience is None else ("nmse", whole("stages", "patience", patience))
    fade = number("stages", "fade", fade, low=0, high=1, open_low=True)
    found, before = [], set()
    for k in range(form.layers):
        own, copies = form.own(k), {}
        for name in own if warm and k else ():
            above = f"{k - 1}.{name.split('.')[-1]}"
            copies |= {name: above} if above in before else {}
        for kind, (most, rate) in enumerate(zip(steps, rates, strict=True)):
            names = form.up_to(k + 1) if kind else own
            more = {"copies": copies} if copies and not kind else {}
            stop = Stop(steps=most, patience=waits)
            found.append(Phase(Adam(), rate * fade**k, stop, names=tuple(names), depth=k + 1, **more))
        before = set(own)
    return found
