"""A training step (fresh samples, forward, loss, backward, Adam) of LISTA, 16 layers, batch 64, m = 250, n = 500,
beside PyTorch on the same cores.

    python benchmarks/unrolled.py --write

Both sides start at the same variables and draw their own samples of the same kind. "start" is the untrained network,
"trained" one after 300 steps of all layers together: npopt's time depends on how many entries are not 0, which the last
columns tell. PyTorch runs eagerly with fused Adam; `compiled` is npopt's time as a part of torch.compile's.
"""

from pairs import Table, alternate, arguments, torch  # isort: skip (before NumPy)

from npopt import Adam, backend
from problems.unrolled import LISTA, LISTACP, SUPPORT, SparseCodes, Unrolled

import numpy as np

TARGET, RATE = 0.6, 1e-5  # so small that the network stays where it is
CASES = {"LISTA-CP": LISTACP(16), "LISTA-CPSS": LISTACP(16, support=SUPPORT), "LISTA": LISTA(16)}


def ours(problem, x, rate=RATE):
    """A function that makes a step from a copy of x, and the copy."""
    x, g, method, at = x.copy(), np.empty_like(x), Adam(), [0]
    method.start(x)

    def step():
        problem.begin(at[0])
        problem.value_and_gradient(x, out=g)
        method.step(x, g, rate)
        at[0] += 1

    return step, x


def theirs(problem, x, compiled=False):
    """The same of PyTorch: the layers written as one would."""
    form, A = problem.form, torch.from_numpy(problem.source.dictionary().astype("float32"))
    v = {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in problem.views(x).items()}
    kept = [form.kept(k, problem.source.n) for k in range(form.layers)]
    adam = torch.optim.Adam(v.values(), RATE, fused=True)

    def loss():
        truth = torch.randn(problem.n, A.shape[1]) * (torch.rand(problem.n, A.shape[1]) < problem.source.density)
        b = truth @ A.T
        y, c = None, b @ v["B"].T if "B" in v else None
        for k in range(form.layers):
            theta = v[f"{k}.theta"]
            if c is not None:
                u, theta = c if y is None else c + y @ v[f"{k}.V"], theta.clamp_min(0)
            else:
                u = b @ v["0.W"].T if y is None else y + (b - y @ A.T) @ v[f"{k}.W"].T
            size = u.abs()
            y = u.sign() * (size - theta).clamp_min(0)
            if kept[k]:
                cut = size.detach().topk(kept[k] + 1, dim=1).values[:, -1:]
                y = torch.where((size > theta) & (size > cut), u, y)
        return 0.5 * (y - truth).square().sum() / problem.n

    function = torch.compile(loss) if compiled else loss

    def step():
        adam.zero_grad(set_to_none=True)
        function().backward()
        adam.step()

    return step


def beside_compiled(mine, problem, x, rounds):
    """The median ratio of our step to torch.compile's, as text; why not, where it does not compile here."""
    try:
        a, b = alternate(mine, theirs(problem, x, compiled=True), rounds)
    except Exception as error:  # no compiler for it, or one that it does not know
        return type(error).__name__
    return f"{np.median(a / b):.2f}"


def main():
    args = arguments(__doc__, rounds=15).parse_args()
    backend.threads(args.threads)
    if torch:
        torch.set_num_threads(args.threads)
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    title = f"Training step, 16 layers, batch 64, 250 x 500, float32, {args.threads} threads each, alternated"
    table = Table(title, "npopt", rival, ("compiled", "share not 0"))
    notes = []
    for name, form in CASES.items():
        problem = Unrolled(form, SparseCodes())
        x = problem.x0(None)
        for state in ("start", "trained"):
            if state == "trained":
                step, x = ours(problem, x, 1e-3)
                for _ in range(300):
                    step()
            share = np.mean([(y != 0).mean() for y in problem.outputs(x, problem.samples()[0])])
            mine, _ = ours(problem, x)
            other = theirs(problem, x) if torch else None
            compiled = beside_compiled(mine, problem, x, args.rounds) if torch else "-"
            found = table.add(f"{name}, {state}", mine, other, args.rounds, compiled, f"{share:.2f}")
            notes.append(f"{name}, {state}: {found:.2f}")
    if torch:
        table.note(f"Ratios to eager (target {TARGET}): " + "; ".join(notes) + ".")
    if args.write:
        table.write("unrolled.txt")


if __name__ == "__main__":
    main()
