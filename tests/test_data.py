"""The original file formats, made here record by record; broken files; downloads from a local
address; the synthetic sets."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
from matplotlib.image import imsave

from clp_min import files, synthetic
from clp_min.data import Dataset, missing

from adapters import load, stratified

RNG = np.random.default_rng(0)


def write_idx(path, array):
    content = (
        bytes([0, 0, 8, array.ndim])
        + b"".join(n.to_bytes(4, "big") for n in array.shape)
        + array.tobytes()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_mnist(folder, suffix=""):
    sets = {
        part: (RNG.integers(0, 256, (n, 28, 28), np.uint8), RNG.integers(0, 10, n).astype(np.uint8))
        for part, n in (("train", 30), ("t10k", 20))
    }
    for part, (images, labels) in sets.items():
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return sets


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is how CIFAR's files are."""

    dispatch = {**pickle._Pickler.dispatch}

    def save_string(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def write_pickle(path, content):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue().replace(b"numpy._core", b"numpy.core"))


def make_cifar10(folder):
    folder.mkdir(parents=True)
    content = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        content[name] = {
            b"data": RNG.integers(0, 256, (7, 3072), np.uint8),
            b"labels": RNG.integers(0, 10, 7).tolist(),
        }
        write_pickle(folder / name, content[name])
    return content


@pytest.mark.parametrize("layout, suffix", [("MNIST/raw", ""), ("mnist", ".gz")])
def test_load__mnist_in_both_layouts(tmp_path, layout, suffix):
    sets = make_mnist(tmp_path / layout, suffix)
    dataset = load("mnist", tmp_path)
    assert dataset.classes == 10 and dataset.train[0].shape == (30, 1, 28, 28)
    for pair, part in ((dataset.train, "train"), (dataset.test, "t10k")):
        assert np.array_equal(
            np.round(pair[0][:, 0].numpy() * 255), sets[part][0]
        ) and np.array_equal(pair[1].numpy(), sets[part][1])


@pytest.mark.parametrize("layout", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
def test_load__cifar10_in_both_layouts(tmp_path, layout, monkeypatch):
    content = make_cifar10(tmp_path / layout)
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    dataset = load("cifar10")
    assert dataset.train[0].shape == (35, 3, 32, 32) and dataset.test[0].shape == (7, 3, 32, 32)
    row = content["data_batch_2"][b"data"][3].reshape(3, 32, 32)
    assert (
        np.array_equal(np.round(dataset.train[0][10].numpy() * 255), row)
        and int(dataset.train[1][10]) == content["data_batch_2"][b"labels"][3]
    )


def test_load__cifar100_uses_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        content = {
            b"data": RNG.integers(0, 256, (4, 3072), np.uint8), b"fine_labels": [9, 99, 5, 0],
            b"coarse_labels": [1, 1, 1, 1],
        }
        write_pickle(folder / name, content)
    assert load("cifar100", tmp_path).train[1].tolist() == [9, 99, 5, 0]


def make_tiny_imagenet(folder, wnids):
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)))
    rows = []
    for k, wnid in enumerate(wnids):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        for i in range(2):
            imsave(
                folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG",
                np.full((64, 64, 3), 20 * k, np.uint8), format="jpeg",
            )
        imsave(
            folder / "val" / "images" / f"val_{k}.JPEG", np.full((64, 64, 3), 20 * k, np.uint8),
            format="jpeg",
        )
        rows.append(f"val_{k}.JPEG\t{wnid}\t0\t0\t63\t63")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")


def test_load__tiny_imagenet_orders_classes_by_wordnet_number(tmp_path):
    make_tiny_imagenet(tmp_path / "tiny-imagenet-200", ["n00000001", "n00000005", "n00000009"])
    dataset = load("tiny_imagenet", tmp_path)
    for x, y in (dataset.train, dataset.test):
        assert torch.equal((x.mean((1, 2, 3)) * 255 / 20).round().long(), y)
    with pytest.raises(ValueError, match="lacks"):
        load("tiny_imagenet50", tmp_path)
    assert len(set(files.TINY_IMAGENET_50)) == 50


