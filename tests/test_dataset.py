import filecmp
import warnings
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dataset import (
    EpochSampler,
    TrainDataset,
    ValidationDataset,
    crop_and_resize,
    find_photos,
    find_shared,
    keep_readable,
    largest_box,
    make_generator,
    to_floats,
    to_tensor,
)
from photo import PhotoError
from synthesis import ExposureSynthesis

EVERYTHING = ExposureSynthesis(
    color_jitter_brightness=(0.3, 2.5),
    color_jitter_contrast=0.2,
    color_jitter_saturation=0.2,
    exposure_shift_ev=(-3, 3),
    exposure_shift_share=0.5,
    untouched_share=0.1,
    retone_strength=0.5,
)


@pytest.fixture
def train_set(tmp_path, write_photos) -> TrainDataset:
    paths = write_photos(tmp_path / "photos", 4, height=40, width=56)
    return TrainDataset(paths, (16, 24), EVERYTHING, crop_scale=(0.5, 1.0), seed=7)


def are_equal(batches, others) -> bool:
    return all(
        abnormal.equal(other_abnormal) and normal.equal(other_normal)
        for (abnormal, normal), (other_abnormal, other_normal) in zip(batches, others, strict=True)
    )


def test_floats_are_the_bytes_in_0_to_1():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = to_floats(image, torch.device("cpu"))
    assert floats.equal(torch.arange(256).reshape(1, 1, 16, 16) / 255)


# -------------------------------------------------------------------------------- the seed


def test_generators_of_different_positions_differ():
    positions = list(product(range(3), repeat=3))  # (seed, epoch, index)
    drawn = {torch.rand((), generator=make_generator(*p)).item() for p in positions}
    assert len(drawn) == len(positions)


# ----------------------------------------------------------------------------- the photos


def test_photos_in_two_folders_are_found_by_their_bytes(tmp_path, write_photos):
    paths = write_photos(tmp_path / "train", 4)
    others = write_photos(tmp_path / "valid", 2, height=50)
    assert find_shared(others, paths) == []
    copy = tmp_path / "valid" / "renamed.png"
    copy.write_bytes(paths[2].read_bytes())
    same_size = tmp_path / "valid" / "same_size.png"
    same_size.write_bytes(bytes(len(paths[2].read_bytes())))
    broken_link = tmp_path / "valid" / "link.png"
    broken_link.symlink_to(tmp_path / "nowhere.png")
    assert find_shared([*others, copy, same_size, broken_link], [*paths, broken_link]) == [copy]


def test_photos_that_may_not_be_read_are_not_taken_for_the_same(
    tmp_path, write_photos, monkeypatch
):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    paths = write_photos(tmp_path / "train", 1)
    monkeypatch.setattr(filecmp, "cmp", refuse)
    assert find_shared(paths, paths) == []


@pytest.mark.parametrize("name", ["train_data_dir", "valid_data_dir"])
def test_missing_and_empty_folders_are_errors_that_name_the_key(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"{name}: .*nowhere is not a folder"):
        find_photos(tmp_path / "nowhere", name)
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(FileNotFoundError, match=f"{name}: no photo in"):
        find_photos(tmp_path, name)


def test_photos_are_found_in_subfolders_in_order(tmp_path, write_photos):
    write_photos(tmp_path / "b" / "deep", 1)
    write_photos(tmp_path / "a", 2)
    found = [path.relative_to(tmp_path).as_posix() for path in find_photos(tmp_path, "x")]
    assert found == ["a/photo_0.png", "a/photo_1.png", "b/deep/photo_0.png"]


@pytest.mark.parametrize(
    ("photo_size", "box", "expected"),
    [
        ((100, 200), (50, 50), (100, 100)),
        ((100, 200), (10, 40), (50, 200)),
        ((30, 40), (300, 400), (30, 40)),
        ((1, 1), (32, 64), (1, 1)),
    ],
)
def test_largest_box_has_the_wanted_aspect_and_fits(photo_size, box, expected):
    assert largest_box(np.empty((*photo_size, 3)), box) == expected


