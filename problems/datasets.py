"""Data sets by name: load("mnist"), load("a9a"). `names()` lists them.

    digits, breast_cancer, diabetes      bundled with scikit-learn: nothing to download
    mnist, fashion-mnist                 idx files, 28x28x1
    cifar-10                             binary records, 32x32x3: data_batch_1.bin, ..., test_batch.bin or the tar.gz
    cifar-10-jpeg                        the same pictures after JPEG compression, hence other data: its numbers are not
                                         CIFAR-10's; train.zip and test.zip of class/NNNN.jpg; nowhere to download
    a9a, w8a, abalone, news20, ...       the LIBSVM collection, in its scaled variant where it has one

Sources: LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86(11), 1998 (mnist); Xiao, Rasul & Vollgraf, arXiv:1708.07747,
2017 (fashion-mnist); Krizhevsky, tech. report, Toronto, 2009 (cifar-10); Chang & Lin, ACM TIST 2(3), 2011 (LIBSVM).
"""

import dataclasses
import difflib
import functools
import hashlib

from npopt import checkpoint
from npopt.errors import UserError
from npopt.values import whole
from problems import files, libsvm
from problems.splits import channel_statistics, column_statistics, split, standardise

import numpy as np
import scipy.sparse

SPLIT = {"fraction": 0.2, "seed": 0}                        # where a set comes without test rows


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set, split into training, test and perhaps validation rows.

    x_*          images: uint8 (n, H, W, C); otherwise float (n, d), dense or CSR
    y_*          images and multi-class sets: int64 0..C-1; binary sets: -1 and +1 as floats; regression: floats
    classes      names in the order of the labels (for -1 and +1, too); None for regression
    mean, std    over the training rows alone: of the channels of images, in the units of x (0..scale); of the columns
                 of dense rows, before standardisation, constant columns having std 1; None for sparse rows
    scale        the largest pixel value, 255 or 16; 1 where x is not an image
    sha256       of the source files together (of the arrays, for bundled sets)
    source       where the rows come from and what was done to them, as text
    """

    name: str
    task: str
    x_train: object
    y_train: np.ndarray
    x_test: object
    y_test: np.ndarray
    classes: tuple
    sha256: str
    source: str
    scale: float = 1.0
    mean: np.ndarray = None
    std: np.ndarray = None
    x_validation: object = None
    y_validation: np.ndarray = None

    @property
    def rows(self):
        """The number of rows of all parts."""
        return sum(len(y) for y in (self.y_train, self.y_test, self.y_validation) if y is not None)

    @property
    def images(self):
        return self.x_train.ndim == 4

    def part(self, rows, seed=0):
        """The set with so many of its training rows (all, if it has fewer), in a random order; mean and std stay those
        of all of them. rows None: the set as it is."""
        if rows is None:
            return self
        chosen = np.random.default_rng(seed).permutation(len(self.y_train))[:whole("part", "rows", rows)]
        text = f"{self.source}; {len(chosen)} of {len(self.y_train)} training rows, seed {seed}"
        return dataclasses.replace(self, x_train=self.x_train[chosen], y_train=self.y_train[chosen], source=text)

    def with_validation(self, fraction=0.1, seed=0):
        """The set with that part of its training rows held out for validation; mean and std are those of the rest."""
        kept, held = split(len(self.y_train), fraction, seed)
        return dataclasses.replace(
            self,
            x_train=self.x_train[kept],
            y_train=self.y_train[kept],
            x_validation=self.x_train[held],
            y_validation=self.y_train[held],
            source=f"{self.source}; validation: {fraction:g} of the training rows, seed {seed}",
        ).measured()

    def measured(self):
        """The set with mean and std of its training rows."""
        if scipy.sparse.issparse(self.x_train):
            return dataclasses.replace(self, mean=None, std=None)
        mean, std = (channel_statistics if self.images else column_statistics)(self.x_train)
        return dataclasses.replace(self, mean=mean, std=std)

    def standardised(self):
        """Columns of dense rows moved and scaled to mean 0 and standard deviation 1 over the training rows."""
        if self.images:
            raise UserError(f"{self.name}: images keep their bytes; normalise a batch with mean and std")
        parts = [x for x in (self.x_train, self.x_test, self.x_validation) if x is not None]
        *parts, mean, std = standardise(*parts)
        parts += [None] * (3 - len(parts))
        return dataclasses.replace(
            self,
            **dict(zip(("x_train", "x_test", "x_validation"), parts, strict=True)),
            mean=mean,
            std=std,
            source=f"{self.source}; standardised by the training rows",
        )


def load(name, validation=0.0, seed=0, standard=None, dense=None, dtype=np.float64, check=True, rows=None):
    """The Dataset of that name.

    rows         training rows that are kept, drawn at random; None: all
    validation   fraction of those rows that is held out, with `seed`
    standard     standardise the columns; None: only breast_cancer and diabetes, whose columns have raw units
    dense        LIBSVM rows as an array (True) or CSR (False); None: an array if at least a quarter of it is non-zero
    dtype        of x (and of y, but for class numbers) where x is not an image: float64 or float32
    check        hold files to the known checksums

    Rows without a test file are split 80/20 with seed 0, which `source` records.
    """
    if name not in READERS:
        near = difflib.get_close_matches(str(name), READERS, n=1, cutoff=0.0)[0]
        raise UserError(f"no data set is named {name!r}; the nearest name is {near!r}; all: {', '.join(names())}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise UserError(f"load: dtype must be float32 or float64, got {dtype!r}")
    found = READERS[name](name, np.dtype(dtype), dense, check).measured().part(rows)
    if validation:
        found = found.with_validation(validation, seed)
    if name in ("breast_cancer", "diabetes") if standard is None else standard:
        found = found.standardised()
    return found


@functools.lru_cache(maxsize=4)
def shared(name, **more):
    """`load(name, ...)`, kept: all problems of a process share the arrays, which nobody may write to."""
    return load(name, **more)


def names():
    """The names that `load` knows."""
    return sorted(READERS)


def combined(hashes):
    """One sha256 of several files' (name, sha256)."""
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in sorted(hashes)).encode()).hexdigest()