def test_load__tiny_imagenet_that_is_incomplete_is_named(tmp_path):
    folder, wnids = tmp_path / "tiny-imagenet-200", ["n00000001", "n00000005", "n00000009"]
    make_tiny_imagenet(folder, wnids)
    table, image = folder / "val" / "val_annotations.txt", folder / "train" / wnids[1] / "images"
    rows, picture = table.read_text(), image / f"{wnids[1]}_0.JPEG"
    jpeg = picture.read_bytes()
    imsave(tmp_path / "x.png", np.zeros((64, 64, 3)))
    for spoil, mend, message in (
        (lambda: table.write_text(rows + "\n"), lambda: table.write_text(rows), "a line holds no"),
        (table.unlink, lambda: table.write_text(rows), "val_annotations.txt is missing"),
        (lambda: picture.write_bytes((tmp_path / "x.png").read_bytes()),
         lambda: picture.write_bytes(jpeg), "no JPEG"),
        (lambda: picture.write_bytes(jpeg[:99]), lambda: picture.write_bytes(jpeg), "0.JPEG is t"),
        (lambda: image.rename(tmp_path / "aside"), lambda: (tmp_path / "aside").rename(image),
         "n00000005 is missing"),
        (lambda: (folder / "wnids.txt").write_bytes(b"\xff\xfe"),
         lambda: (folder / "wnids.txt").write_text("\n".join(wnids)), "wnids.txt is truncated"),
    ):
        spoil()
        with pytest.raises(ValueError, match=message) as error:
            load("tiny_imagenet", tmp_path)
        assert "\n" not in str(error.value)
        mend()
        assert len(load("tiny_imagenet", tmp_path).train[0]) == 6


def test_load__tiny_imagenet_is_decoded_once(tmp_path, monkeypatch):
    """What is kept equals what was decoded; a file that changed, or damage in what is kept, means
    that all are decoded again."""
    folder = tmp_path / "tiny-imagenet-200"
    make_tiny_imagenet(folder, ["n00000001", "n00000005"])
    decoded, jpeg = [], files._jpeg
    monkeypatch.setattr(files, "_jpeg", lambda path: decoded.append(path) or jpeg(path))
    first = load("tiny_imagenet", tmp_path)
    count = len(decoded)
    again = load("tiny_imagenet", tmp_path)
    assert len(decoded) == count == len(first.train[0]) + len(first.test[0])
    assert torch.equal(first.train[0], again.train[0]) and torch.equal(first.test[0], again.test[0])
    image = decoded[0]
    os.utime(image, (1, 1))
    load("tiny_imagenet", tmp_path)
    assert decoded[count:] == decoded[: len(first.train[0])]
    kept = folder / ".decoded-val-2"
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    assert torch.equal(first.test[0], load("tiny_imagenet", tmp_path).test[0])


def test_load__says_what_it_tried(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="MNIST/raw.*mnist.*--download"):
        load("mnist", tmp_path)
    with pytest.raises(ValueError, match="known: cifar10"):
        load("imagenet", tmp_path)
    monkeypatch.delenv("CLP_DATA", raising=False)
    with pytest.raises(ValueError, match="--data-dir"):
        load("mnist")