def test_crop_and_resize_cuts_the_box(make_photo):
    photo = make_photo(20, 30)
    crop = crop_and_resize(photo, (3, 4, 10, 12), (10, 12))
    assert np.array_equal(crop, photo[3:13, 4:16])
    smaller = crop_and_resize(photo, (0, 0, 20, 30), (10, 15))
    blocks = photo.reshape(10, 2, 15, 2, 3).mean((1, 3))
    assert np.abs(smaller - blocks).max() <= 0.51


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (17, 300), (24, 16)])
def test_photos_of_any_size_give_crops_of_the_size_asked_for(tmp_path, write_photos, size):
    paths = write_photos(tmp_path / "odd", 1, *size)
    train_set = TrainDataset(paths, (24, 16), EVERYTHING, crop_scale=(0.3, 1.0))
    for epoch in range(5):
        assert [image.shape for image in train_set[epoch, 0]] == [(1, 3, 24, 16), (3, 24, 16)]
    assert ValidationDataset(paths, (24, 16))[0][0].shape == (5, 3, 24, 16)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "grey.jpg"), ("L", "grey.png"), ("RGBA", "alpha.png"), ("CMYK", "print.jpg")],
)
def test_photos_of_any_kind_are_trained_on(tmp_path, make_photo, mode, name):
    Image.fromarray(make_photo(40, 60)).convert(mode).save(tmp_path / name)
    abnormal, normal = TrainDataset([tmp_path / name], (24, 16), EVERYTHING)[1, 0]
    assert abnormal.shape == (1, 3, 24, 16) and normal.shape == (3, 24, 16)
    assert abnormal.dtype == normal.dtype == torch.uint8
    red, green, _ = normal
    assert red.equal(green) is (mode == "L")


