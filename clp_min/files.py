"""The original files of CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and Tiny ImageNet: formats,
tables, downloads.

Files may hold any number of records; readers give NumPy pairs ((images, labels), (images, labels))
of train and test.
"""

import contextlib
import gzip
import hashlib
import http.client
import io
import math
import os
import pickle
import pickletools
import shutil
import struct
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import numpy as np

from clp_min.disk import locked, whole_file

MOST_BYTES = 400_000_000  # of a pickle: more than twice the largest of the published ones


class NotFound(ValueError):
    """No folder holds the set."""


class _Bytes:
    """Stands for NumPy's array and dtype while a pickle is read: keeps the state that is written
    there, and builds nothing."""

    def __init__(self, *arguments):
        self.arguments, self.state = arguments, ()

    def __setstate__(self, state):
        self.state = state

    def array(self):
        """The array of bytes. ValueError: it is something else."""
        try:
            _, shape, kind, by_columns, content = self.state
            named = kind.arguments[0] in ("u1", b"u1") and not by_columns
            rows, columns = shape
            fits = type(rows) is int and columns == 3072 and len(content) == 3072 * rows
        except (AttributeError, IndexError, TypeError, ValueError):
            named = False
        if not named or not fits or not isinstance(content, bytes):
            raise ValueError("its data are no array of bytes (n, 3072)")
        return np.frombuffer(content, np.uint8).reshape(shape)


class _ArraysOnly(pickle._Unpickler):
    """Reads CIFAR's pickles: built-in containers and arrays of bytes.

    The reader written in Python, whose memo is a dictionary: the one in C allocates what a forged
    index asks for. No class but the stand-in above can be built, and of the operations only those
    that such files hold are done, containers a few thousand times at most.
    """

    NAMES = {"_reconstruct", "ndarray", "dtype"}
    CONTAINERS = {
        "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    }
    VALUES = {
        "PROTO", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINSTRING",
        "SHORT_BINSTRING", "BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINFLOAT", "LONG1",
        "GLOBAL", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT",
        "LONG_BINPUT", "BINGET", "LONG_BINGET",
    }

    def __init__(self, content):
        containers = 0
        for operation, _, _ in pickletools.genops(content):
            containers += operation.name in self.CONTAINERS
            if operation.name not in self.CONTAINERS | self.VALUES or containers > 10_000:
                raise pickle.UnpicklingError(f"{operation.name} is no part of such a file")
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module, name):
        if module.split(".")[0] != "numpy" or name not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return _Bytes