def test_load__truncated_files_are_one_clear_error(tmp_path):
    make_mnist(tmp_path / "MNIST/raw")
    make_mnist(tmp_path / "FashionMNIST/raw", ".gz")
    make_cifar10(tmp_path / "cifar-10-batches-py")
    for name, file in [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"),
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
    ]:
        load(name, tmp_path)
        whole = (tmp_path / file).read_bytes()
        for keep in (0, 3, len(whole) // 2, len(whole) - 1):
            (tmp_path / file).write_bytes(whole[:keep])
            with pytest.raises(ValueError, match="truncated or damaged") as error:
                load(name, tmp_path)
            assert file in str(error.value) and "\n" not in str(error.value)


FORGED = {  # pickles that ask for more than arrays of bytes: memory, pointers, code
    # a dtype whose forged flags make raw bytes object pointers: NumPy itself dereferences them
    "object pointers": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR("
    b"I1\n(I16\ntcnumpy\ndtype\n(S'V8'\nI00\nI01\ntR(I3\nS'|'\nN(S'a'\nt(dS'a'\n(cnumpy\ndtype\n"
    b"(S'O8'\nI00\nI01\ntRI0\ntsI8\nI1\nI1\ntbI00\nB"
    + struct.pack("<I", 128) + b"A" * 128 + b"tb.",
    "a huge array": b"cnumpy\nndarray\n((L1000000000000000L\nttR.",
    "a memo index": b"]r" + struct.pack("<I", 2**30) + b".",
    "a long string": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b".",
    "code": b"cos\nsystem\n(S'echo this must not run'\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
    "another class of numpy": b"cnumpy\nmemmap\n(S'x'\ntR.", "nothing": b"N.", "a list": b"].",
    "deep nesting": b"(" * 50_000, "a deep key": b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"Nu.",
    "a byte array": b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b".",
    "many sets": b"\x80\x04" + b"\x8f" * 2_000_000, "many dictionaries": b"}" * 2_000_000,
    "a long number": b"\x80\x02\x8b" + struct.pack("<I", 2**30) + b".",
    "a dictionary of itself": b"}q\x00S'data'\nh\x00s.",
}


def test_load__forged_pickles_are_one_line_and_take_no_memory(tmp_path):
    """In a process of its own, whose memory is limited: a crash or a large allocation is seen."""
    make_cifar10(tmp_path / "set" / "cifar-10-batches-py")
    for number, content in enumerate(FORGED.values()):
        (tmp_path / f"{number}.pickle").write_bytes(content)
    code = (
        "import pathlib, resource, sys\nfrom clp_min.data import load\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28,) * 2)\n"
        "for number in range(int(sys.argv[2])):\n"
        "    target = root / 'set' / 'cifar-10-batches-py' / 'data_batch_2'\n"
        "    target.write_bytes((root / f'{number}.pickle').read_bytes())\n"
        "    try: load('cifar10', root / 'set')\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(len(FORGED))], capture_output=True,
        text=True, timeout=60,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(FORGED), (done.stdout, done.stderr[-500:])
    for name, line in zip(FORGED, lines):
        assert "data_batch_2 is truncated or damaged" in line, name


@pytest.mark.parametrize(
    "content, message",
    [
        ({b"data": np.zeros((7, 3072), np.uint8), b"labels": [0] * 6}, "for 6 labels"),
        ({b"data": np.zeros((7, 3072), np.uint8), b"labels": [0.7] * 7}, "whole numbers"),
        ({b"data": np.zeros((7, 3072), np.uint8), b"labels": "seven"}, "whole numbers"),
        ({b"data": np.zeros((7, 3072), np.uint8), b"fine_labels": [0] * 7}, "no data and labels"),
        ({b"data": np.zeros((7, 3072), np.int64), b"labels": [0] * 7}, "no array of bytes"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "for 0 labels"),
        ({b"data": [1, 2], b"labels": [0, 0]}, "for 2 labels"),
    ],
)
def test_load__cifar_files_of_another_kind_are_named(content, message, tmp_path):
    make_cifar10(tmp_path / "cifar-10-batches-py")
    write_pickle(tmp_path / "cifar-10-batches-py" / "data_batch_2", content)
    with pytest.raises(ValueError, match=f"data_batch_2 is truncated or damaged.*{message}"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("label", [-1, 10, 200])
def test_load__labels_outside_the_classes_are_refused(label, tmp_path):
    make_cifar10(tmp_path / "cifar-10-batches-py")
    content = {b"data": RNG.integers(0, 256, (7, 3072), np.uint8), b"labels": [0] * 6 + [label]}
    write_pickle(tmp_path / "cifar-10-batches-py" / "test_batch", content)
    with pytest.raises(ValueError, match="test_batch is truncated or .*labels must lie in 0..9"):
        load("cifar10", tmp_path)


def test_load__a_repeated_or_missing_file_is_named_and_mended_by_download(local_downloads, capsys):
    root, _, _ = local_downloads
    load("cifar10", root, download=True)
    folder = root / "cifar-10-batches-py"
    second = (folder / "data_batch_2").read_bytes()
    for spoil, message in (
        (lambda: (folder / "data_batch_2").write_bytes((folder / "data_batch_1").read_bytes()),
         "data_batch_2 holds the images of data_batch_1 again"),
        (lambda: (folder / "data_batch_3").unlink(), "data_batch_3 is missing; --download"),
        (lambda: (folder / "test_batch").unlink(), "test_batch is missing; --download"),
    ):
        spoil()
        with pytest.raises(ValueError, match=message):
            load("cifar10", root)
        assert load("cifar10", root, download=True).train[0].shape == (35, 3, 32, 32)
        assert (folder / "data_batch_2").read_bytes() == second
    # and a folder of the right name with other files in it
    (root / "MNIST" / "raw").mkdir(parents=True)
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz is missing"):
        load("mnist", root)
    assert load("mnist", root, download=True).train[0].shape == (30, 1, 28, 28)
    assert (root / "MNIST" / "raw.before" / "t10k-labels-idx1-ubyte.gz").exists()  # nothing lost


def test_load__what_is_no_plain_file_or_stands_twice_is_refused(tmp_path):
    make_cifar10(tmp_path / "cifar-10-batches-py")
    target = tmp_path / "cifar-10-batches-py" / "data_batch_4"
    target.unlink()
    os.mkfifo(target)  # would block for ever
    with pytest.raises(ValueError, match="data_batch_4.*it is no file"):
        load("cifar10", tmp_path)
    target.unlink()
    target.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="data_batch_4.*it is no file"):
        load("cifar10", tmp_path)
    make_mnist(tmp_path / "mnist")
    for kind in ("images-idx3", "labels-idx1"):
        content = (tmp_path / f"mnist/train-{kind}-ubyte").read_bytes()
        (tmp_path / f"mnist/t10k-{kind}-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte holds the images of train-images"):
        load("mnist", tmp_path)


def test_missing__what_is_cut_is_said():
    x, y = torch.rand(20, 1, 28, 28), torch.arange(20) % 9
    said = missing(Dataset("mnist", 10, (x, y), (x[:10], torch.arange(10))))
    assert said == (
        "20 of 60,000 training images (1 of 10 classes have none), 10 of 10,000 test images"
    )
    y = torch.arange(60_000) % 10
    x = torch.zeros(60_000, 1)
    assert missing(Dataset("mnist", 10, (x, y), (x[:10_000], y[:10_000]))) == ""


def test_load__of_two_layouts_the_larger_one(tmp_path):
    """A cut set in torchvision's layout does not hide a whole one in the plain layout."""
    make_mnist(tmp_path / "MNIST/raw")
    sets = make_mnist(tmp_path / "mnist", ".gz")
    for part in sets:
        images, labels = (np.concatenate([a, a]) for a in sets[part])
        write_idx(tmp_path / f"mnist/{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"mnist/{part}-labels-idx1-ubyte.gz", labels)
    assert len(load("mnist", tmp_path).train[0]) == 60


def test_load__idx_headers_that_lie(tmp_path):
    make_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist/train-images-idx3-ubyte"
    whole = path.read_bytes()
    for start, message in (
        (bytes([0, 0, 8, 0]), "no idx file of 3"), (bytes([0, 0, 8, 4]), "no idx file of 3"),
        (bytes([0, 0, 9, 3]), "no idx file"), (b"\x1f\x8b\x08\x00", "no idx file"),
        (struct.pack(">4I", 0x803, 30, 28, 27), "header says"),
        (struct.pack(">4I", 0x803, 0, 28, 28), "header says"),
        (struct.pack(">4I", 0x803, 2**31, 28, 28), "header says"),
        (struct.pack(">4I", 0x803, 29, 28, 28), "or more"),
        (struct.pack(">4I", 0x803, 31, 28, 28), "it holds"),
    ):
        path.write_bytes(start + whole[len(start) :])
        with pytest.raises(ValueError, match=f"train-images.*{message}"):
            load("mnist", tmp_path)
    # a bomb: a thousand times what its header says; only that much is unpacked
    path.unlink()
    bomb = struct.pack(">4I", 0x803, 30, 28, 28) + bytes(2**27)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(bomb))
    tracemalloc.start()
    with pytest.raises(ValueError, match="or more"):
        load("mnist", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def damaged(rng, content):
    """The content with one kind of damage, drawn by rng."""
    at, other = rng.integers(0, len(content), 2)
    at, kind, new = int(at), rng.integers(0, 8), bytearray(content)
    if kind == 0:
        return content[:at]
    if kind == 1:
        new[at] ^= 1 << int(rng.integers(0, 8))
    elif kind == 2:  # in the header, or a pickle's frame
        start = int(rng.integers(0, 40))
        new[start : start + 4] = rng.bytes(4)
    elif kind == 3:
        new[at:at] = rng.bytes(int(rng.integers(1, 50)))
    elif kind == 4:
        del new[min(at, other) : max(at, other)]
    elif kind == 5:
        new[at : at + 8] = b"\xff" * 8
    elif kind == 6:
        new += content[: int(other) + 1]
    else:
        new = bytearray(rng.bytes(int(other) + 1))
    return bytes(new)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # the reader of damaged strings
@pytest.mark.parametrize("name, cases", [
    ("cifar10", 120), ("mnist", 60), ("mnist.gz", 60), ("tiny_imagenet", 80),
])
def test_load__a_damaged_file_is_read_or_refused_in_one_line(name, cases, tmp_path):
    """320 seeded cases: a flipped pixel cannot be seen; all else is one line that names the file.
    No crash, and no memory beyond what a whole set takes, twice the file and four megabytes."""
    make = {"cifar10": lambda: make_cifar10(tmp_path / "cifar-10-batches-py"),
            "mnist": lambda: make_mnist(tmp_path / "mnist"),
            "mnist.gz": lambda: make_mnist(tmp_path / "mnist", ".gz"),
            "tiny_imagenet": lambda: make_tiny_imagenet(
                tmp_path / "tiny-imagenet-200", ["n00000001", "n00000005"])}
    make[name]()
    found, refused = sorted(p for p in tmp_path.rglob("*") if p.is_file()), 0
    load(name.split(".")[0], tmp_path)
    tracemalloc.start()
    load(name.split(".")[0], tmp_path)
    whole = tracemalloc.get_traced_memory()[1]
    for case in range(cases):
        path = found[case % len(found)]
        content = path.read_bytes()
        path.write_bytes(damaged(np.random.default_rng([case, 7]), content))
        tracemalloc.reset_peak()
        try:
            load(name.split(".")[0], tmp_path)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and str(tmp_path) in str(error), (case, path, error)
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < 1.5 * whole + 2 * len(content) + 4_000_000, (case, path, peak)
        path.write_bytes(content)
    tracemalloc.stop()
    assert refused > cases / 3


def test_dataset__from_arrays_checks_everything_in_one_place():
    x, y = np.zeros((4, 1, 2, 2), np.uint8), np.arange(4)
    assert Dataset.from_arrays("made", 4, (x, y), (x, y)).test[1].tolist() == [0, 1, 2, 3]
    for bad, message in (
        ((x[0], y), "n > 0"), ((x, y[:3]), "n > 0"), ((x[:0], y[:0]), "n > 0"),
        ((x, y[:, None]), "n > 0"), ((x, y - 1), "0..3"), ((x, y + 1), "0..3"),
        ((x, y + 0.7), "whole"), ((x.astype(np.int64), y), "bytes or floats"),
    ):
        with pytest.raises(ValueError, match=f"made, test set: .*{message}"):
            Dataset.from_arrays("made", 4, (x, y), bad)


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


def test_load__pickle_that_runs_code_is_refused(tmp_path, capsys):
    make_cifar10(tmp_path / "cifar-10-batches-py")
    for protocol, message in ((2, "print"), (4, "FRAME is no part"), (0, "is no part")):
        content = pickle.dumps(Evil(), protocol)
        (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load("cifar10", tmp_path)
    assert "must not run" not in capsys.readouterr().out


@pytest.fixture
def local_downloads(tmp_path, monkeypatch):
    """The download table pointed at files on this disk."""
    source = tmp_path / "source"
    make_cifar10(source / "cifar-10-batches-py")
    archive = source / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / "cifar-10-batches-py", "cifar-10-batches-py")
    make_mnist(source, ".gz")
    parts = [source / name for name in files.IDX_FILES]
    monkeypatch.setitem(
        files.DOWNLOADS,
        "cifar10",
        (
            "cifar-10-batches-py",
            [(archive.as_uri(), hashlib.md5(archive.read_bytes()).hexdigest())],
        ),
    )
    monkeypatch.setitem(
        files.DOWNLOADS, "mnist",
        ("MNIST/raw", [(f.as_uri(), hashlib.md5(f.read_bytes()).hexdigest()) for f in parts]),
    )
    return tmp_path / "data", archive, parts


def test_load__downloads_verified_and_unpacked(local_downloads):
    root, _, _ = local_downloads
    with pytest.raises(ValueError, match="--download"):
        load("cifar10", root)
    assert load("cifar10", root, download=True).train[0].shape == (35, 3, 32, 32)
    assert load("mnist", root, download=True).train[0].shape == (30, 1, 28, 28)
    assert sorted(p.name for p in root.iterdir()) == ["MNIST", "cifar-10-batches-py"]
    load("cifar10", root)


def test_load__wrong_sum_leaves_nothing_behind(local_downloads):
    root, archive, parts = local_downloads
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(ValueError, match="MD5"):
        load("cifar10", root, download=True)
    assert [*root.iterdir()] == []
    content = parts[2].read_bytes()
    parts[2].unlink()  # one of four is not there: what came is kept for the next call
    with pytest.raises(ValueError, match="could not download .*the same command goes on"):
        load("mnist", root, download=True)
    assert [p.name for p in root.iterdir()] == [".download-MNIST"]
    parts[2].write_bytes(content)
    load("mnist", root, download=True)
    assert [p.name for p in root.iterdir()] == ["MNIST"]


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content`` as ``way`` says, and notes the ranges that were asked for."""

    content, way, ranges = b"", "whole", []

    def do_GET(self):
        asked = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.ranges.append(asked)
        content = self.content
        if self.way == "not found":
            return self.send_error(404)
        if self.way == "garbage":
            return self.wfile.write(b"\x00 no status line \r\n\r\n")
        if self.way == "portal":
            content = b"<html>log in first</html>"
        whole = self.way in ("portal", "no ranges")
        self.send_response(200 if whole or not asked else 206)
        content = content if whole else content[asked:]
        if self.way == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return self.wfile.write(b"400\r\n" + content[:700])
        if self.way != "no length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = self.way in ("cut", "no length")
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(local_downloads, monkeypatch):
    """The download table's CIFAR-10 on a server of this machine."""
    root, archive, _ = local_downloads
    monkeypatch.setattr(Server, "content", archive.read_bytes())
    monkeypatch.setattr(Server, "ranges", [])
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as running:
        address = f"http://127.0.0.1:{running.server_port}/cifar-10-python.tar.gz"
        md5 = hashlib.md5(Server.content).hexdigest()
        entry = "cifar-10-batches-py", [(address, md5)]
        monkeypatch.setitem(files.DOWNLOADS, "cifar10", entry)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield root
        running.shutdown()


def test_load__a_download_goes_on_where_it_was_cut(server, monkeypatch):
    half = len(Server.content) // 2
    monkeypatch.setattr(Server, "way", "cut")
    with pytest.raises(ValueError, match="the connection ended after .* goes on") as caught:
        load("cifar10", server, download=True)
    assert "\n" not in str(caught.value) and [p.name for p in server.iterdir()] == [
        ".download-cifar-10-batches-py"]
    monkeypatch.setattr(Server, "way", "whole")
    assert load("cifar10", server, download=True).train[0].shape == (35, 3, 32, 32)
    assert Server.ranges == [0, half] and [p.name for p in server.iterdir()] == [
        "cifar-10-batches-py"]


@pytest.mark.parametrize(
    "way", ["not found", "garbage", "portal", "chunked", "cut", "no length", "refused"]
)
def test_load__whatever_the_server_sends_is_one_line(server, way, monkeypatch):
    """Nothing gets the set's name, and the next call succeeds."""
    monkeypatch.setattr(Server, "way", way)
    if way == "refused":
        entry = "cifar-10-batches-py", [("http://127.0.0.1:9/x.tar.gz", "0" * 32)]
        monkeypatch.setitem(files.DOWNLOADS, "cifar10", entry)
        with pytest.raises(ValueError, match="could not download") as caught:
            load("cifar10", server, download=True)
        return
    with pytest.raises(ValueError, match="could not download|MD5") as caught:
        load("cifar10", server, download=True)
    assert "\n" not in str(caught.value) and not (server / "cifar-10-batches-py").exists()
    monkeypatch.setattr(Server, "way", "no ranges")
    assert load("cifar10", server, download=True).train[0].shape == (35, 3, 32, 32)


def test_load__archive_that_climbs_out_is_refused(local_downloads, monkeypatch):
    root, archive, _ = local_downloads
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../../evil")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    monkeypatch.setitem(
        files.DOWNLOADS,
        "cifar10",
        (
            "cifar-10-batches-py",
            [(archive.as_uri(), hashlib.md5(archive.read_bytes()).hexdigest())],
        ),
    )
    with pytest.raises(ValueError, match="could not download .*outside the destination"):
        load("cifar10", root, download=True)
    assert not (root.parent / "evil").exists() and not (root / "cifar-10-batches-py").exists()


def test_stratified__keeps_the_shares_of_the_classes():
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    for n in (10, 37, 50, 100):
        chosen = stratified(y, n, 0)
        assert len(set(chosen.tolist())) == n
        assert all(
            abs(int((y[chosen] == c).sum()) - n * share) <= 1
            for c, share in enumerate((0.6, 0.3, 0.1))
        )
    assert torch.equal(stratified(y, 20, 1), stratified(y, 20, 1)) and not torch.equal(
        stratified(y, 20, 1), stratified(y, 20, 2)
    )
    for n in (0, 101):
        with pytest.raises(ValueError, match="1..100"):
            stratified(y, n, 0)


@pytest.mark.parametrize(
    "make", [synthetic.textures, synthetic.shapes, synthetic.clusters, synthetic.teacher]
)
def test_synthetic__is_fast_balanced_and_a_function_of_the_seed(make):
    began = time.process_time()
    dataset = make(0)
    assert time.process_time() - began < 2
    again, other = make(0), make(1)
    assert torch.equal(dataset.train[0], again.train[0]) and not torch.equal(
        dataset.train[0], other.train[0]
    )
    assert not torch.equal(dataset.train[0][:100], dataset.test[0][:100])
    for x, y in (dataset.train, dataset.test):
        assert x.dtype == torch.float32 and y.dtype == torch.int64 and x.isfinite().all()
    counts = dataset.train[1].bincount(minlength=dataset.classes)
    assert int(counts.max() - counts.min()) <= (80 if make is synthetic.teacher else 0)


def test_synthetic__textures_coarse_cue_is_weak_and_fine_cue_is_lost_by_blur():
    """Least squares on 4x4 block means, which blur keeps: far above chance and far from right.
    What only the sharp image has is the grating."""
    train, test = synthetic.textures(0, 4000, 2000).train, synthetic.textures(0).test

    def score(features):
        (x, y), (u, v) = (
            (torch.cat([features(x), torch.ones(len(x), 1)], 1).double(), y)
            for x, y in (train, test)
        )
        w = torch.linalg.lstsq(x, torch.nn.functional.one_hot(y, 10).double()).solution
        return float(((u @ w).argmax(1) == v).double().mean())

    coarse = score(lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))
    assert 0.5 < coarse < 0.75, coarse
    fine = torch.fft.rfft2(synthetic.textures(0, 1000, noise=0.0).train[0]).abs().square().sum(1)
    frequency = torch.fft.fftfreq(16)[:, None].abs().square() + torch.fft.rfftfreq(16).square()
    assert fine[:, frequency.sqrt() > 0.2].sum() > 0.2 * fine.sum()  # wavelengths below five pixels


def test_dataset__standardised_by_the_training_images():
    dataset = synthetic.textures(0, 200, 100).standardised()
    mean, sd = dataset.train[0].mean((0, 2, 3)), dataset.train[0].std((0, 2, 3))
    assert (
        mean.abs().max() < 1e-5
        and (sd - 1).abs().max() < 1e-5
        and dataset.test[0].mean().abs() > 1e-5
    )
    raw = synthetic.textures(0, 200, 100)
    mean, sd = (getattr(raw.train[0], k)((0, 2, 3), keepdim=True) for k in ("mean", "std"))
    assert (dataset.test[0] - (raw.test[0] - mean) / sd).abs().max() < 1e-5


@pytest.mark.parametrize("name, settings, marks", [
    ("textures", {}, (-29.14103, 2039, 11.07579, 886)),
    ("shapes", {}, (-0.79493, 2039, -0.76874, 886)),
    ("shapes", dict(colour=True, class_colour=0.5), (12.83782, 2039, 1.51371, 886)),
    ("clusters", dict(dim=5, modes=2), (2.72798, 1770, -19.92298, 824)),
    ("teacher", {}, (-20.79987, 264, 2.64504, 88)),
])
def test_synthetic__sets_are_those_of_the_committed_results(name, settings, marks):
    """Weighted sums of pixels and labels, which NumPy 1.26 and 2.5 give alike: whoever changes a
    set changes every result that was measured on it."""
    found, dataset = [], getattr(synthetic, name)(3, train_size=30, test_size=20, **settings)
    for x, y in (dataset.train, dataset.test):
        x = x.double().flatten()
        found.append(float((x * torch.cos(torch.arange(len(x), dtype=torch.float64))).sum()))
        found.append(int((y * torch.arange(len(y))).sum()))
    assert np.allclose(found, marks, rtol=0, atol=1e-4)


def test_dataset__resized_averages_blocks():
    dataset = synthetic.textures(0, 20, 10).resized(8)
    raw = synthetic.textures(0, 20, 10).train[0]
    assert torch.allclose(
        dataset.train[0], raw.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)), atol=1e-6
    )