def test_turned_photos_are_trained_on_upright(tmp_path, make_photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    photo = Image.fromarray(make_photo(40, 60))
    photo.save(tmp_path / "turned.png", exif=exif)
    _, normal = ValidationDataset([tmp_path / "turned.png"], (60, 40))[0]
    upright = np.asarray(photo.transpose(Image.Transpose.ROTATE_270))
    assert normal[0].equal(to_tensor(upright))


def test_a_sample_is_a_crop_of_the_photo_or_its_mirror_image(tmp_path, write_photos, make_photo):
    paths = write_photos(tmp_path / "one", 1, 32, 48)
    untouched = ExposureSynthesis(0, 0, 0, untouched_share=1.0)
    train_set = TrainDataset(paths, (32, 32), untouched)
    photo = to_tensor(np.ascontiguousarray(cv2.imread(str(paths[0]))[..., ::-1]))
    crops = [photo[..., left : left + 32] for left in range(17)]
    seen = set()
    for epoch in range(60):
        abnormal, normal = train_set[epoch, 0]
        assert abnormal.equal(normal[None])
        matches = [
            (left, is_flipped)
            for left, crop in enumerate(crops)
            for is_flipped in (False, True)
            if normal.equal(crop.flip(-1) if is_flipped else crop)
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len({left for left, _ in seen}) > 8
    assert {is_flipped for _, is_flipped in seen} == {False, True}
    assert {0, 16} & {left for left, _ in seen}  # the margins are reached


def test_same_seed_epoch_and_index_give_the_same_sample(train_set):
    first, _ = train_set[2, 1]
    torch.manual_seed(123)
    np.random.seed(123)
    assert train_set[2, 1][0].equal(first)
    other = TrainDataset(train_set.paths, (16, 24), EVERYTHING, crop_scale=(0.5, 1.0), seed=7)
    assert other[2, 1][0].equal(first)


def test_samples_differ_between_epochs_and_seeds(train_set):
    normals = [train_set[epoch, 0][1] for epoch in range(1, 5)]
    assert not any(a.equal(b) for i, a in enumerate(normals) for b in normals[:i])
    other = TrainDataset(train_set.paths, (16, 24), EVERYTHING, crop_scale=(0.5, 1.0), seed=8)
    assert not other[1, 0][1].equal(normals[0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_samples_do_not_depend_on_the_number_of_workers(train_set):
    def load(num_workers: int) -> list:
        sampler = EpochSampler(len(train_set), seed=7)
        sampler.epoch = 3
        return list(DataLoader(train_set, 2, sampler=sampler, num_workers=num_workers))

    alone = load(0)
    assert [len(normal) for _, normal in alone] == [2, 2]
    assert are_equal(alone, load(1))
    assert are_equal(alone, load(3))


def test_sampler_shows_every_photo_once_in_an_order_of_its_epoch():
    sampler = EpochSampler(20, seed=1)
    orders = []
    for epoch in (1, 2):
        sampler.epoch = epoch
        positions = list(sampler)
        assert {e for e, _ in positions} == {epoch}
        orders.append([index for _, index in positions])
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1] != list(range(20))


def test_sampler_goes_on_where_it_was():
    sampler = EpochSampler(9, seed=1)
    whole = list(sampler)
    sampler.start = 4
    assert list(sampler) == whole[4:] and len(sampler) == 5
    sampler.start = 9
    assert list(sampler) == [] and len(sampler) == 0


def test_processes_share_the_epoch_without_overlap():
    whole = list(EpochSampler(11, seed=1))
    shares = [EpochSampler(11, 1, rank, 3) for rank in range(3)]
    assert [sampler.total for sampler in shares] == [9, 9, 9]
    assert [len(sampler) for sampler in shares] == [3, 3, 3]
    assert [p for positions in zip(*shares, strict=True) for p in positions] == whole[:9]


# ------------------------------------------------------------------------- broken photos


@pytest.fixture
def half_broken(tmp_path, write_photos):
    """Photos 0 and 2 are whole, 1 is not."""
    paths = write_photos(tmp_path / "half", 3)
    paths[1].write_bytes(b"no photo")
    return TrainDataset(paths, (16, 16), EVERYTHING)


def test_an_unreadable_photo_gives_way_to_the_next_with_one_warning(half_broken):
    with pytest.warns(UserWarning, match=r"skipped: .*photo_1\.png") as caught:
        first = half_broken.load(1, 16)
    assert len(caught) == 1
    assert np.array_equal(first, half_broken.load(2, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(half_broken.load(1, 16), first)


def test_the_photo_after_the_last_is_the_first(half_broken):
    half_broken.paths[2].write_bytes(b"")
    with pytest.warns(UserWarning):
        assert np.array_equal(half_broken.load(2, 16), half_broken.load(0, 16))


def test_a_folder_of_unreadable_photos_is_an_error(half_broken):
    for path in half_broken.paths:
        path.write_bytes(b"no photo")
    with pytest.warns(UserWarning), pytest.raises(PhotoError, match="none of the 3 photos"):
        half_broken[1, 0]
    with pytest.raises(PhotoError, match="none of the 3 photos"):
        half_broken[1, 1]


def test_photos_that_cannot_be_read_are_left_out_each_with_one_warning(tmp_path, write_photos):
    paths = write_photos(tmp_path / "valid", 5)
    paths[1].write_bytes(b"no photo")
    paths[4].write_bytes(paths[4].read_bytes()[:300])
    with pytest.warns(UserWarning) as caught:
        assert keep_readable(paths) == [paths[0], paths[2], paths[3]]
    messages = [str(warning.message) for warning in caught]
    assert [message.split(": ")[:2] for message in messages] == [
        ["skipped", str(paths[1])],
        ["skipped", str(paths[4])],
    ]


def test_readable_photos_are_all_kept_without_a_warning(tmp_path, write_photos):
    paths = write_photos(tmp_path / "valid", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keep_readable(paths) == paths
