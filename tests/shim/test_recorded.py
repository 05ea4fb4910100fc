"""Passes that are recorded once and replayed give the numbers of passes launched one by one, bit for bit."""

import types
import warnings
from types import SimpleNamespace

import nn
from npopt import AdamW, WithReplacement, backend, minimize
from npopt.backend import graphs
from problems import recorded
from problems.feeds import CropFlip, Images
from problems.neural import Neural

import cudashim
import numpy as np
import pytest
from noise import pictures

NETWORKS = {
    "perceptron": lambda: nn.mlp((64, 7, 3)),
    "resnet18": lambda: nn.resnet18(width=8, in_channels=1, classes=3, image=8),
}
shimmed = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
DEVICES = [pytest.param("shim", marks=shimmed), pytest.param("gpu", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def place(request):
    backend.use(request.param)
    yield request.param
    backend.use("cpu")


@pytest.fixture
def replays(monkeypatch, place):
    """How often each recording was replayed."""
    counts, kind = [], cudashim.Recorded if place == "shim" else graphs.Recorded
    make, call = kind.__init__, kind.__call__

    def made(self, *arguments):
        make(self, *arguments)
        self.number = len(counts)
        counts.append(0)

    def called(self):
        counts[self.number] += 1
        return call(self)

    monkeypatch.setattr(kind, "__init__", made)
    monkeypatch.setattr(kind, "__call__", called)
    return counts


def problem(name, rng, **options):
    return Neural(NETWORKS[name](), Images(pictures(rng, 64), CropFlip(2)), l2=1e-3, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_the_same_to_the_bit(name, replays, monkeypatch):
    found = []
    for least in (3, 1000):  # recorded, and launch by launch
        monkeypatch.setattr(recorded, "LEAST", least)
        made = problem(name, np.random.default_rng(5))
        run = minimize(made, AdamW(), WithReplacement(8), 1e-2, stop=dict(steps=9), seed=4)
        found.append([run.columns["loss"], run.columns["train_loss"], backend.to_host(run.x)])
        found[-1] += [v for layer in made.network.state().values() for v in layer.values()]
        if least == 3:
            assert replays == [7]
    assert replays == [7]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_kind_of_pass_is_a_recording_of_its_own(replays, monkeypatch):
    """Steps of two passes, as SAM takes them; weights; gradients of inputs; another vector; a smaller batch."""
    rng, found = np.random.default_rng(3), []
    for least in (3, 1000):
        monkeypatch.setattr(recorded, "LEAST", least)
        made = problem("resnet18", np.random.default_rng(5))
        x = made.x0(backend.generator(0, "x0"))
        other, g = x * 0.9, backend.empty(x.shape, x.dtype)
        numbers = []
        for t in range(12):
            rng = np.random.default_rng(t)
            rows = rng.integers(0, 64, 8 if t % 4 else 6)
            weights = backend.asarray(rng.random(len(rows)), "float32") if t % 2 else None
            dinputs = backend.empty((len(rows), 8, 8, 1), "float32") if t % 2 else None
            made.begin(t)
            for point in (x, other):
                loss = made.value_and_gradient(point, rows, weights, g, None, dinputs)
                numbers += [backend.to_host(loss), backend.to_host(g).copy()]
                if dinputs is not None:
                    numbers.append(backend.to_host(dinputs).copy())
            made.commit()
            x -= 0.1 * g
        numbers += [v for layer in made.network.state().values() for v in layer.values()]
        found.append(numbers)
    assert len(replays) == recorded.MOST and min(replays) > 0
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_passes_for_inputs_alone_leave_no_statistics_recorded_or_not(replays, monkeypatch):
    found = []
    for least in (3, 1000):
        monkeypatch.setattr(recorded, "LEAST", least)
        made = problem("resnet18", np.random.default_rng(5))
        x = made.x0(backend.generator(0, "x0"))
        g, d = backend.empty(x.shape, x.dtype), backend.empty((8, 8, 8, 1), "float32")
        for t in range(3):
            made.begin(t)
            for _ in range(2):
                made.value_and_gradient(x, np.arange(8) + t, None, None, None, d)
            assert made.network.pending is None
            made.value_and_gradient(x, np.arange(8) + t, None, g)
            made.commit()
        found.append([v for layer in made.network.state().values() for v in layer.values()])
    assert replays and min(replays) > 0
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_scale_may_change(replays):
    """It is multiplied in within the recording, and divided out after it."""
    made = problem("perceptron", np.random.default_rng(5), compute="float16", loss_scale=64.0)
    x = made.x0(backend.generator(0, "x0"))
    g = backend.empty(x.shape, x.dtype)
    norms = []
    for scale in 5 * [64.0] + 5 * [1024.0]:
        made.loss_scale = scale
        made.begin(0)
        made.value_and_gradient(x, np.arange(8), None, g)
        norms.append(np.linalg.norm(backend.to_host(g)))
    assert replays == [3, 3] and np.ptp(norms) < 1e-3 * norms[0]


def test_layers_that_draw_are_not_recorded(replays):
    rng = np.random.default_rng(0)
    NETWORKS["with dropout"] = lambda: nn.mlp((64, 7, 3), dropout=0.2)
    made = problem("with dropout", rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = minimize(made, AdamW(), WithReplacement(8), 1e-2, stop=dict(steps=5), seed=4)
    assert made.recordings.refused and replays == [] and len(run.columns["loss"])


@shimmed
def test_what_cannot_be_recorded_runs_launch_by_launch(shim, monkeypatch):
    def refuse(self, function):
        raise NotImplementedError("no graphs here")

    monkeypatch.setattr(cudashim.Shim, "recorded", refuse)
    made = problem("perceptron", np.random.default_rng(0))
    with pytest.warns(UserWarning, match="runs launch by launch.*no graphs here"):
        first = minimize(made, AdamW(), WithReplacement(8), 1e-2, stop=dict(steps=6), seed=4)
    monkeypatch.setattr(recorded, "LEAST", 1000)
    made = problem("perceptron", np.random.default_rng(0))
    again = minimize(made, AdamW(), WithReplacement(8), 1e-2, stop=dict(steps=6), seed=4)
    np.testing.assert_array_equal(first.x, again.x)


@shimmed
def test_a_profile_sees_every_pass(shim):
    made = problem("perceptron", np.random.default_rng(0))
    x = made.x0(backend.generator(0, "x0"))
    g = backend.empty(x.shape, x.dtype)
    with nn.Profile() as profile:
        for _ in range(5):
            made.value_and_gradient(x, [1, 2], None, g)
    assert list(profile.passes.values()) == [[5, 5]] and nn.Network.recordable


class Cuda:
    """The calls that Recorded makes, in their order."""

    def __init__(self):
        self.calls, cuda = [], self
        self.runtime = SimpleNamespace(streamCaptureModeRelaxed=2)

        class Stream:
            ptr = 7

            def __enter__(self):
                cuda.calls.append("on the stream")

            def __exit__(self, *_):
                cuda.calls.append("off the stream")

            def begin_capture(self, mode):
                cuda.calls.append(f"begin {mode}")

            def end_capture(self):
                cuda.calls.append("end")
                return SimpleNamespace(launch=lambda stream: cuda.calls.append(f"launch on {stream}"))

            def synchronize(self):
                cuda.calls.append("wait")

        self.Stream, self.MemoryPool = Stream, lambda: SimpleNamespace(malloc="malloc")

    def using_allocator(self, malloc):
        assert malloc == "malloc"
        return warnings.catch_warnings()

    def get_current_stream(self):
        return "the current stream"


def test_a_recording_is_made_in_order_and_ends_where_its_function_fails(monkeypatch):
    cuda = Cuda()
    device = SimpleNamespace(
        module=SimpleNamespace(
            cuda=cuda,
            get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: cuda.calls.append("free")),
        ),
        recorder=None,
        recording=None,
        recordings=set(),
        cublas=lambda: cuda.calls.append("cuBLAS"),
    )
    monkeypatch.setattr(graphs, "Cublas", lambda device, stream: SimpleNamespace(stream=stream))

    def function():
        assert device.recording is device.recorder is not None
        cuda.calls.append("function")
        return len(cuda.calls)

    made = graphs.Recorded(device, function)
    assert cuda.calls == "cuBLAS,free,on the stream,function,begin 2,function,end,off the stream,wait".split(",")
    assert made() == made() == 6 and cuda.calls[9:] == 2 * ["launch on the current stream"]
    assert device.recording is None

    def fails():
        function()
        if "begin 2" in cuda.calls[11:]:
            raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        graphs.Recorded(device, fails)
    assert cuda.calls[11:] == "free,on the stream,function,begin 2,function,end,off the stream".split(",")
    assert device.recording is None


def test_a_status_of_cublas_is_an_error(monkeypatch):
    def function(name):
        def call(*arguments):
            calls.append((name, arguments))
            return 13 * (name == "cublasGemmStridedBatchedEx")

        return call

    class Library:
        def __getattr__(self, name):
            found = function(name)
            setattr(self, name, found)
            return found

    calls = []
    monkeypatch.setattr(graphs, "_library", Library)
    device = SimpleNamespace(
        module=SimpleNamespace(empty=lambda n, dtype: SimpleNamespace(data=types.SimpleNamespace(ptr=64)))
    )
    made = graphs.Cublas(device, SimpleNamespace(ptr=7))
    assert [name for name, _ in calls] == ["cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2"]
    numbers = {name: value for name, value in vars(graphs.Cublas).items() if name.startswith("CUBLAS")}
    assert numbers == {name: value for name, value in vars(cudashim.Cublas).items() if name.startswith("CUBLAS")}
    with pytest.raises(RuntimeError, match="status 13"):
        made.gemmStridedBatchedEx("handle", 1, 2)
    assert calls[-1] == ("cublasGemmStridedBatchedEx", ("handle", 1, 2))
