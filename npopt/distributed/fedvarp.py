"""FedVARP: Jhunjhunwala, Sharma, Nagarkatti & Joshi, UAI 2022, arXiv:2207.14130.

    client:   D_i = (x - y_i) / (lr steps), y_i after `steps` steps of SGD from x
    server:   v = (1/N) sum_j h_j + (1/|S|) sum_{i in S} (D_i - h_i),    x <- x - server_lr lr steps v,
              h_i <- D_i for i in S,    h_i^0 = 0

The server keeps the last answer of every client, N d numbers, and so takes out the variance of who takes part. The
drift of local steps stays. All clients count alike.
"""

from npopt.distributed.fedavg import FedAvg


class FedVARP(FedAvg):
    """Arguments, messages and client are those of FedAvg. What does not come in time is not in S."""

    def server(self, me):
        x = me.start()
        h = [0 * x for _ in me.shares]  # by rank
        x, h, mean, t = me.state(x, h, 0 * x, 0)
        while True:
            chosen = me.sample(t, self.share)
            for i in chosen:
                me.send(i, x)
            answers = yield me.receive_from(chosen, self.patience)
            came = {i: change for i, change in zip(chosen, answers, strict=True) if change is not None}
            new = {i: change / (-self.lr * self.steps) for i, change in came.items()}
            v = mean + sum(new[i] - h[i] for i in new) / max(1, len(new))
            x -= self.server_lr * self.lr * self.steps * v
            for i in new:
                mean += (new[i] - h[i]) / me.count
                h[i] = new[i]
            t += 1
            yield me.show(x, h, mean, t)
