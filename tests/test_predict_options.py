"""The keys of predict_conf.json that may be left out."""

import numpy as np
import pytest
from pictures import files_in, read, save
from PIL import Image

import adjust
import correction
from checkpoint import load_weights, save_weights
from folder import make_output_dir
from model import ExposureCorrectionNet


def test_level_scales_scale_the_levels_of_the_photo(run_predict, tmp_path, dark):
    assert run_predict(gain=1.0, level_scales=[1, 1]) == 0
    assert np.abs(read(tmp_path / "out" / "dark.png") - dark * 2.0).max() <= 1
    assert run_predict(gain=1.0, level_scales=[0.5, 0.5]) == 0
    assert np.abs(read(tmp_path / "out" / "dark.png") - dark.astype(float)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["items in level_scales: 3, but 2 in ", "tiny.pth"]),
        ({"laplacian_level_count": 2}, ["level_scales is [1, 1, 1], laplacian_level_count is 2"]),
    ],
)
def test_level_scales_of_a_wrong_length_are_exit_code_2(
    run_predict, tmp_path, dark, capsys, settings, words
):
    assert run_predict(level_scales=[1, 1, 1], **settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("finest_level", "factor"), [(None, 2), (2, 2), (1, 6)])
def test_the_finest_level_says_how_many_sub_networks_run(
    run_predict, tmp_path, dark, write_weights, finest_level, factor
):
    weights = write_weights(1.0, name="two.pth")
    network = load_weights(weights)
    network.sub_networks[1].head.bias.data[:3] = 2.0  # the finer one makes three times as bright
    save_weights(weights, network)
    assert run_predict(pretrained_model=str(weights), finest_level=finest_level) == 0
    expected = np.minimum(dark * float(factor), 255)
    assert np.abs(read(tmp_path / "out" / "dark.png") - expected).max() <= 1.5


def test_a_finest_level_that_contradicts_level_scales_is_exit_code_2(run_predict, dark, capsys):
    assert run_predict(finest_level=2, level_scales=[1, 1]) == 2
    assert "finest_level is 2, level_scales is [1, 1]" in capsys.readouterr().err


def test_a_finest_level_beyond_those_of_the_weights_is_exit_code_2(run_predict, dark, capsys):
    assert run_predict(finest_level=3) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "finest_level is 3; allowed: 1 to 2, or null"


@pytest.mark.parametrize("self_ensemble", [True, False])
def test_self_ensemble_reaches_the_network(run_predict, dark, monkeypatch, self_ensemble):
    seen, forward = [], ExposureCorrectionNet.forward

    def noting(*arguments, **options):
        seen.append(options["self_ensemble"])
        return forward(*arguments, **options)

    monkeypatch.setattr(ExposureCorrectionNet, "forward", noting)
    assert run_predict(gain=1.0, self_ensemble=self_ensemble) == 0
    assert seen == [self_ensemble]


@pytest.mark.parametrize(("strength", "factor"), [(0, 1), (0.5, 1.5), (1, 2), (2, 3)])
def test_strength_goes_from_the_photo_to_the_correction_and_beyond(
    run_predict, tmp_path, dark, strength, factor
):
    assert run_predict(gain=1.0, strength=strength) == 0
    expected = np.minimum(dark * float(factor), 255)
    assert np.abs(read(tmp_path / "out" / "dark.png") - expected).max() <= 1.5


@pytest.mark.parametrize("others", [{}, {"strength": 0.5, "fuse": True}])
def test_restraint_fades_the_correction_out_before_anything_else(
    run_predict, tmp_path, dark, others
):
    assert run_predict(gain=1.0, restraint=0.5, **others) == 0
    abnormal = dark / np.float32(255)
    share = adjust.restrained_strength(abnormal, 2 * abnormal, 0.5)
    expected = adjust.blend(abnormal, 2 * abnormal, share)
    assert np.abs(expected - 2 * abnormal).max() > 0.1
    if others:
        expected = adjust.fuse(abnormal, adjust.blend(abnormal, expected, 0.5))
    result = read(tmp_path / "out" / "dark.png")
    assert np.abs(result - 255 * expected).max() <= 3  # upsampling follows it closely


def test_level_scales_that_are_asked_for_are_not_restrained(run_predict, tmp_path, dark):
    assert run_predict(gain=1.0, level_scales=[0.6, 0.6], restraint=1.0) == 0
    assert np.abs(read(tmp_path / "out" / "dark.png") - dark * 1.2).max() <= 1


def test_fuse_takes_the_better_exposed_of_photo_and_correction(run_predict, tmp_path):
    # Half as dark as it should be, half right: doubled, the right half is burnt out.
    photo = np.full((30, 32, 3), 40, np.uint8)
    photo[:, 16:] = 120
    save(tmp_path / "photos" / "dark.png", photo)
    corrected = np.clip(photo * np.float32(2 / 255), 0, 1)
    assert run_predict(gain=1.0, fuse=True) == 0
    result = read(tmp_path / "out" / "dark.png")
    expected = 255 * adjust.fuse(photo / np.float32(255), corrected)
    assert np.abs(result - expected).max() <= 3  # upsampling follows it closely
    assert np.abs(corrected * 255 - expected).max() > 20


