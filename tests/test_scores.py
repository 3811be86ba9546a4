from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pairs import match_pairs, read_pairs
from scores import compare, load_picture, mean_psnr_between, mid_grey_gamma, score_pairs
from utils import MAX_PSNR, psnr


def test_measures_agree_with_scikit_image_and_the_brightness_error_is_signed():
    rng = np.random.default_rng(1)
    reference = rng.integers(20, 200, (40, 30, 3), dtype=np.uint8)
    picture = reference + rng.integers(0, 50, reference.shape, dtype=np.uint8)
    measures = compare(picture, reference)
    oracle = peak_signal_noise_ratio(reference, picture)
    assert measures["psnr"] == pytest.approx(oracle, abs=1e-6)
    oracle = structural_similarity(reference, picture, channel_axis=2, data_range=255)
    assert measures["ssim"] == pytest.approx(oracle, abs=1e-6)
    brighter = np.full((8, 8, 3), 151, np.uint8)
    darker = np.full((8, 8, 3), 100, np.uint8)
    assert compare(brighter, darker)["brightness_error"] == pytest.approx(0.2)
    assert compare(darker, brighter)["brightness_error"] == pytest.approx(-0.2)


def test_every_photo_is_corrected_once_and_scored_against_every_expert(tmp_path, save_picture):
    for name, value in [("a_N1.png", 50), ("a_P1.png", 200)]:
        save_picture(tmp_path / "photos" / name, value)
    experts = [
        save_picture(tmp_path / name / "a.png", value).parent
        for name, value in [("x", 102), ("y", 92)]
    ]
    pairs, _ = match_pairs(tmp_path / "photos", experts)
    seen = []

    def correct(pair, photo):
        seen.append(pair.input.name)
        return np.full_like(photo, 102 if photo.mean() < 100 else 101)

    scores, agreements, failures = score_pairs(pairs, correct)
    assert failures == []
    assert seen == ["a_N1.png", "a_P1.png"]
    errors = {
        (score.pair.group, score.pair.ev): score.measures["corrected"]["brightness_error"] * 255
        for score in scores
    }
    expected = {("x", -1): 0, ("x", 1): -1, ("y", -1): 10, ("y", 1): 9}
    assert errors == pytest.approx(expected, abs=1e-9)
    assert agreements[0].groups == ("x", "y")
    assert agreements[0].psnr["corrected"] == pytest.approx(20 * np.log10(255))
    assert agreements[0].psnr["untouched"] == pytest.approx(20 * np.log10(255 / 150))


def test_agreement_is_the_mean_over_all_pairs_of_versions():
    flat = [np.full((4, 4, 3), value, np.uint8) for value in (100, 101, 102)]
    apart = [20 * np.log10(255 / distance) for distance in (1, 1, 2)]
    assert mean_psnr_between(flat) == pytest.approx(np.mean(apart))


def test_versions_that_are_equal_or_nearly_so_agree_to_no_more_than_the_cap():
    one, other = np.zeros((2, 64, 64, 3), np.uint8)
    assert mean_psnr_between([one, other]) == MAX_PSNR
    other[0, 0] = 1
    assert psnr(one, other) > MAX_PSNR
    assert mean_psnr_between([one, other]) == MAX_PSNR


def test_a_broken_photo_is_reported_with_its_name_and_the_others_are_scored(pairs_csv):
    pairs, _ = read_pairs(pairs_csv)
    pairs[0].input.write_bytes(b"no photo")
    scores, _, failures = score_pairs(pairs, lambda pair, photo: photo)
    assert [score.pair for score in scores] == pairs[1:]
    assert len(failures) == 1
    assert failures[0].startswith(f"{pairs[0].input}: ")
    assert failures[0].count(str(pairs[0].input)) == 1


def test_a_broken_reference_costs_no_other_ones_score(tmp_path, save_picture):
    photo = save_picture(tmp_path / "photos" / "a.png")
    experts = [save_picture(tmp_path / name / "a.png").parent for name in "xyz"]
    (experts[1] / "a.png").write_bytes(b"no photo")
    pairs, _ = match_pairs(tmp_path / "photos", experts)
    scores, _, failures = score_pairs(pairs, lambda pair, photo: photo)
    assert [score.pair.group for score in scores] == ["x", "z"]
    assert len(failures) == 1 and failures[0].startswith(f"{photo}: {experts[1] / 'a.png'}")


def test_a_photo_too_narrow_to_score_costs_no_other_ones_score(tmp_path, save_picture):
    for name, size in (("a.png", (20, 30)), ("b.png", (20, 6))):  # SSIM wants 7 px
        for folder in ("photos", "gt"):
            save_picture(tmp_path / folder / name, size=size)
    pairs, _ = match_pairs(tmp_path / "photos", [tmp_path / "gt"])
    scores, _, failures = score_pairs(pairs, lambda pair, photo: photo)
    assert [score.pair.scene for score in scores] == ["a"]
    assert len(failures) == 1 and failures[0].startswith(f"{tmp_path / 'photos' / 'b.png'}: SSIM")


def test_photos_are_shrunk_to_512_px_and_never_enlarged(tmp_path, save_picture):
    assert load_picture(save_picture(tmp_path / "a.png", size=(683, 1024))).shape == (342, 512, 3)
    assert load_picture(save_picture(tmp_path / "b.png", size=(30, 20))).shape == (30, 20, 3)
    assert load_picture(tmp_path / "a.png", size=(300, 450)).shape == (300, 450, 3)


def test_a_picture_of_another_shape_is_refused_with_both_sizes(tmp_path, save_picture):
    path = save_picture(tmp_path / "a.png", size=(20, 30))
    with pytest.raises(ValueError, match=r"a\.png has 30x20 px, no shape for 20x30"):
        load_picture(path, size=(30, 20))


def test_16_bit_pictures_are_rounded_to_8_bit(monkeypatch):
    pixels = np.array([[[0, 128, 129], [257, 65406, 65535]]], np.uint16)
    monkeypatch.setattr("scores.load_photo", lambda path: SimpleNamespace(pixels=pixels))
    assert load_picture(Path("a.png")).tolist() == [[[0, 0, 1], [1, 254, 255]]]


@pytest.mark.parametrize("value", [30, 127, 220])
def test_mid_grey_gamma_takes_a_flat_photo_to_mid_grey(value):
    assert np.all(np.abs(mid_grey_gamma(np.full((2, 3, 3), value, np.uint8)) - 127.5) < 1)


def test_mid_grey_gamma_is_the_formula():
    photo = np.random.default_rng(0).integers(0, 90, (5, 6, 3), dtype=np.uint8)
    luma = (photo / 255) @ [0.299, 0.587, 0.114]
    expected = np.round(255 * (photo / 255) ** (np.log(0.5) / np.log(luma.mean())))
    np.testing.assert_array_equal(mid_grey_gamma(photo), expected)


@pytest.mark.parametrize("value", [0, 255])
def test_mid_grey_gamma_leaves_black_black_and_white_white(value):
    photo = np.full((2, 2, 3), value, np.uint8)
    np.testing.assert_array_equal(mid_grey_gamma(photo), photo)
