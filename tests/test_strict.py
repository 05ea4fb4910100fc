"""The stand-in for a GPU: what it refuses, what it counts, and whether its table is that of the CuPy at hand."""

from npopt import backend

import cupy_table
import numpy as np
import pytest
import strict_moves
import strict_rules as rules
from strict import StrictArray


@pytest.fixture(autouse=True)
def strict_device():
    backend.use("strict")
    yield
    backend.use("cpu")


def a(*values, dtype="float64"):
    return backend.asarray(np.array(values, dtype))


def test_the_table_is_that_of_the_cupy_at_hand():
    cupy = pytest.importorskip("cupy")
    if cupy.__version__ != rules.TABLE["cupy"]:
        pytest.skip(f"the table is CuPy {rules.TABLE['cupy']}'s, here is {cupy.__version__}")
    assert cupy_table.table(cupy) == rules.TABLE


def test_the_table_is_read_as_python_reads_parameters():
    for group in ("functions", "methods"):
        for parameters in rules.TABLE[group].values():
            rules.signature(parameters)
    assert cupy_table.described(lambda: 0) is None
    said = type("f", (), {"__doc__": "_base.sort(self, int axis=-1, kind=None) -> None\n\nSorts."})
    assert cupy_table.described(said) == "axis=0, kind=0"
    assert cupy_table.short(rules.signature("a, /, b=1, *c, d, **e").parameters.values()) == "a, b=0, *c, d, **e"
    assert cupy_table.short(rules.signature("a, *, d=2").parameters.values()) == "a, *, d=0"


def tried(function, args, named):
    try:
        return function(*args, **named)
    except TypeError:
        return None


def test_the_quick_way_to_bind_takes_what_python_s_own_takes():
    calls, taken = [(range(n), {}) for n in range(9)], 0
    calls += [((1,), {"axis": 2}), ((1, 2), {"axis": 3}), ((1,), {"out": 2}), ((1, 2), {"nothing": 3}), ((), {"a": 1})]
    for parameters in (*rules.TABLE["functions"].values(), *rules.TABLE["methods"].values()):
        for args, named in calls:
            quick = tried(rules.binder(parameters), args, named)
            slow = tried(rules.signature(parameters).bind, args, named)
            assert (quick is None) == (slow is None), (parameters, args, named)
            assert slow is None or quick.items() >= slow.arguments.items()
            taken += slow is not None
    assert taken > 1000


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda m, x: m.sum(x, where=x > 0), r"sum\(a, axis=..., dtype=..., out=..., keepdims=...\) does not take"),
        (lambda m, x: x.max(initial=0.0), r"ndarray.max\(.*unexpected keyword argument 'initial'"),
        (lambda m, x: m.add(x, x, where=x > 0), "the ufunc add takes casting, dtype, out, not where="),
        (lambda m, x: m.add(x, [1.0, 2.0]), "the ufunc add takes arrays and numbers, not list"),
        (lambda m, x: m.add(x), "the ufunc add takes 2 arguments and 1 out, got 1"),
        (lambda m, x: m.sum([1.0, 2.0]), "sum takes arrays, not a list"),
        (lambda m, x: m.add.reduceat(x, [0, 1]), "add.reduceat: methods of ufuncs are not in the table"),
        (lambda m, x: m.einsum("i,i->i", x, x, out=x), "einsum.*unexpected keyword argument 'out'"),
        (lambda m, x: m.einsum("i->i", x, order="C"), "einsum.*unexpected keyword argument 'order'"),
        (lambda m, x: m.ones_like(x, subok=True, where=1), "ones_like"),
        (lambda m, x: m.frompyfunc(abs, 1, 1), "CuPy .* has no frompyfunc"),
        (lambda m, x: m.errstate(all="ignore"), "CuPy .* has no errstate"),
        (lambda m, x: m.longdouble, "CuPy .* has no longdouble"),
        (lambda m, x: m.linalg.multi_dot([x, x]), "CuPy .* has no linalg.multi_dot"),
        (lambda m, x: m.random.rand(2), "xp.random is not used on devices"),
        (lambda m, x: x.resize(3), "the arrays of CuPy .* have no resize"),
        (lambda m, x: backend.asarray(np.array([{}, 1], object)), "array of object, which CuPy cannot hold"),
        (lambda m, x: backend.asarray(np.array(["a"])), "array of <U1, which CuPy cannot hold"),
        (lambda m, x: x.astype("longdouble"), "which CuPy cannot hold"),
        (lambda m, x: x + [1.0, 2.0], "__add__ of a device array and a list"),
        (lambda m, x: x.__setitem__(slice(None), [1.0, 2.0]), "a list was assigned to a device array"),
        (lambda m, x: x.__setitem__(0, np.float32(1)), "a NumPy scalar"),
        (lambda m, x: m.matmul(m.eye(2), x, out=m.empty(4)[::2]), "float64 with gaps, but cuBLAS writes contiguous"),
        (lambda m, x: m.matmul(x[None], x, out=m.empty(1, "float32")), "out is float32, but cuBLAS writes"),
        (lambda m, x: m.matmul(x[:, None], x[None], out=x[None]), "out overlaps an operand"),
        (lambda m, x: x.dot(x, m.empty((), "float32")), "dot: out is float32"),
        (lambda m, x: x.item(), "read on the host"),
        (lambda m, x: x.tolist(), "read on the host"),
        (lambda m, x: round(x[0]), "read on the host"),
        (lambda m, x: 1.0 in x, "read on the host"),
        (lambda m, x: x[: x[0]], "read on the host"),
        (lambda m, x: range(x[0]), "read on the host"),
    ],
)
def test_refused(wrong, says):
    with pytest.raises(TypeError, match=says):
        wrong(backend.xp(), a(1.0, 2.0))