def test_stretch_spreads_the_correction_from_black_to_white(run_predict, tmp_path, dark):
    expected = 255 * adjust.stretch_contrast(np.clip(dark * np.float32(2 / 255), 0, 1))
    assert run_predict(gain=1.0, stretch=True) == 0
    result = read(tmp_path / "out" / "dark.png")
    assert np.abs(result - expected).max() <= 3
    assert result.min() == 0 and result.max() == 255


def test_compare_writes_a_picture_beside_each_result(run_predict, tmp_path, make_photo):
    names = ["a.jpg", "a.png", "deep/b.png"]
    for name in names:
        save(tmp_path / "photos" / name, make_photo(24, 32))
    assert run_predict(compare=True) == 0
    pictures = [f"{name}.compare.png" for name in names]
    assert files_in(tmp_path / "out") == sorted(names + pictures)
    assert run_predict(tmp_path / "out", "--output", tmp_path / "again") == 0
    assert files_in(tmp_path / "again") == sorted(names)
    for name in pictures:
        with Image.open(tmp_path / "out" / name) as picture:
            picture.load()
            assert picture.format == "PNG" and picture.width > picture.height > 100


def test_a_photo_whose_comparison_failed_is_not_there_for_skip_existing(
    run_predict, tmp_path, write_photos, monkeypatch
):
    write_photos(tmp_path / "photos", 1)

    def fail(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(correction, "save_comparison", fail)
        assert run_predict(compare=True, skip_existing=True) == 1
    assert files_in(tmp_path / "out") == []
    assert run_predict(compare=True, skip_existing=True) == 0
    assert files_in(tmp_path / "out") == ["photo_0.png", "photo_0.png.compare.png"]


def test_a_result_without_the_comparison_that_is_asked_for_is_made_again(
    run_predict, tmp_path, write_photos, capsys
):
    write_photos(tmp_path / "photos", 2)
    assert run_predict(skip_existing=True) == 0
    (tmp_path / "out" / "photo_0.png.compare.png").touch()
    assert run_predict(compare=True, skip_existing=True) == 0
    assert "1 corrected, 0 failed, 1 there already" in capsys.readouterr().out
    assert (tmp_path / "out" / "photo_1.png.compare.png").exists()


@pytest.mark.parametrize(
    ("output_format", "names"),
    [
        ("jpeg", ["a.jpg", "a.png.jpg"]),
        ("png", ["a.jpg.png", "a.png"]),
        ("tiff", ["a.png.tif", "a.tif"]),
        ("webp", ["a.png.webp", "a.webp"]),
    ],
)
def test_output_format_decides_content_and_suffix(
    run_predict, tmp_path, make_photo, output_format, names
):
    for name in ("a.jpg", "a.png"):
        save(tmp_path / "photos" / name, make_photo(24, 32))
    assert run_predict(output_format=output_format) == 0
    assert files_in(tmp_path / "out") == names
    for name in names:
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.format == output_format.upper()


def test_quality_decides_the_size_of_the_file(run_predict, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    save(tmp_path / "photos" / "noise.jpg", noise)
    sizes = []
    for quality in (5, 50, 95, None):
        assert run_predict(quality=quality) == 0
        sizes.append((tmp_path / "out" / "noise.jpg").stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_photos_above_max_megapixels_are_refused_and_the_others_done(
    run_predict, tmp_path, make_photo, capsys
):
    save(tmp_path / "photos" / "small.png", make_photo(20, 50))
    save(tmp_path / "photos" / "large.png", make_photo(20, 51))
    assert run_predict(max_megapixels=0.001) == 1
    assert files_in(tmp_path / "out") == ["small.png"]
    error = capsys.readouterr().err
    assert str(tmp_path / "photos" / "large.png") in error and "Traceback" not in error


def test_skip_existing_goes_on_where_a_run_stopped(run_predict, tmp_path, write_photos, capsys):
    write_photos(tmp_path / "photos", 3)
    make_output_dir(tmp_path / "out")
    save(tmp_path / "out" / "photo_1.png", np.zeros((2, 2, 3), np.uint8))
    assert run_predict(skip_existing=True) == 0
    assert "2 corrected, 0 failed, 1 there already, " in capsys.readouterr().out
    assert read(tmp_path / "out" / "photo_0.png").shape == (64, 64, 3)
    assert read(tmp_path / "out" / "photo_1.png").shape == (2, 2, 3)
    assert run_predict(skip_existing=True) == 0
    assert "0 corrected, 0 failed, 3 there already, " in capsys.readouterr().out
    assert run_predict() == 0
    assert read(tmp_path / "out" / "photo_1.png").shape == (64, 64, 3)
