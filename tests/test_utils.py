import os
import platform
import stat
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from utils import (
    atomic_write,
    describe_os_error,
    keep_copy,
    psnr,
    remove_temporaries,
    ssim,
)


def random_pair(height, width, seed=0):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, height * width * 3).reshape(height, width, 3)
    noisy = [np.clip(ramp + rng.normal(20, 15, ramp.shape), 0, 255) for _ in range(2)]
    return [picture.astype(np.uint8) for picture in noisy]


@pytest.mark.parametrize("size", [(7, 7), (8, 31), (64, 48)])
def test_psnr_and_ssim_agree_with_scikit_image(size):
    image, reference = random_pair(*size)
    oracle = structural_similarity(image, reference, channel_axis=2, data_range=255)
    assert ssim(image, reference) == pytest.approx(oracle, abs=1e-6)
    oracle = peak_signal_noise_ratio(reference, image, data_range=255)
    assert psnr(image, reference) == pytest.approx(oracle, abs=1e-6)


def test_ssim_agrees_with_scikit_image_on_flat_and_on_opposite_pictures():
    black, white = np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)
    image, _ = random_pair(32, 32)
    for x, y in [(black, white), (image, 255 - image), (image[:9, :9], white)]:
        oracle = structural_similarity(x, y, channel_axis=2, data_range=255)
        assert ssim(x, y) == pytest.approx(oracle, abs=1e-6)


def test_psnr_of_a_difference_of_one_everywhere_is_48_dB():
    picture = np.full((4, 5, 3), 100, np.uint8)
    assert psnr(picture, picture + 1) == pytest.approx(20 * np.log10(255))
    assert psnr(picture + 1, picture) == psnr(picture, picture + 1)  # no wrap-around of uint8


def test_psnr_takes_floats_with_their_own_range():
    assert psnr(np.zeros(4), np.full(4, 0.1), data_range=1) == pytest.approx(20)


def test_equal_pictures_score_infinity_and_one():
    image, _ = random_pair(16, 16)
    assert psnr(image, image) == float("inf")
    assert ssim(image, image) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_pictures_of_different_shapes_are_refused_by_naming_both(score):
    with pytest.raises(ValueError, match=r"\(8, 8, 3\) uint8 and \(8, 9, 3\) uint8"):
        score(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8))


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="7 px or more, the picture has 6x20"):
        ssim(np.zeros((6, 20, 3), np.uint8), np.zeros((6, 20, 3), np.uint8))


def test_atomic_write_makes_the_folder_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "new" / "folder" / "scores.json"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(path.parent) == ["scores.json"]


def test_atomic_write_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="disk"), atomic_write(path) as temporary:
        temporary.write_bytes(b"ha")
        raise RuntimeError("disk full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["last.pth"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are a matter of POSIX")
@pytest.mark.parametrize("has_links", [True, False])
def test_a_kept_copy_stays_when_the_file_is_replaced(tmp_path, monkeypatch, has_links):
    def refuse(*_):
        raise OSError("no links here")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path, copy = tmp_path / "last.pth", tmp_path / "previous.pth"
    keep_copy(path, copy)
    assert not copy.exists()
    for content in ("1", "2", "3"):
        keep_copy(path, copy)
        with atomic_write(path) as temporary:
            temporary.write_text(content)
    assert (path.read_text(), copy.read_text()) == ("3", "2")
    assert sorted(os.listdir(tmp_path)) == ["last.pth", "previous.pth"]


def test_temporaries_of_a_killed_program_are_removed_and_nothing_else(tmp_path):
    for name in (".0a1b2c3d.tmp.pth", ".0a1b2c3d.tmp", "photo.tmp.pth", ".hidden", "last.pth"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "last.pth", "photo.tmp.pth"]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(OSError) as caught, atomic_write(path):
        raise OSError(28, "No space left on device")
    assert describe_os_error(caught.value) == f"{path}: No space left on device"
    with pytest.raises(OSError, match=r"^no weights; name some$"), atomic_write(path):
        raise OSError("no weights; name some")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other systems have no mallopt")
def test_memory_that_is_freed_is_kept():
    code = """
import resource, threading
from utils import keep_freed_memory

def ask():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"1" * 100_000_000  # some 24,000 pages
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

keep_freed_memory()
thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    first, second = map(int, run.stdout.split())
    assert second < first / 10


def test_atomic_write_gives_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "atomic") as temporary:
        temporary.write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "atomic")]
    assert modes[0] == modes[1]