def of_files(paths):
    return combined((path.name, files.digest(path)) for path in paths)


def divided(x, y):
    """(x_train, y_train, x_test, y_test, text) by the fixed split."""
    kept, held = split(len(y), **SPLIT)
    return x[kept], y[kept], x[held], y[held], "no test rows of its own: split 80/20, seed {seed}".format(**SPLIT)


# --------------------------------------------------------------------------------------------------------- bundled
def bundled(name, dtype, dense, check):
    import sklearn.datasets

    if name == "digits":
        raw = sklearn.datasets.load_digits()
        x, y = raw.images[..., None].astype(np.uint8), raw.target.astype(np.int64)
        task, classes, scale = "classification", tuple("0123456789"), 16.0
    elif name == "breast_cancer":
        raw = sklearn.datasets.load_breast_cancer()
        x, y = raw.data.astype(dtype), np.where(raw.target == 1, 1, -1).astype(dtype)
        task, classes, scale = "classification", ("malignant", "benign"), 1.0
    else:
        raw = sklearn.datasets.load_diabetes(scaled=False)
        x, y = raw.data.astype(dtype), raw.target.astype(dtype)
        task, classes, scale = "regression", None, 1.0
    sha = combined((part, hashlib.sha256(np.ascontiguousarray(a)).hexdigest()) for part, a in (("x", x), ("y", y)))
    *parts, text = divided(x, y)
    return Dataset(name, task, *parts, classes, sha, f"bundled with scikit-learn ({text})", scale)


