"""A backward pass without g: the gradient of a layer goes on as soon as the layer is done, and its memory with it."""

from npopt import backend
from npopt.errors import UserError

from .layer import named


class Release:
    """What a network is bound to in the place of g, so that `backward` hands out its gradient piece by piece.

        release = Release(network)
        network.bind(x, release, active)
        y, saved = network.forward(inputs, run)
        dx = release.backward(lambda: network.backward(dy, saved, run), take)

    take(segment, gradient) gets the flat gradient of each trained segment once, the last layer's first. A layer's
    pieces are handed on when the next layer asks for its own, so take may write into the parameters of x that they
    belong to: no layer below reads them. A shared segment waits for all its users. At most the gradient of one layer
    exists at a time, beside those of shared segments.
    """

    def __init__(self, network):
        self.network = network

    def backward(self, run_backward, take):
        """What run_backward() returns."""
        held = [user for user in self.network.owners if vars(user[0]).get("d" + user[1]) is self]
        one = Handing(self.network, held, take)
        for layer, parameter in held:
            delattr(layer, "d" + parameter)
            layer.made_when_asked = one.made
        try:
            dx = run_backward()
            one.finish()
        finally:
            for layer, parameter in held:
                layer.made_when_asked = None
                setattr(layer, "d" + parameter, self)
        return dx


class Handing:
    """One backward pass: the gradients of the layer that is at work, and those of segments that wait for others."""

    def __init__(self, network, held, take):
        self.network, self.take = network, take
        self.left, self.layer, self.open, self.waiting = set(held), None, {}, {}
        self.dtype = network.bound_type

    def made(self, layer, name):
        """Memory for a gradient that its layer asks for."""
        parameter = name[1:]
        if layer is not self.layer:
            self.flush()
            self.layer = layer
        if parameter not in self.open:
            if (layer, parameter) not in self.left:
                raise UserError(
                    f"{named(layer, parameter)}: its gradient was handed on when another layer asked for its own; "
                    "write it to the end before others go back, or take Minibatch()"
                )
            segment = self.network.owners[layer, parameter]
            self.open[parameter] = backend.empty(segment.shape, self.dtype)
        return self.open[parameter]

    def flush(self):
        """Hand on what the layer has written."""
        while self.open:
            parameter, gradient = self.open.popitem()
            user = self.layer, parameter
            self.left.remove(user)
            segment = self.network.owners[user]
            users = self.network.users[segment.name]
            if len(users) > 1:
                waiting = self.waiting.setdefault(segment.name, {})
                waiting[users.index(user)] = gradient
                if len(waiting) < len(users):
                    continue
                gradient = waiting.pop(len(users) - 1)  # summed in the order of Network.add_shared
                for i in range(len(users) - 1):
                    gradient += waiting.pop(i)
            self.take(segment, gradient.reshape(-1))

    def finish(self):
        self.flush()
        if self.left:
            names = ", ".join(sorted(named(*user) for user in self.left))
            raise UserError(f"{names}: backward has not written this gradient, and no other step knows it")
