import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from pictures import read

import correction
import predict
from checkpoint import FORMAT_VERSION, CheckpointError
from config import ConfigError, PredictConfig

# ------------------------------------------------------------------------------- weights


def test_weights_with_code_inside_are_refused(run_predict, tmp_path, write_photos, capsys):
    write_photos(tmp_path / "photos", 1)
    proof, path = tmp_path / "proof", tmp_path / "evil.pth"

    class Trap:
        def __reduce__(self):
            return Path.touch, (proof,)

    torch.save({"format_version": FORMAT_VERSION, "weights": Trap()}, path)
    with pytest.raises(CheckpointError):
        predict.load_model(path)
    assert run_predict(pretrained_model=str(path)) == 2
    error = capsys.readouterr().err
    assert "evil.pth" in error and "Traceback" not in error
    assert not proof.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["missing.pth", "broken.pth"])
def test_weights_that_cannot_be_read_are_exit_code_2(
    run_predict, tmp_path, write_photos, capsys, name
):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "broken.pth").write_bytes(b"broken")
    assert run_predict(pretrained_model=str(tmp_path / name)) == 2
    assert name in capsys.readouterr().err


def test_an_architecture_that_contradicts_the_weights_names_both_values(
    run_predict, tmp_path, write_photos, capsys
):
    write_photos(tmp_path / "photos", 1)
    code = run_predict(
        laplacian_level_count=3,
        layer_count_of_every_unet=[1, 1, 2],
        first_layer_out_channels_of_every_unet=[8, 8, 8],
    )
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    expected = {
        "laplacian_level_count": ("3", "2"),
        "layer_count_of_every_unet": ("[1, 1, 2]", "[1, 1]"),
        "first_layer_out_channels_of_every_unet": ("[8, 8, 8]", "[8, 8]"),
    }
    for line, (key, (ours, theirs)) in zip(lines, expected.items(), strict=True):
        assert key in line and f" {ours}, but {theirs} in " in line and "tiny.pth" in line


def test_an_architecture_that_agrees_or_is_left_out_is_fine(run_predict, tmp_path, write_photos):
    write_photos(tmp_path / "photos", 1)
    agreed = {
        "laplacian_level_count": 2,
        "layer_count_of_every_unet": [1, 1],
        "first_layer_out_channels_of_every_unet": [8, 8],
    }
    assert run_predict(**agreed) == 0
    assert run_predict() == 0


# ------------------------------------------------------------------------------ the config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": [0, 32]}, ["image_size is [0, 32]"]),
        ({"imgpth": "x"}, ["imgpth is not a known key; did you mean img_pth?"]),
        ({"use_orig_size": "no", "show_result": 2}, ["use_orig_size", "show_result"]),
    ],
)
def test_faults_of_the_config_are_lines_and_exit_code_2(run_predict, capsys, changes, words):
    assert run_predict(**changes) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert len(error.splitlines()) == len(words)


@pytest.mark.parametrize(
    ("arguments", "key"), [([""], "img_pth"), (["test", "--output", ""], "result_output_dir")]
)
def test_an_empty_argument_is_not_taken_for_none(run_predict, capsys, arguments, key):
    assert run_predict(*arguments) == 2
    assert capsys.readouterr().err.startswith(f'{key} is ""')


def test_a_missing_config_is_exit_code_2(tmp_path, capsys):
    assert predict.main(["--conf", str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_the_shipped_config_agrees_with_the_class():
    values = json.loads((ROOT / "predict_conf.json").read_text())
    assert PredictConfig(**values).image_size == (512, 512)


# ------------------------------------------------------------------- where things are found


def test_config_and_weights_are_found_from_another_working_folder(
    run_predict, tmp_path, dark, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_predict(gain=1.0, pretrained_model="weights/tiny.pth") == 0
    (tmp_path / "out" / "dark.png").unlink()
    assert predict.HERE == ROOT  # the folder of the script
    monkeypatch.setattr(predict, "HERE", tmp_path)
    assert predict.main([]) == 0
    assert np.abs(read(tmp_path / "out" / "dark.png") - dark * 2.0).max() <= 1


def test_weights_of_the_working_folder_go_before_those_beside_the_config(
    tmp_path, write_weights, monkeypatch
):
    path = write_weights()
    assert predict.find_weights("weights/tiny.pth", tmp_path / "conf.json") == path
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "configs" / "conf.json"
    assert predict.find_weights("weights/tiny.pth", other) == Path("weights/tiny.pth")
    assert predict.find_weights(str(path), other) == path
    with pytest.raises(ConfigError, match=r"is a\.pth: no file a\.pth nor .*a\.pth"):
        predict.find_weights("a.pth", other)


# ------------------------------------------------------------------------------- start-up


def test_a_mistake_in_the_config_is_told_before_torch_is_imported(tmp_path):
    script = (
        "import sys, predict; code = predict.main(['nowhere', '--output', sys.argv[1]]);"
        "print(code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "2 False\n"
    assert result.stderr == "img_pth is nowhere: no such file or folder; name one\n"


def test_the_module_offers_what_python_needs_and_no_more():
    assert predict.correct is correction.correct
    assert predict.load_model is correction.load_model
    with pytest.raises(AttributeError, match=r"predict.* has no attribute 'corect'"):
        predict.corect  # noqa: B018