def test_allowed_and_equal_to_numpy(rng):
    m, host = backend.xp(), rng.standard_normal((3, 4))
    x = backend.asarray(host)
    for found, expected in [
        (m.sum(x, axis=0, dtype="float32"), host.sum(0, dtype="float32")),
        (x.sum(), host.sum()),
        (m.einsum("ij,ij->i", x, x, optimize=True), (host * host).sum(1)),
        (m.add(x, 2, out=m.empty((3, 4))), host + 2),
        (m.stack([x[0], x[1]]), host[:2]),
        (m.linalg.norm(x, axis=1), np.linalg.norm(host, axis=1)),
        (m.where(x > 0, x, 0.0), np.where(host > 0, host, 0)),
        (x.astype("float32").dot(x[0].astype("float32")), host.astype("float32") @ host[0].astype("float32")),
    ]:
        assert isinstance(found, StrictArray) and found.dtype == expected.dtype
        np.testing.assert_allclose(found.inner, expected, rtol=1e-6)
    m.copyto(x, 0.0, where=x > 0)
    np.testing.assert_array_equal(x.inner, np.minimum(host, 0))
    assert not hasattr(x.flags, "writeable") and x.flags.c_contiguous and not hasattr(x, "ctypes")
    assert m.result_type(x.dtype, np.float32) == np.float64 and m.shape(x) == (3, 4)


def test_of_places_named_twice_any_value_may_stay():
    x, rows = a(0.0, 0.0, 0.0), a(1, 2, 1, dtype="int64")
    x[rows] = a(5.0, 6.0, 7.0)
    np.testing.assert_array_equal(x.inner, [0, 5, 6])  # NumPy: [0, 7, 6]
    x[rows] = a(8.0, 9.0, 8.0)
    np.testing.assert_array_equal(x.inner, [0, 8, 9])
    table = backend.zeros((3, 2), "float64")
    table[rows] = backend.asarray(np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(table.inner, [[0, 0], [0, 1], [2, 3]])
    table[rows, a(0, 0, 0, dtype="int64")] = 4.0
    np.testing.assert_array_equal(table.inner, [[0, 0], [4, 1], [4, 3]])
    with pytest.raises(IndexError):
        x[a(3, dtype="int64")]


def test_moves_are_counted_with_who_made_them():
    m = backend.xp()
    with strict_moves.counted() as moves:
        x = backend.asarray([3.0, -1.0, 2.0])
        y = x[x > 0]
        m.nonzero(x)
        m.unique(x)
        x[[0, 2]] = 1.0
        x[x > 0] = 0.0
        total = backend.to_host(y.sum())
        with strict_moves.counted() as inner:
            backend.to_host(x)
    assert total == 5.0
    assert [move.size for move in moves.reads] == [1, 3] and [move.size for move in inner.reads] == [3]
    assert [move.size for move in moves.uploads] == [3, 2] and len(moves.waits) == 3
    assert moves.calls > 5 and moves.in_steps() == ([], [], []) and len(moves.all) == 7
    assert "by the test" in repr(moves.reads[0])
    backend.to_host(x)
    assert len(moves.reads) == 2
