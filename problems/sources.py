"""Where the named data sets come from: a function for each kind, (name, dtype, dense, check) -> Dataset, in READERS."""

import hashlib

from npopt import checkpoint
from npopt.errors import UserError
from problems import corpora, couplets, drawn, files, formats, libsvm, texts
from problems.rows import Dataset
from problems.splits import split

import numpy as np

SPLIT = {"fraction": 0.2, "seed": 0}  # where a set comes without test rows


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
    sha = files.combined(
        (part, hashlib.sha256(np.ascontiguousarray(a)).hexdigest()) for part, a in (("x", x), ("y", y))
    )
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

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
UNPACKED = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def idx(name, dtype, dense, check):
    address, classes, packed = IDX[name]
    known = packed | dict(zip(NAMES, UNPACKED[name], strict=True))
    paths = [files.fetch(name, name, file, address + file, known, check) for file in packed]
    arrays = []
    for images, labels in ((paths[0], paths[1]), (paths[2], paths[3])):
        x, y = formats.read_idx(images, 3)[..., None], formats.read_idx(labels, 1).astype(np.int64)
        if len(x) != len(y):
            raise UserError(f"{images} holds {len(x)} images, {labels} {len(y)} labels")
        if y.max() >= len(classes):
            raise UserError(f"{labels}: label {y.max()} is not one of 0..{len(classes) - 1}")
        arrays += [x, y]
    return Dataset(name, "classification", *arrays, classes, files.of_files(paths), f"idx files from {address}", 255.0)


CIFAR = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR_MD5 = {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"}  # as the authors publish it
CIFAR_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar(name, dtype, dense, check):
    """CIFAR-10. A folder of .bin files (itself, or cifar-10-batches-bin in it) goes before the archive."""
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
        data, source = formats.read_tar(paths[0], CIFAR_FILES), f"binary version from {CIFAR}"
    where = paths if len(paths) > 1 else [f"{paths[0]}: {file}" for file in CIFAR_FILES]
    read = [formats.cifar_records(d, w) for d, w in zip(data, where, strict=True)]
    x, y = (np.concatenate(part) for part in zip(*read[:5], strict=True))
    return Dataset(name, "classification", x, y, *read[5], CIFAR_CLASSES, files.of_files(paths), source, 255.0)


JPEG = {
    "train.zip": "e750e9c88700e00b0dd35be95e98b06dbe62470dca271809529cdcd9e6189f76",
    "test.zip": "11007ef5603881b5b0f795a0c0ac68384f9e1b615abd5e61fc4dc41d1c744f2b",
}


def cifar_jpeg(name, dtype, dense, check):
    """The images are decoded once, then kept as .npy in the user's cache under the archive's checksum."""
    paths, arrays, classes = [], [], None
    for file, known in JPEG.items():
        path = files.given(name, name, file, known, check, form="the zip archive of class/NNNN.jpg")
        x, y, classes = decoded(path, name)
        if classes != CIFAR_CLASSES:
            raise UserError(f"{path}: its folders are {', '.join(classes)}, not CIFAR-10's ten classes")
        paths.append(path)
        arrays += [x, y]
    source = "CIFAR-10's pictures after lossy JPEG compression: not CIFAR-10"
    return Dataset(name, "classification", *arrays, classes, files.of_files(paths), source, 255.0)


def decoded(path, name):
    """(images, labels, classes) of an archive; from the cache where it is there."""
    kept = files.cache() / name / f"{files.digest(path)[:32]}.npy"
    entries, labels, classes = formats.image_names(path)
    if kept.is_file():
        try:
            x = np.load(kept, allow_pickle=False)
            if x.dtype == np.uint8 and len(x) == len(labels):
                return x, labels, classes
        except (ValueError, EOFError, OSError):  # a damaged cache is only slow: decode again
            pass
    x = formats.read_images(path, entries)
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
# The checksums of copies that were compared with a second source. LIBSVM itself publishes none.
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
    "news20": "1d6eb77c42e1c78e86f36af834268de933da3607f38e3703aef15f7a9f11e506",
    "abalone_scale": "7cd2116eb9eae22213dfa844804e5ee72cb0ab38c71c2c30c3edfb7c00827d47",
    "housing_scale": "bbacd2f526a038499717d5dc4b8895e6baf1e2351895b9360a84bcb31e104476",
    "mg_scale": "f6eea42e3b3e5053c34c974cf364bf51d23207de0b6ae7224bba9c5d0959a223",
    "mpg_scale": "e15f343cfd6bd926596fa80c241428a3b025a82815bce8ccb88160f0d1cee71d",
}


def libsvm_set(name, dtype, dense, check):
    """The training file and, where the set has one, the test file.

    If the training file was put there by hand and the test file is nowhere, the training rows are split. Then load
    returns other data than with the test file, and `source` and `sha256` say so.
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
    return Dataset(name, task, *parts, classes, files.of_files(paths), source)


READERS = {
    **dict.fromkeys(("digits", "breast_cancer", "diabetes"), bundled),
    **dict.fromkeys(IDX, idx),
    "cifar-10": cifar,
    "cifar-10-jpeg": cifar_jpeg,
    **dict.fromkeys(SETS, libsvm_set),
    "ptb": texts.ptb,
    "tinyshakespeare": texts.tinyshakespeare,
    "chain": texts.chain,
    **corpora.READERS,
    **couplets.READERS,
    **drawn.READERS,
}
