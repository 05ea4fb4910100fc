"""The GPU's benchmark, at sizes of a few numbers, on the stand-in."""

import pathlib
import sys

import cudashim
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)


@pytest.mark.slow
def test_the_benchmark_runs(monkeypatch, tmp_path, capsys, shim):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("pairs", "steps", "gpu_tools", "gpu_pieces", "gpu_attention", "nn_gpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import gpu_attention
    import gpu_pieces
    import gpu_tools
    import nn_gpu
    import steps

    small = {
        "ResNet-18, batch 128": ("resnet", 2, dict(width=1, image=8)),
        "LeNet-5, batch 64": ("lenet", 2, {}),
        "MLP, batch 256": ("mlp", 2, {}),
    }
    monkeypatch.setattr(nn_gpu, "CASES", small)
    monkeypatch.setattr(nn_gpu, "RESULTS", tmp_path)
    once = dict(best=lambda function, rounds=1: gpu_tools.sample(function, 1), calls_of=lambda function: 1)
    for name, value in once.items():
        monkeypatch.setattr(gpu_tools, name, value)
    sizes = dict(COPY=64, SQUARE=8, PASSES=1, PARAMETERS=100, IMAGES=((4, 32), (4, 64)), STREAMS=2, TIMES=2, UNITS=3)
    for name, value in sizes.items():
        monkeypatch.setattr(gpu_pieces, name, value)
    monkeypatch.setattr(gpu_attention, "SIZES", ((1, 9, 1, 8),))
    monkeypatch.setattr(gpu_attention, "ROWS", ((3, 8),))
    monkeypatch.setitem(steps.SHAPES, "resnet", (8, 8, 3))
    nn_gpu.main(["--device", "shim", "--rounds", "2", "--write"])
    text = (tmp_path / "nn_gpu.txt").read_text()
    assert text.strip() in capsys.readouterr().out
    for words in (
        "Limits: copy",
        "LeNet-5, batch 64, npopt, TF32",
        "batch 64, npopt, bfloat16",
        "columns summed, 4x4x32",
        "dW, 4x4x64",
        "AdamW, 0.0 M",
        "AdamW in 8 bits",
        "GRU",
        "dW, in",
        "1 x 9 tokens, 1 x 8, causal, float16",
        "3 x 8, backward",
    ):
        assert words in text
    nn_gpu.main(["--device", "shim", "--rounds", "2", "--seconds", "0"])
    assert "MLP, batch 256: left out" in capsys.readouterr().out
