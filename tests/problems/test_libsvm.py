"""The LIBSVM reader: what it returns, and file:line for what it refuses."""

import bz2
import gzip
import os
import pathlib

from problems import libsvm

import numpy as np
import pytest
import scipy.sparse as sp


@pytest.fixture
def write(tmp_path):
    def write(text, name="data"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


TEXT = "+1 1:0.5 3:-2\n# a comment\n\n-1 2:1e-3 # and another\n1\n"


@pytest.mark.parametrize("name, pack", [("a", bytes), ("a.gz", gzip.compress), ("a.bz2", bz2.compress)])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_come_back_from_every_packing(name, pack, ends, dtype, write):
    found = libsvm.read(write(pack(TEXT.replace("\n", ends).encode()), name), dtype=dtype)
    assert sp.issparse(found.X) and found.X.format == "csr"
    assert (found.X.dtype, found.X.indices.dtype, found.y.dtype) == (dtype, np.int32, dtype)
    expected = np.array([[0.5, 0, -2], [0, 1e-3, 0], [0, 0, 0]], dtype)
    np.testing.assert_array_equal(found.X.toarray(), expected)
    assert list(found.y) == [1, -1, 1] and found.labels == (-1.0, 1.0) and found.base == 1
    assert found.X_test is found.y_test is None
    dense = libsvm.read(write(pack(TEXT.encode()), name), dense=True).X
    assert isinstance(dense, np.ndarray) and dense.flags.c_contiguous


def test_numbers_are_read_to_the_last_bit(write):
    rng = np.random.default_rng(0)
    values = np.r_[rng.standard_normal(200) * 10.0 ** rng.integers(-300, 300, 200), 5e-324, 1.7976931348623157e308]
    text = "1 " + " ".join(f"{i + 1}:{v!r}" for i, v in enumerate(values.tolist())) + "\n2.5 1:.5 2:5. 3:+1E+2 4:-0"
    found = libsvm.read(write(text), kind="regression", dense=True)
    np.testing.assert_array_equal(found.X[0], values)
    np.testing.assert_array_equal(found.X[1, :4], [0.5, 5, 100, 0])
    assert list(found.y) == [1, 2.5] and found.labels is None


def test_an_index_may_have_a_plus_sign(write):
    found = libsvm.read(write("1 +1:2 +3:-1\n2 2:+5\n"), kind="regression", dense=True)
    assert found.X.tolist() == [[2, 0, -1], [0, 5, 0]] and found.base == 1


def test_lines_are_counted_alike_for_every_line_end(write):
    for end in ("\n", "\r\n", "\r"):
        with pytest.raises(ValueError, match="data:3: expected index:value, got 'x'"):
            libsvm.read(write(end.join(("1 1:1", "", "2 x", "1 1:1"))))


def test_train_and_test_get_one_width(write):
    train, test = write("1 1:1\n2 3:1\n", "train"), write("2 5:1\n1 1:1\n", "test")
    found = libsvm.read(train, test)
    assert found.X.shape == (2, 5) and found.X_test.shape == (2, 5)
    assert list(found.y) == [-1, 1] and list(found.y_test) == [1, -1]
    assert libsvm.read(train, test, n_features=9).X.shape == (2, 9)
    with pytest.raises(ValueError, match=r"test:1: index 5 is outside the 4 columns"):
        libsvm.read(train, test, n_features=4)


def test_the_index_base_is_found_over_both_files(write):
    ones, zeros = write("1 1:7 2:8\n2 2:9\n", "ones"), write("2 0:5 2:6\n", "zeros")
    assert libsvm.read(ones).base == 1 and libsvm.read(ones).X.toarray()[0].tolist() == [7, 8]
    found = libsvm.read(ones, zeros)  # the test file alone shows that indices count from 0
    assert found.base == 0
    assert found.X.toarray()[0].tolist() == [0, 7, 8] and found.X_test.toarray()[0].tolist() == [5, 0, 6]
    assert libsvm.read(ones, base=0).X.shape == (2, 3)
    with pytest.raises(ValueError, match="zeros: an index is 0, but base=1"):
        libsvm.read(ones, zeros, base=1)


@pytest.mark.parametrize("labels", [("0", "1"), ("1", "2"), ("-1", "+1"), ("2.000000", "4")])
def test_two_labels_of_any_value_become_minus_and_plus_one(labels, write):
    path = write(f"{labels[1]} 1:1\n{labels[0]} 1:1\n")
    found = libsvm.read(path)
    assert list(found.y) == [1, -1] and found.labels == (float(labels[0]), float(labels[1]))


def test_many_labels_become_classes_in_the_order_of_their_numbers(write):
    found = libsvm.read(write("10 1:1\n-3 1:1\n2 1:1\n10 1:1\n"), write("2 1:1\n", "t"), kind="multiclass")
    assert list(found.y) == [2, 0, 1, 2] and found.y.dtype == np.int64 and list(found.y_test) == [1]
    assert found.labels == (-3.0, 2.0, 10.0)


def test_a_folder_or_a_list_is_one_set_in_order(write, tmp_path):
    parts = [write(f"{i % 2} {i}:1\n", f"parts/part{i}") for i in (1, 2, 3)]
    by_folder, by_list = libsvm.read(tmp_path / "parts"), libsvm.read(parts)
    for found in (by_folder, by_list):
        np.testing.assert_array_equal(found.X.toarray(), np.eye(3))
        assert list(found.y) == [1, -1, 1] and found.X.indices.dtype == found.X.indptr.dtype == np.int32
    with pytest.raises(ValueError, match=r"part3:1: label 1 does not occur in the training set"):
        libsvm.read(write("0 1:1\n2 1:1\n", "other"), parts[1:])


@pytest.mark.parametrize(
    "line, says",
    [
        ("x 1:1", "must start with a number, the label, got 'x'"),
        ("1:1 2:1", "must start with a number, the label, got '1:1'"),
        ("1,2 1:1", "must start with a number"),
        ("0x10 1:1", "must start with a number"),
        ("1 2", "expected index:value, got '2'"),
        ("1 2:", "expected index:value, got '2:'"),
        ("1 :3", "expected index:value, got ':3'"),
        ("1 2:1:3", "expected index:value, got '2:1:3'"),
        ("1 2:1_0", "expected index:value"),
        ("1 1.5:1", "expected index:value, got '1.5:1'"),
        ("1 a:1", "expected index:value, got 'a:1'"),
        ("1 +:1", "expected index:value, got '[+]:1'"),
        ("1 +-2:1", "expected index:value, got '[+]-2:1'"),
        ("1 -+2:1", "expected index:value, got '-[+]2:1'"),
        ("1 qid:3 1:1", "expected index:value, got 'qid:3'"),
        ("1 2:1e", "expected index:value"),
        ("1 2:.", "expected index:value"),
        ("nan 1:1", "'nan' is not a finite number"),
        ("-inf 1:1", "'-inf' is not a finite number"),
        ("1 2:NaN", "'2:NaN' is not a finite number"),
        ("1 2:+Infinity", "'2:[+]Infinity' is not a finite number"),
        ("1 2:1e999", "a number is too large"),
        ("1e999 2:1", "a number is too large"),
        ("1 -2:1", "the index of '-2:1' is negative"),
        ("1 2:1 2:3", "the index of '2:3' occurs twice"),
        ("1 3:1 2:1", "the index of '2:1' is smaller than the one before it"),
        ("1 100000001:1", "larger than 100,000,000"),
        ("1 99999999999999999999999:1", "larger than 100,000,000"),
        ("1 2:1\x00", "expected index:value"),
    ],
)
def test_a_bad_line_is_one_sentence_with_file_and_line(line, says, write):
    path = write(f"-1 1:1\n\n# comment\n{line}\n1 5:1\n")
    for kind in ("binary", "regression"):
        with pytest.raises(ValueError, match=says) as error:
            libsvm.read(path, kind=kind)
        assert str(error.value).startswith(f"{path}:4: ") and "\n" not in str(error.value)
    with pytest.raises(ValueError, match=says):  # in the second of two files, and unpacked
        libsvm.read(write("1 1:1\n2 1:1\n", "good"), write(gzip.compress(path.read_bytes()), "bad.gz"))


def test_a_number_too_large_for_float32_is_found_there(write):
    path = write("1 1:1\n2 1:1e39\n")
    assert libsvm.read(path).X.max() == 1e39
    with pytest.raises(ValueError, match=r"data:2: a number is too large for float32"):
        libsvm.read(path, dtype=np.float32)


@pytest.mark.parametrize(
    "text, kind, says",
    [
        ("", "binary", "data: the file holds no data"),
        ("\n# only this\n", "binary", "data: the file holds no data"),
        ("1\n2\n", "binary", "data: no line holds a feature"),
        ("1 1:1\n1 2:1\n", "binary", "data: all labels are 1"),
        ("1 1:1\n2 2:1\n3 1:1\n", "binary", "data: 3 different labels, not two; read it with kind='multiclass'"),
    ],
)
def test_a_file_without_a_problem_in_it_is_one_sentence(text, kind, says, write):
    with pytest.raises(ValueError, match=says):
        libsvm.read(write(text), kind=kind)


def test_labels_that_only_the_test_set_has_are_an_error(write):
    train = write("1 1:1\n3 1:1\n", "train")
    for kind in ("binary", "multiclass"):
        with pytest.raises(ValueError, match=r"test:3: label 2 does not occur in .*, whose labels are 1, 3"):
            libsvm.read(train, write("1 1:1\n\n2 1:1\n", "test"), kind=kind)
    assert list(libsvm.read(train, write("2 1:1", "test"), kind="regression").y_test) == [2]


def test_missing_and_truncated_files_are_one_sentence(write, tmp_path):
    with pytest.raises(ValueError, match="nowhere: cannot be read: No such file"):
        libsvm.read(tmp_path / "nowhere")
    for name, packed in (("a.gz", gzip.compress(TEXT.encode() * 99)), ("a.bz2", bz2.compress(TEXT.encode() * 99))):
        for damaged in (packed[:-9], packed[:20], b"plain text"):
            with pytest.raises(ValueError, match=f"{name}: the file is damaged or cut short"):
                libsvm.read(write(damaged, name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there is no file in this folder"):
        libsvm.read(tmp_path / "empty")


def test_bad_arguments_are_one_sentence(write):
    with pytest.raises(ValueError, match="kind must be one of binary, multiclass, regression, got 'both'"):
        libsvm.read(write(TEXT), kind="both")
    with pytest.raises(ValueError, match="base must be 0, 1 or None, got 2"):
        libsvm.read(write(TEXT), base=2)


@pytest.mark.parametrize(
    "name, kind, shape, nnz",
    [
        ("a9a", "binary", (32561, 123), 451592),
        ("splice", "binary", (1000, 60), 60000),
        ("mg_scale", "regression", (1385, 6), 8310),
    ],
)
def test_real_files_have_their_published_sizes(name, kind, shape, nnz):
    path = pathlib.Path(os.environ.get("NPOPT_DATA", "data")) / "libsvm" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    found = libsvm.read(path, kind=kind)
    assert found.X.shape == shape and found.X.nnz == nnz and found.base == 1