# ---------------------------------------------------------------------------------------------------------- images
IDX = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        tuple("0123456789"),
        {
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        {
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
}


def idx(name, dtype, dense, check):
    address, classes, known = IDX[name]
    paths = [files.fetch(name, name, file, address + file, known, check) for file in known]
    arrays = []
    for images, labels in ((paths[0], paths[1]), (paths[2], paths[3])):
        x, y = files.read_idx(images, 3)[..., None], files.read_idx(labels, 1).astype(np.int64)
        if len(x) != len(y):
            raise UserError(f"{images} holds {len(x)} images, {labels} {len(y)} labels")
        if y.max() >= len(classes):
            raise UserError(f"{labels}: label {y.max()} is not one of 0..{len(classes) - 1}")
        arrays += [x, y]
    return Dataset(name, "classification", *arrays, classes, of_files(paths), f"idx files from {address}", 255.0)


CIFAR = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR_MD5 = {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"}     # as the authors publish it
CIFAR_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar(name, dtype, dense, check):
    """A folder of .bin files (there, or in cifar-10-batches-bin below it) goes before the archive."""
    for folder in (name, f"{name}/cifar-10-batches-bin"):
        paths = [files.find(folder, file) for file in CIFAR_FILES]
        if any(paths):
            missing = [file for file, path in zip(CIFAR_FILES, paths, strict=True) if path is None]
            if missing:
                here = next(path for path in paths if path).parent
                raise UserError(f"{name}: {here} does not hold {', '.join(missing)}; put all six files there")
            data, source = [path.read_bytes() for path in paths], "binary files (without a known checksum)"
            break
    else:
        paths = [files.fetch(name, name, "cifar-10-binary.tar.gz", CIFAR, CIFAR_MD5, check)]
        data, source = files.read_tar(paths[0], CIFAR_FILES), f"binary version from {CIFAR}"
    where = paths if len(paths) > 1 else [f"{paths[0]}: {file}" for file in CIFAR_FILES]
    read = [files.cifar_records(d, w) for d, w in zip(data, where, strict=True)]
    x, y = (np.concatenate(part) for part in zip(*read[:5], strict=True))
    return Dataset(name, "classification", x, y, *read[5], CIFAR_CLASSES, of_files(paths), source, 255.0)


JPEG = {
    "train.zip": "e750e9c88700e00b0dd35be95e98b06dbe62470dca271809529cdcd9e6189f76",
    "test.zip": "11007ef5603881b5b0f795a0c0ac68384f9e1b615abd5e61fc4dc41d1c744f2b",
}


def cifar_jpeg(name, dtype, dense, check):
    """Decoded once, then kept as .npy in the user's cache under the archive's checksum."""
    paths, arrays, classes = [], [], None
    for file, known in JPEG.items():
        path = files.find(name, file)
        if path is None:
            places = ", ".join(str(root / name) for root in files.folders())
            raise UserError(
                f"{name}: {file} is in none of {places}, and this copy has no public address; put the zip archive of "
                f"class/NNNN.jpg at {files.folders()[0] / name / file}"
            )
        if check:
            files.verify(path, known)
        x, y, classes = decoded(path, name)
        if classes != CIFAR_CLASSES:
            raise UserError(f"{path}: its folders are {', '.join(classes)}, not CIFAR-10's ten classes")
        paths.append(path)
        arrays += [x, y]
    source = "CIFAR-10's pictures after lossy JPEG compression: not CIFAR-10"
    return Dataset(name, "classification", *arrays, classes, of_files(paths), source, 255.0)


def decoded(path, name):
    """(images, labels, classes) of an archive; from the cache where it is there."""
    kept = files.cache() / name / f"{files.digest(path)[:32]}.npy"
    entries, labels, classes = files.image_names(path)
    if kept.is_file():
        try:
            x = np.load(kept, allow_pickle=False)
            if x.dtype == np.uint8 and len(x) == len(labels):
                return x, labels, classes
        except (ValueError, EOFError, OSError):             # a damaged cache is only slow: decode again
            pass
    x = files.read_images(path, entries)
    checkpoint.replace(kept, lambda file: np.save(file, x, allow_pickle=False))
    return x, labels, classes


# ---------------------------------------------------------------------------------------------------------- LIBSVM
LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/"
# name: (part of the collection, training file, test file or None, columns)
SETS = {
    "a1a": ("binary", "a1a", "a1a.t", 123),
    "a9a": ("binary", "a9a", "a9a.t", 123),
    "australian": ("binary", "australian_scale", None, 14),
    "covtype": ("binary", "covtype.libsvm.binary.scale.bz2", None, 54),
    "german.numer": ("binary", "german.numer_scale", None, 24),
    "gisette": ("binary", "gisette_scale.bz2", "gisette_scale.t.bz2", 5000),
    "heart": ("binary", "heart_scale", None, 13),
    "ijcnn1": ("binary", "ijcnn1.bz2", "ijcnn1.t.bz2", 22),
    "ionosphere": ("binary", "ionosphere_scale", None, 34),
    "madelon": ("binary", "madelon", "madelon.t", 500),
    "mushrooms": ("binary", "mushrooms", None, 112),
    "phishing": ("binary", "phishing", None, 68),
    "pima": ("binary", "diabetes_scale", None, 8),
    "rcv1": ("binary", "rcv1_train.binary.bz2", None, 47236),
    "real-sim": ("binary", "real-sim.bz2", None, 20958),
    "sonar": ("binary", "sonar_scale", None, 60),
    "splice": ("binary", "splice", "splice.t", 60),
    "w8a": ("binary", "w8a", "w8a.t", 300),
    "news20": ("multiclass", "news20.bz2", "news20.t.bz2", 62061),
    "abalone": ("regression", "abalone_scale", None, 8),
    "bodyfat": ("regression", "bodyfat_scale", None, 14),
    "cadata": ("regression", "cadata", None, 8),
    "cpusmall": ("regression", "cpusmall_scale", None, 12),
    "housing": ("regression", "housing_scale", None, 13),
    "mg": ("regression", "mg_scale", None, 6),
    "mpg": ("regression", "mpg_scale", None, 7),
    "space_ga": ("regression", "space_ga_scale", None, 6),
    "triazines": ("regression", "triazines_scale", None, 60),
}
# Of copies that were compared with a second source; LIBSVM itself publishes no checksums.
SHA256 = {
    "a1a": "eb54c45f1bdb51286f803dd092eb8202b44637a858fc6c4e533a2d64a0d94b4e",
    "a1a.t": "0212d0c4a3996fe6fb6a0ab54033d9f4fa4b60369b6e3bb141821d9ffc40c04d",
    "a9a": "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906",
    "a9a.t": "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9",
    "w8a": "6a9fa8fd5f524303240a5db07d4b3d4a51e8b7b4b20a914105d8e3e8c81640f2",
    "mushrooms": "f39a4eb628dc61a7d43760815b061c9e497aa728ce1ad8bde57a09ef6043b538",
    "phishing": "0cf66ef36604c393da9359b2e5d894a2df8aee31fd184633cefa138add2ef08a",
    "splice": "eee33566cfe8988ec26122460cc712d66c5c5b79b966b259408e803addaa584d",
    "splice.t": "f40da7cfd17860f3f1a1bb7d118f8e86c306d232ca6ac6ddefbaaef266abaa03",
    "heart_scale": "5defa0a4c4c5bdaf3f55ae3828310252e8565c13ee37ce279e0b86d82e7f4ce9",
    "australian_scale": "86799bcc4dbcd41929a514fa181d1c1a40e01f009dee139d4141a194d7ecd9e3",
    "diabetes_scale": "0c07eb4c49e7a8ffb9c9f25095ac3022df2ca85b0dcb7d294c3ddea69f392cba",
    "german.numer_scale": "97637cc6b994bd3fa78999c771bc044bea7a0cdf91d43b6ecfd10f7e7c4ebc82",
    "ionosphere_scale": "f7751584264819b6ea908d513180cec6f9d9fad0d54e7f5693407da1e2eaece1",
    "sonar_scale": "037cfd45bb601292b0ecfa6d21ac0ebe61564d85cfe6d4dd61f221b9157174c5",
    "news20.bz2": "8c79851f6f5fdc5540a0d04a5ab728353c42d26b84e73f93bda301c06c15ffe9",
    "abalone_scale": "7cd2116eb9eae22213dfa844804e5ee72cb0ab38c71c2c30c3edfb7c00827d47",
    "housing_scale": "bbacd2f526a038499717d5dc4b8895e6baf1e2351895b9360a84bcb31e104476",
    "mg_scale": "f6eea42e3b3e5053c34c974cf364bf51d23207de0b6ae7224bba9c5d0959a223",
    "mpg_scale": "e15f343cfd6bd926596fa80c241428a3b025a82815bce8ccb88160f0d1cee71d",
}


def libsvm_set(name, dtype, dense, check):
    """The training file and, where the set has one, the test file.

    Where the training file was put by hand and the test file is nowhere, the training rows are split: what load returns
    is then other data than with the test file, and `source` and `sha256` say so.
    """
    part, train, test, columns = SETS[name]

    def get(file):
        return files.fetch(name, "libsvm", file, f"{LIBSVM}{part}/{file}", SHA256, check, text=True)

    paths = [get(train)]
    if test and (files.find("libsvm", test) or files.cache() in paths[0].parents):
        paths.append(get(test))
    got = libsvm.read(*paths, kind=part, n_features=columns, dtype=dtype)
    x, x_test, classes = got.X, got.X_test, got.labels
    if x.nnz >= 0.25 * x.shape[0] * x.shape[1] if dense is None else dense:
        x, x_test = x.toarray(), None if x_test is None else x_test.toarray()
    source = f"LIBSVM collection, {', '.join(path.name for path in paths)}"
    if x_test is None:
        *parts, text = divided(x, got.y)
        source += f" ({text})"
    else:
        parts = [x, got.y, x_test, got.y_test]
    task = "regression" if part == "regression" else "classification"
    classes = None if classes is None else tuple(f"{c:g}" for c in classes)
    return Dataset(name, task, *parts, classes, of_files(paths), source)


READERS = {
    **dict.fromkeys(("digits", "breast_cancer", "diabetes"), bundled),
    **dict.fromkeys(IDX, idx),
    "cifar-10": cifar,
    "cifar-10-jpeg": cifar_jpeg,
    **dict.fromkeys(SETS, libsvm_set),
}