def _read(path, reader):
    """reader(path), with every way in which a file can be missing or broken in one sentence."""
    try:
        return reader(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is truncated or damaged ({said[:200]})") from None


def _bytes_of(path, most):
    """The content of a file of at most so many bytes."""
    if path.stat().st_size > most or not path.is_file():
        raise ValueError(f"it is no file of at most {most:,} bytes")
    return path.read_bytes()


def _cifar_file(path, key, classes):
    content = _ArraysOnly(_bytes_of(path, MOST_BYTES)).load()
    if not isinstance(content, dict) or not {b"data", key} <= set(content):
        raise ValueError(f"it holds no data and {key.decode()}")
    data, labels = content[b"data"], content[key]
    data = data.array() if isinstance(data, _Bytes) else np.zeros(0)
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise ValueError(f"its {key.decode()} are no list of whole numbers")
    if data.shape != (len(labels), 3072) or not len(labels):
        raise ValueError(f"{data.shape} for {len(labels)} labels")
    _check_labels(min(labels), max(labels), classes)
    return data.reshape(-1, 3, 32, 32), np.array(labels)


def _check_labels(lowest, highest, classes):
    if not 0 <= lowest <= highest < classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {lowest}..{highest}")


def _check_repeated(images):
    """ValueError: two of the files (path -> images) hold the same ones."""
    seen = {}
    for path, content in images.items():
        first = seen.setdefault(hashlib.sha256(content).digest(), path)
        if first != path:
            raise ValueError(f"{path} holds the images of {first.name} again")


def _cifar(folder, train_files, test_file, key, classes):
    paths = [folder / name for name in [*train_files, test_file]]
    parts = [_read(path, lambda path: _cifar_file(path, key, classes)) for path in paths]
    _check_repeated(dict(zip(paths, (images for images, _ in parts))))
    *train, test = parts
    return tuple(np.concatenate(p) for p in zip(*train)), test


def _idx(path, shape):
    """An idx file of bytes, (n, *shape), at most 60,000; no more is read than its header says."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        start = file.read(4)
        if start != bytes([0, 0, 8, 1 + len(shape)]):
            raise ValueError(f"it is no idx file of {1 + len(shape)} dimensions of bytes")
        sizes = struct.unpack(f">{1 + len(shape)}I", file.read(4 + 4 * len(shape)))
        if sizes[1:] != shape or not 0 < sizes[0] <= 60_000:
            raise ValueError(f"its header says {sizes}, not 1 to 60000 of {shape}")
        values = np.frombuffer(file.read(math.prod(sizes) + 1), np.uint8)
    if values.size != math.prod(sizes):
        raise ValueError(f"its header says {sizes}, it holds {values.size} values or more")
    if not shape:
        _check_labels(values.min(), values.max(), 10)
    return values.reshape(sizes)


def _idx_set(folder):
    paths, sets = [idx_path(folder, name.removesuffix(".gz")) for name in IDX_FILES], []
    for of_images, of_labels in (paths[:2], paths[2:]):
        images = _read(of_images, lambda path: _idx(path, (28, 28)))
        labels = _read(of_labels, lambda path: _idx(path, ()))
        if len(images) != len(labels):
            raise ValueError(f"{of_images} holds {len(images)} images for {len(labels)} labels")
        sets.append((images[:, None], labels))
    _check_repeated({path: images for path, (images, _) in zip(paths[::2], sets)})
    return sets


def idx_path(folder, name):
    """The file, or the file with .gz; torchvision keeps both."""
    return folder / name if (folder / name).exists() else folder / (name + ".gz")


def _jpeg(path):
    from matplotlib.image import imread  # here: only Tiny ImageNet needs it

    content = _bytes_of(path, 100_000)  # the largest has 15,000
    if not content.startswith(b"\xff\xd8"):
        raise ValueError("it is no JPEG file")
    # the size that its frame says, before memory is taken for it
    at = 2
    while content[at : at + 2] not in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2") and at < len(content):
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    if content[at + 5 : at + 9] != bytes([0, 64, 0, 64]):
        raise ValueError("it is no JPEG file of 64 x 64 pixels")
    image = imread(io.BytesIO(content), format="jpeg")
    image = np.stack([image] * 3) if image.ndim == 2 else image.transpose(2, 0, 1)  # some are grey
    if image.shape != (3, 64, 64) or image.dtype != np.uint8:
        raise ValueError(f"its shape is {image.shape}")
    return image


def _tiny_imagenet(folder, only=None):
    """Classes in the order of their WordNet numbers; ``only`` some of them."""
    wnids = sorted(_read(folder / "wnids.txt", Path.read_text).split())
    lacking = sorted(set(only or ()) - set(wnids))
    if lacking:
        raise ValueError(
            f"{folder} lacks {len(lacking)} of the {len(only)} classes, {lacking[0]} among them"
        )
    if len(set(wnids)) < len(wnids) or len(wnids) > 200:
        raise ValueError(f"{folder / 'wnids.txt'} holds {len(wnids)} classes, repeated or too many")
    number = {wnid: k for k, wnid in enumerate(sorted(only) if only else wnids)}
    train = []
    for wnid, k in number.items():
        images = folder / "train" / wnid / "images"
        if not images.is_dir():
            raise ValueError(f"{images.parent} is missing")
        train += [(path, k) for path in sorted(images.glob("*.JPEG"))]
    table = folder / "val" / "val_annotations.txt"
    rows = [line.split("\t")[:2] for line in _read(table, Path.read_text).splitlines()]
    if any(len(row) != 2 or row[1] not in wnids for row in rows):
        raise ValueError(f"{table} is damaged (a line holds no name and class of the set)")
    if len({name for name, _ in rows}) < len(rows):
        raise ValueError(f"{table} is damaged (it names an image twice)")
    test = [
        (folder / "val" / "images" / name, number[wnid]) for name, wnid in rows if wnid in number
    ]
    if not train or not test:
        raise ValueError(
            f"{folder} holds {len(train)} training and {len(test)} validation images of its classes"
        )

    def decoded(part, name):
        paths, labels = zip(*part)
        return _decoded(paths, folder / f".decoded-{name}-{len(number)}"), np.array(labels)

    return decoded(train, "train"), decoded(test, "val")


def _decoded(paths, cache):
    """The images (n, 3, 64, 64) of JPEG files, kept in one file for the next time: a digest of
    names, sizes, times and pixels, then the pixels. Where that cannot be written nothing is
    kept."""
    found = [(path.name, path.stat()) for path in paths if path.is_file()]
    names = repr([(name, entry.st_size, entry.st_mtime_ns) for name, entry in found]).encode()

    def digest(images):
        own = hashlib.sha256(names)
        own.update(images)
        return own.digest()

    if cache.is_file() and cache.stat().st_size == 32 + len(paths) * 3 * 64 * 64:
        kept = np.fromfile(cache, np.uint8)
        if digest(kept[32:]) == kept[:32].tobytes():
            return kept[32:].reshape(-1, 3, 64, 64)
    images = np.empty((len(paths), 3, 64, 64), np.uint8)
    for i, path in enumerate(paths):
        images[i] = _read(path, _jpeg)
    with contextlib.suppress(OSError), whole_file(cache) as file:
        file.write(digest(images))
        file.write(images)
    return images


# the fifty classes of "Trap of feature diversity" (named there in words), by WordNet number
TINY_IMAGENET_50 = tuple(
    """
    n01698640 n01774750 n01917289 n01945685 n02002724 n02106662 n02125311 n02206856 n02226429
    n02231487 n02233338 n02395406 n02403003 n02437312 n02480495 n02509815 n02666196 n02788148
    n02791270 n02802426 n02808440 n02823428 n02906734 n02950826 n02963159 n02988304 n03085013
    n03089624 n03355925 n03584254 n03662601 n03814639 n03838899 n03891332 n04099969 n04146614
    n04179913 n04251144 n04254777 n04356056 n04366367 n04398044 n04465501 n04532670 n04540053
    n06596364 n07583066 n07695742 n09193705 n09428293
    """.split()
)

IDX_FILES = tuple(
    f"{part}-ubyte.gz"
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)
_CIFAR10_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))

TINY_FOLDERS = ("tiny-imagenet-200", "tiny_imagenet/tiny-imagenet-200")

# name -> number of classes, folders to look in, reader of such a folder
SETS = {
    "cifar10": (
        10, ("cifar-10-batches-py", "cifar10/cifar-10-batches-py"),
        lambda d: _cifar(d, _CIFAR10_FILES, "test_batch", b"labels", 10),
    ),
    "cifar100": (
        100, ("cifar-100-python", "cifar100/cifar-100-python"),
        lambda d: _cifar(d, ["train"], "test", b"fine_labels", 100),
    ),
    "mnist": (10, ("MNIST/raw", "mnist"), _idx_set),
    "fashion_mnist": (10, ("FashionMNIST/raw", "fashion_mnist"), _idx_set),
    "tiny_imagenet": (200, TINY_FOLDERS, _tiny_imagenet),
    "tiny_imagenet50": (50, TINY_FOLDERS, lambda d: _tiny_imagenet(d, TINY_IMAGENET_50)),
}

# name -> (training examples, test examples, channels, side) of the published set
PUBLISHED = {
    "cifar10": (50_000, 10_000, 3, 32), "cifar100": (50_000, 10_000, 3, 32),
    "mnist": (60_000, 10_000, 1, 28), "fashion_mnist": (60_000, 10_000, 1, 28),
    "tiny_imagenet": (100_000, 10_000, 3, 64), "tiny_imagenet50": (25_000, 2_500, 3, 64),
}

# name -> folder that the download fills, (address, MD5) of each file; sums as published
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_CIFAR10 = _TORONTO + "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
_CIFAR100 = _TORONTO + "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
_TINY = "https://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
_MNIST_SUMS = """
    f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432
    9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c
""".split()
_FASHION_SUMS = """
    8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe
    bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310
""".split()
DOWNLOADS = {
    "cifar10": ("cifar-10-batches-py", [_CIFAR10]),
    "cifar100": ("cifar-100-python", [_CIFAR100]),
    "mnist": ("MNIST/raw", [(_MNIST + name, md5) for name, md5 in zip(IDX_FILES, _MNIST_SUMS)]),
    "fashion_mnist": (
        "FashionMNIST/raw", [(_FASHION + name, md5) for name, md5 in zip(IDX_FILES, _FASHION_SUMS)]
    ),
    "tiny_imagenet": ("tiny-imagenet-200", [_TINY]),
    "tiny_imagenet50": ("tiny-imagenet-200", [_TINY]),
}


def download_set(name, root):
    """Fetch the set's files, check their sums, and only then move them to their names; what lies
    there is renamed. After a kill or a lost connection the next call goes on; of several processes
    one does it, the others wait. ValueError: an address, a sum or an archive that is wrong."""
    folder, files = DOWNLOADS[name]
    temporary, lock = (root / f".download-{Path(folder).parts[0]}{end}" for end in ("", ".lock"))
    root.mkdir(parents=True, exist_ok=True)
    before = _place(root / folder)
    with locked(lock), contextlib.ExitStack() as at_the_end:
        at_the_end.callback(lock.unlink, missing_ok=True)
        if _place(root / folder) != before:
            return  # another process has done it
        temporary.mkdir(exist_ok=True)
        shutil.rmtree(temporary / "content", ignore_errors=True)
        (temporary / "content").mkdir()
        for address, md5 in files:
            archive = temporary / address.rsplit("/", 1)[1]
            try:
                _fetch(address, archive, md5)
                _unpack(archive, temporary / "content")
            except ValueError:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            except (
                OSError, EOFError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile
            ) as error:
                if getattr(error, "code", None) == 416:  # more than all of it is there
                    archive.unlink()
                said = f"could not download {address} ({error!r}); the same command goes on"
                raise ValueError(" ".join(said.split())) from None
        # archives bring their folder along, single files do not
        inner = temporary / "content" / Path(folder).name
        content = inner if inner.is_dir() else inner.parent
        SETS[name][2](content)  # it can be read
        # an incomplete folder makes room beside it
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        if (root / folder).exists():
            aside = root / f"{folder}.before"
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(root / folder, aside)
            print(f"{root / folder} was incomplete: it is now {aside}")
        os.replace(content, root / folder)
        shutil.rmtree(temporary, ignore_errors=True)


def _place(folder):
    """Which folder it is, None if there is none."""
    return folder.stat().st_ino if folder.exists() else None


def _fetch(address, archive, md5):
    """Download to ``archive``, from where an earlier call ended. ValueError: another sum; the file
    is gone. OSError: the connection; it is kept."""
    have = archive.stat().st_size if archive.exists() else 0
    if not have or _md5(archive) != md5:
        print(f"downloading {address}", flush=True)
        request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"})
        with urllib.request.urlopen(request, timeout=60) as source:
            goes_on = have and source.status == 206
            due = source.headers.get("Content-Length")
            with open(archive, "ab" if goes_on else "wb") as target:
                came = _copy(source, target)
        if due and came < int(due):
            raise OSError(f"the connection ended after {came:,} of {int(due):,} bytes")
    if (found := _md5(archive)) != md5:
        raise ValueError(f"{address} arrived with MD5 {found}, not {md5}: try again")


def _copy(source, target):
    """Copy what arrives -> number of bytes. ValueError: more than any of these files holds."""
    came = 0
    for block in iter(lambda: source.read(1 << 20), b""):
        target.write(block)
        came += len(block)
        if came > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes arrive from {source.url}")
        if sys.stdout.isatty():
            print(f"\r{came / 1e6:.0f} MB", end="", flush=True)
    return came


def _md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _unpack(archive, target):
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    elif archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            file.extractall(target)
    else:
        shutil.copy(archive, target)
