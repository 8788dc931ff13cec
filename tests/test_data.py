"""The original file formats, made here record by record; broken files; downloads from a local
address; the synthetic sets."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import time

import numpy as np
import pytest
import torch
from matplotlib.image import imsave

from clp_min import files, synthetic
from clp_min.data import Dataset

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


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


def test_load__pickle_that_runs_code_is_refused(tmp_path, capsys):
    make_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="print"):
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
    parts[2].unlink()
    for name, message in (("cifar10", "MD5"), ("mnist", "could not download")):
        with pytest.raises(ValueError, match=message):
            load(name, root, download=True)
    assert [*root.iterdir()] == []


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
    with pytest.raises(tarfile.OutsideDestinationError):
        load("cifar10", root, download=True)


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