def test_dataset__halves_and_sizes():
    x, y = torch.rand(12, 2, 8, 8), torch.arange(12) % 4
    whole = Dataset("made", 4, (x, y), (x[:4], y[:4]))
    first, second = whole.halves()
    assert first.classes == second.classes == 2
    assert torch.equal(first.train[0], x[y < 2]) and torch.equal(first.train[1], y[y < 2])
    assert torch.equal(second.train[0], x[y >= 2]) and torch.equal(second.train[1], y[y >= 2] - 2)
    assert second.test[1].tolist() == [0, 1]
    small, large = whole.resized(4), whole.resized(16)
    assert torch.allclose(small.train[0][:, :, 0, 0], x[:, :, :2, :2].mean((2, 3)))
    assert large.test[0].shape == (4, 2, 16, 16) and torch.equal(large.test[1], y[:4])
    assert torch.allclose(large.train[0][:, :, 0, 0], x[:, :, 0, 0])  # bilinear, corners kept
    largest = whole.relabelled(2, lambda x, y: (x, x.mean((2, 3)).argmax(1)))
    assert largest.classes == 2 and torch.equal(largest.train[1], x.mean((2, 3)).argmax(1))


def test_synthetic__a_negative_noise_or_share_is_refused():
    for wrong in (dict(noise=-0.5), dict(class_colour=-0.5)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            synthetic.shapes(0, 20, 10, **wrong)
    with pytest.raises(ValueError, match="noise"):
        synthetic.textures(0, 20, 10, noise=-0.5)


def test_dataset__a_channel_that_hardly_varies_is_standardised_above_the_floor():
    """Deviation .015 lies above the floor of .01, .005 below it."""
    for deviation, expected in ((0.015, 1.0), (0.005, 0.5)):
        x = deviation * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
        data = Dataset("flat", 2, (x, torch.tensor([0, 1])), (x, torch.tensor([0, 1])))
        found = data.standardised().train[0].std(correction=0)
        assert float(found) == pytest.approx(expected, rel=0.01)


def test_clusters__a_negative_spread_is_refused_by_name():
    for name in ("separation", "noise"):
        with pytest.raises(ValueError, match=name):
            synthetic.clusters(0, **{name: -0.5})
