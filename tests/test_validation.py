import pytest
import torch

from config import TrainConfig
from dataset import VALIDATION_EVS, find_photos
from loader import make_valid_loader
from model import ExposureCorrectionNet
from synthesis import apply_curve, plain_curve, shift_exposure
from utils import psnr, ssim
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
    normal = valid_loader.dataset[0][1].permute(1, 2, 0).numpy()
    assert list(scores) == ["-2", "-1", "0", "+1", "+2", "all"]
    for ev, name in zip(VALIDATION_EVS, scores, strict=False):
        abnormal = apply_curve(normal, shift_exposure(plain_curve(), ev))
        expected = min(psnr(abnormal, normal), 100), ssim(abnormal, normal)
        assert (scores[name]["psnr"], scores[name]["ssim"]) == pytest.approx(expected)
    assert scores["0"] == {"psnr": 100, "ssim": pytest.approx(1)}
    for metric in ("psnr", "ssim"):
        mean = sum(scores[name][metric] for name in list(scores)[:5]) / 5
        assert scores["all"][metric] == pytest.approx(mean)
    assert samples[0].shape == (3, len(VALIDATION_EVS), 3, 32, 32)


def test_the_psnr_that_decides_is_the_mean_over_wrong_exposures():
    psnrs = {"-2": 10.0, "-1": 20.0, "0": 100.0, "+1": 30.0, "+2": 12.0, "all": 34.4}
    scores = {name: {"psnr": psnr, "ssim": 0.5} for name, psnr in psnrs.items()}
    assert spoilt_psnr(scores) == 18
