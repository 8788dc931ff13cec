"""The original files of CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and Tiny ImageNet: formats,
tables, downloads.

Files may hold any number of records; readers give NumPy pairs ((images, labels), (images, labels))
of train and test.
"""

import gzip
import hashlib
import os
import pickle
import shutil
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR's pickles: NumPy arrays and built-in containers, and nothing
    that could run code."""

    ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        if name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]
        return getattr(np, name)


def _read(path, reader):
    """reader(path), with every way in which a file can be broken turned into one sentence."""
    broken = (
        EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, zlib.error,
        pickle.UnpicklingError,
    )
    try:
        return reader(path)
    except broken as error:
        raise ValueError(
            f"{path} is truncated or damaged ({error}); remove it and get it again"
        ) from None


def _cifar_file(path):
    with open(path, "rb") as file:
        content = _ArraysOnly(file, encoding="bytes").load()
    data, labels = content[b"data"], content.get(b"labels", content.get(b"fine_labels"))
    if data.shape != (len(labels), 3072) or data.dtype != np.uint8:
        raise ValueError(f"{data.shape} {data.dtype} for {len(labels)} labels")
    return data.reshape(-1, 3, 32, 32), np.array(labels)


def _cifar(folder, train_files, test_file):
    parts = [_read(folder / name, _cifar_file) for name in train_files]
    return tuple(np.concatenate(p) for p in zip(*parts)), _read(folder / test_file, _cifar_file)


def _idx(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        content = file.read()
    zero, kind, dims = int.from_bytes(content[:2], "big"), content[2], content[3]
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dims)
    if zero != 0 or kind != 8 or values.size != np.prod(shape):
        raise ValueError(f"its header says {shape}, it holds {values.size} values")
    return values.reshape(shape)


def _idx_set(folder):
    def pair(part):
        images, labels = (
            _read(idx_path(folder, f"{part}-{kind}-ubyte"), _idx)
            for kind in ("images-idx3", "labels-idx1")
        )
        if len(images) != len(labels):
            raise ValueError(
                f"{folder} holds {len(images)} {part} images and {len(labels)} labels; get the"
                " files again"
            )
        return images[:, None], labels

    return pair("train"), pair("t10k")


def idx_path(folder, name):
    """The file, or the file with .gz; torchvision keeps both."""
    return folder / name if (folder / name).exists() else folder / (name + ".gz")


def _jpeg(path):
    from matplotlib.image import imread  # here: only Tiny ImageNet needs it

    image = imread(path)
    image = np.stack([image] * 3) if image.ndim == 2 else image.transpose(2, 0, 1)  # some are grey
    if image.shape != (3, 64, 64):
        raise ValueError(f"its shape is {image.shape}")
    return image


def _tiny_imagenet(folder, only=None):
    """Classes in the order of their WordNet numbers; ``only`` some of them."""
    wnids = sorted((folder / "wnids.txt").read_text().split())
    missing = sorted(set(only or ()) - set(wnids))
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(only)} classes, {missing[0]} among them"
        )
    number = {wnid: k for k, wnid in enumerate(sorted(only) if only else wnids)}
    train = [
        (path, number[wnid])
        for wnid in number
        for path in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
    ]
    rows = [
        line.split("\t")[:2]
        for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()
    ]
    test = [
        (folder / "val" / "images" / name, number[wnid]) for name, wnid in rows if wnid in number
    ]
    if not train or not test:
        raise ValueError(
            f"{folder} holds {len(train)} training and {len(test)} validation images of the"
            " classes asked for"
        )
    return tuple(
        (np.stack([_read(path, _jpeg) for path, _ in part]), np.array([k for _, k in part]))
        for part in (train, test)
    )


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
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
_CIFAR10_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))

# name -> number of classes, folders to look in, reader of such a folder, a file that must be there
SETS = {
    "cifar10": (
        10, ("cifar-10-batches-py", "cifar10/cifar-10-batches-py"),
        lambda d: _cifar(d, _CIFAR10_FILES, "test_batch"), "test_batch",
    ),
    "cifar100": (
        100, ("cifar-100-python", "cifar100/cifar-100-python"),
        lambda d: _cifar(d, ["train"], "test"), "test",
    ),
    "mnist": (10, ("MNIST/raw", "mnist"), _idx_set, "train-images-idx3-ubyte"),
    "fashion_mnist": (
        10, ("FashionMNIST/raw", "fashion_mnist"), _idx_set, "train-images-idx3-ubyte",
    ),
    "tiny_imagenet": (
        200, ("tiny-imagenet-200", "tiny_imagenet/tiny-imagenet-200"), _tiny_imagenet, "wnids.txt",
    ),
    "tiny_imagenet50": (
        50, ("tiny-imagenet-200", "tiny_imagenet/tiny-imagenet-200"),
        lambda d: _tiny_imagenet(d, TINY_IMAGENET_50), "wnids.txt",
    ),
}

# name -> (training examples, channels, side) of the published set
PUBLISHED = {
    "cifar10": (50_000, 3, 32), "cifar100": (50_000, 3, 32), "mnist": (60_000, 1, 28),
    "fashion_mnist": (60_000, 1, 28), "tiny_imagenet": (100_000, 3, 64),
    "tiny_imagenet50": (25_000, 3, 64),
}

# name -> folder that the download fills, (address, MD5 or None) of each file; sums as published
DOWNLOADS = {
    "cifar10": (
        "cifar-10-batches-py",
        [
            (
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
            )
        ],
    ),
    "cifar100": (
        "cifar-100-python",
        [
            (
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
            )
        ],
    ),
    "mnist": (
        "MNIST/raw",
        list(
            zip(
                ["https://ossci-datasets.s3.amazonaws.com/mnist/" + name for name in IDX_FILES],
                [
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                    "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c",
                ],
            )
        ),
    ),
    "fashion_mnist": (
        "FashionMNIST/raw",
        list(
            zip(
                [
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/" + name
                    for name in IDX_FILES
                ],
                [
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                    "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
                ],
            )
        ),
    ),
    "tiny_imagenet": (
        "tiny-imagenet-200", [("http://cs231n.stanford.edu/tiny-imagenet-200.zip", None)],
    ),
}
DOWNLOADS["tiny_imagenet50"] = DOWNLOADS["tiny_imagenet"]


def download_set(name, root):
    """Fetch the set's files, check their sums, and only then move them to their names."""
    folder, files = DOWNLOADS[name]
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as temporary:
        temporary = Path(temporary)
        (temporary / "content").mkdir()
        for address, md5 in files:
            archive = temporary / address.rsplit("/", 1)[1]
            print(f"downloading {address}", flush=True)
            try:
                with (
                    urllib.request.urlopen(address, timeout=60) as source,
                    open(archive, "wb") as target,
                ):
                    shutil.copyfileobj(source, target)
            except OSError as error:
                raise ValueError(f"could not download {address} ({error})") from None
            with open(archive, "rb") as file:
                digest = hashlib.md5()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            if md5 and digest.hexdigest() != md5:
                raise ValueError(
                    f"{address} arrived with MD5 {digest.hexdigest()}, not {md5}: try again"
                )
            _unpack(archive, temporary / "content")
        # archives bring their folder along, single files do not
        inner = temporary / "content" / Path(folder).name
        content = inner if inner.is_dir() else inner.parent
        if md5 is None:  # Tiny ImageNet publishes no sum
            _check_tiny_imagenet(content)
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(content, root / folder)
        except OSError:
            if not (root / folder).exists():  # else another process was faster
                raise


def _unpack(archive, target):
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    elif archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            file.extractall(target)
    else:
        os.replace(archive, target / archive.name)


def _check_tiny_imagenet(folder):
    train, val = (
        len(list(folder.glob("train/*/images/*.JPEG"))),
        len(list(folder.glob("val/images/*.JPEG"))),
    )
    if (train, val) != (100_000, 10_000):
        raise ValueError(
            f"the archive of Tiny ImageNet holds {train} + {val} images, not 100000 + 10000: try"
            " again"
        )
