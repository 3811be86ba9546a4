import cv2
import pytest
import torch

import dataset
import validation
from config import TrainConfig
from dataset import VALIDATION_EVS, ValidationDataset, find_photos, to_tensor
from loader import make_valid_loader
from model import ExposureCorrectionNet
from synthesis import shift_exposure
from tones import apply_curve, draw_brightness, plain_curve
from utils import MAX_PSNR, psnr, ssim
from validation import spoilt_psnr, validate

CPU = torch.device("cpu")


@pytest.fixture
def valid_loader(train_settings):
    config = TrainConfig(**train_settings)
    return make_valid_loader(config, find_photos(config.valid_data_dir, "valid_data_dir"), 2, CPU)


def test_validation_gives_the_same_score_twice(valid_loader):
    network = ExposureCorrectionNet([1, 1], [8, 8])
    torch.nn.init.normal_(network.sub_networks[0].head.weight, std=0.1)
    first, _ = validate(network, valid_loader, 2, CPU)
    torch.manual_seed(5)
    assert validate(network, valid_loader, 2, CPU)[0] == first


def test_validation_of_an_untrained_network_scores_the_untouched_photos(valid_loader):
    network = ExposureCorrectionNet([1, 1], [8, 8])
    scores, samples = validate(network, valid_loader, 2, CPU)
    normal = valid_loader.dataset[0][1][0].permute(1, 2, 0).numpy()
    assert list(scores) == ["-2", "-1", "0", "+1", "+2", "all"]
    for ev, name in zip(VALIDATION_EVS, scores, strict=False):
        abnormal = apply_curve(normal, shift_exposure(plain_curve(), ev))
        expected = min(psnr(abnormal, normal), MAX_PSNR), ssim(abnormal, normal)
        assert (scores[name]["psnr"], scores[name]["ssim"]) == pytest.approx(expected)
    assert scores["0"] == {"psnr": MAX_PSNR, "ssim": pytest.approx(1)}
    for metric in ("psnr", "ssim"):
        mean = sum(scores[name][metric] for name in list(scores)[:5]) / 5
        assert scores["all"][metric] == pytest.approx(mean)
    assert samples[0].shape == (3, len(VALIDATION_EVS), 3, 32, 32)
    assert samples[0].dtype == torch.uint8


def test_validation_keeps_samples_in_one_process_of_several(valid_loader, monkeypatch):
    monkeypatch.setattr(validation, "rank", lambda: 1)
    _, samples = validate(ExposureCorrectionNet([1, 1], [8, 8]), valid_loader, 2, CPU)
    assert samples == []


def test_the_psnr_that_decides_is_the_mean_over_wrong_exposures():
    psnrs = {"-2": 10.0, "-1": 20.0, "0": 100.0, "+1": 30.0, "+2": 12.0, "all": 34.4}
    scores = {name: {"psnr": psnr, "ssim": 0.5} for name, psnr in psnrs.items()}
    assert spoilt_psnr(scores) == 18


# ---------------------------------------------------------------------------- the photos


def test_validation_shows_every_photo_at_every_exposure_in_order(tmp_path, write_photos):
    valid_set = ValidationDataset(write_photos(tmp_path / "valid", 2), (64, 64))
    assert len(valid_set) == 2
    for (abnormal, normal), path in zip(valid_set, valid_set.paths, strict=True):
        photo = to_tensor(cv2.imread(str(path))[..., ::-1])
        assert len(abnormal) == len(VALIDATION_EVS)
        assert normal.equal(photo.expand_as(abnormal))
        for exposed, ev in zip(abnormal, VALIDATION_EVS, strict=True):
            shifted = shift_exposure(photo / 255, ev) if ev else photo / 255
            assert exposed.equal((shifted * 255).round().byte())


def test_validation_wants_what_training_does(train_settings):
    """The exposures are those of the photo itself, and an untouched photo is to stay itself."""
    paths = find_photos(train_settings["valid_data_dir"], "valid_data_dir")

    def first(pull):
        config = TrainConfig(**train_settings, brightness_pull=pull)
        return make_valid_loader(config, paths, 2, CPU).dataset[0]

    (abnormal, plain), (same, normal) = first(0.0), first(0.5)
    drawn = draw_brightness(plain[0].permute(1, 2, 0).numpy(), 0.5)
    assert same.equal(abnormal)
    for ev, wanted, photo in zip(VALIDATION_EVS, normal, plain, strict=True):
        assert wanted.equal(to_tensor(drawn) if ev else photo)
    assert not normal.equal(plain)


def test_validation_reads_every_photo_once(tmp_path, write_photos, monkeypatch):
    valid_set = ValidationDataset(write_photos(tmp_path / "valid", 3), (16, 16))
    read, load_rgb = [], dataset.load_rgb
    monkeypatch.setattr(dataset, "load_rgb", lambda path, size: read.append(path) or load_rgb(path))
    list(valid_set)
    assert read == valid_set.paths


def test_validation_exposures_go_both_ways_and_hold_the_untouched_photo():
    assert min(VALIDATION_EVS) < 0 < max(VALIDATION_EVS) and 0 in VALIDATION_EVS


def test_validation_takes_the_middle_of_the_photo(tmp_path, write_photos):
    paths = write_photos(tmp_path / "wide", 1, 32, 64)
    photo = cv2.imread(str(paths[0]))[..., ::-1]
    _, normal = ValidationDataset(paths, (32, 32))[0]
    assert normal[0].equal(to_tensor(photo[:, 16:48]))


def test_validation_is_the_same_every_time(tmp_path, write_photos):
    valid_set = ValidationDataset(write_photos(tmp_path / "valid", 2, 40, 50), (24, 24))
    first = list(valid_set)
    torch.manual_seed(5)
    for sample, again in zip(first, valid_set, strict=True):
        assert all(image.equal(other) for image, other in zip(sample, again, strict=True))


def test_validation_ends_a_plain_loop(tmp_path, write_photos):
    valid_set = ValidationDataset(write_photos(tmp_path / "valid", 2), (16, 16))
    assert len(list(valid_set)) == len(valid_set)
    with pytest.raises(IndexError):
        valid_set[len(valid_set)]
