import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from train_runs import assert_runs_are_equal

import loader
import run_state
import step
import train
from checkpoint import load_checkpoint, save_weights
from model import ExposureCorrectionNet

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["reconstruction", "pyramid"])
def test_a_loss_that_is_not_finite_stops_the_run_by_name(
    run_train, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.setattr(step, f"{name}_loss", lambda o, _: o[-1].mean() * float("nan"))
    assert run_train() == 1
    error = capsys.readouterr().err
    assert f"the {name} loss is nan in epoch 1 after 0 photos, step 1 of the run" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "last.pth").exists()


def test_a_full_memory_is_told_in_one_line(run_train, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(train, "train_step", fail)
    assert run_train() == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "the memory is full; lower batch_size, which is 2, or image_size, which is [32, 32]"
    )


def test_a_memory_that_is_full_later_is_told_with_a_way_on(run_train, tmp_path, after_step, capsys):
    best = tmp_path / "run" / "best.pth"

    def fail(_):
        if best.exists():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    after_step(fail)
    assert run_train(epochs=2) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    way_on = f"and begin anew in another model_save_dir, with pretrained_model {best}"
    assert line.endswith(f"or image_size, which is [32, 32], {way_on}")


def test_a_loader_that_was_killed_is_told_in_one_line(run_train, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError(f"{worker} exited unexpectedly\n")

    monkeypatch.setattr(train, "train_step", fail)
    worker = "DataLoader worker (pid(s) 7)"
    assert run_train() == 1
    line = capsys.readouterr().err.splitlines()[-1]
    fix = "lower num_workers, which is 0, or lower batch_size, which is 2, or image_size"
    assert line.startswith(f"{worker} exited unexpectedly; {fix}")
    worker = "Caught RuntimeError in DataLoader worker process 0."
    with pytest.raises(RuntimeError, match="Caught"):
        run_train()


def test_a_rate_far_too_high_is_told_and_the_good_checkpoint_stays(run_train, tmp_path, capsys):
    assert run_train(epochs=50, init_lr=1e8, final_lr=1e8, checkpoint_minutes=1e-9) == 1
    error = capsys.readouterr().err
    assert re.search(r"the .* is (nan|inf) in epoch \d+ .*lower init_lr, which is 1e\+08", error)
    state = load_checkpoint(tmp_path / "run" / "last.pth")["networks"]
    assert all(weight.isfinite().all() for network in state.values() for weight in network.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, ["epochs is 0"]),
        ({"batch_sise": 3}, ["batch_sise is not a known key; did you mean batch_size?"]),
        ({"init_lr": "fast", "seed": -1}, ['init_lr is "fast"', "seed is -1"]),
        ({"layer_count_of_every_unet": [1]}, ["layer_count_of_every_unet is [1]"]),
        ({"train_data_dir": "no/where"}, ["train_data_dir: no/where is not a folder"]),
        ({"valid_data_dir": "tests"}, ["valid_data_dir: no photo in tests"]),
        ({"pretrained_model": "no/where.pth"}, ["no/where.pth: no such file"]),
    ],
)
def test_faults_of_the_config_are_lines_and_exit_code_2(
    run_train, capsys, monkeypatch, changes, words
):
    monkeypatch.chdir(ROOT)
    assert run_train(**changes) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert len(error.splitlines()) == len(words)
    assert "Traceback" not in error


def test_a_file_in_place_of_the_runs_folder_is_exit_code_2(run_train, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert run_train("taken") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        f"model_save_dir is {tmp_path / 'taken'}: {tmp_path / 'taken'} is a file"
    )


def test_tensorboard_that_is_not_installed_is_exit_code_2(run_train, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run_train(tensorboard=True) == 2
    assert "pip install tensorboard" in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_config_is_exit_code_2(tmp_path, capsys):
    assert train.main(["--conf", str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_the_command_reports_faults_without_a_traceback(train_settings, write_json):
    path = write_json("conf.json", train_settings | {"epochs": 0, "batch_size": 0})
    command = [sys.executable, "train.py", "--conf", str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}: batch_size is 0")
    assert lines[1].startswith(f"{path}: epochs is 0")


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_photos_that_are_all_unreadable_are_told_in_one_line(
    run_train, tmp_path, capsys, num_workers
):
    for path in (tmp_path / "train").iterdir():
        path.write_bytes(b"no photo")
    assert run_train(num_workers=num_workers) == 2
    error = capsys.readouterr().err
    assert "none of the 5 photos, such as " in error
    assert "Traceback" not in error


def test_more_processes_than_photos_are_exit_code_2(run_train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loader, "rank_count", lambda: 6)
    assert run_train(batch_size=6) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"train_data_dir: {tmp_path / 'train'} has 5 photos for 6 processes")


def test_machines_with_other_photos_are_exit_code_2(run_train, monkeypatch, capsys):
    monkeypatch.setattr(loader, "gather", lambda counts: [counts, (7, 1)])
    assert run_train() == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the processes see [(5, 1), (7, 1)] photos; give all machines the same" in error


def test_machines_with_other_checkpoints_are_exit_code_2(run_train, monkeypatch, capsys):
    assert run_train() == 0
    monkeypatch.setattr(run_state, "gather", lambda place: [place, (1, 0)])
    assert run_train() == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "last.pth is not the same for all processes; set model_save_dir to a folder" in error


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_broken_photo_among_good_ones_does_not_stop_a_run(run_train, tmp_path):
    (tmp_path / "train" / "photo_2.png").write_bytes(b"no photo")
    (tmp_path / "valid" / "broken.jpg").write_bytes(b"")
    assert run_train(epochs=1) == 0


@pytest.mark.filterwarnings("ignore:skipped")
def test_photos_both_trained_and_validated_on_are_warned_of(run_train, tmp_path):
    shared = next((tmp_path / "train").iterdir())
    (tmp_path / "valid" / "too.png").write_bytes(shared.read_bytes())
    with pytest.warns(UserWarning, match=r"valid_data_dir: 1 of 2 photos, such as .*too\.png"):
        assert run_train(epochs=1) == 0


@pytest.mark.filterwarnings("ignore:skipped")
def test_unreadable_validation_photos_do_not_count(run_train, tmp_path):
    assert run_train("whole", epochs=1) == 0
    (tmp_path / "valid" / "a_broken.jpg").write_bytes(b"no photo")
    (tmp_path / "valid" / "z_broken.png").write_bytes(b"")
    assert run_train("broken", epochs=1) == 0
    assert_runs_are_equal(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.filterwarnings("ignore:skipped")
def test_validation_photos_that_are_all_unreadable_are_exit_code_2(run_train, tmp_path, capsys):
    for path in (tmp_path / "valid").iterdir():
        path.write_bytes(b"no photo")
    assert run_train() == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"valid_data_dir: no photo in {tmp_path / 'valid'} can be read; put some there that can"
    ]


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_in_the_place_of_the_run_is_told_before_any_epoch(run_train, tmp_path, capsys, name):
    (tmp_path / "file").write_text("no folder")
    assert run_train(model_save_dir=str(tmp_path / name)) == 2
    out, error = capsys.readouterr()
    assert str(tmp_path / name) in error and "Traceback" not in error
    assert "epoch" not in out
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_gpu_that_is_missing_is_exit_code_2(run_train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(train, "launch", lambda run, *arguments: run(CPU, *arguments))
    assert run_train(CUDA_VISIBLE_DEVICES="0,7") == 2
    lines = capsys.readouterr().err.splitlines()
    message = "CUDA_VISIBLE_DEVICES is 0,7; of these 2 GPUs 1 can be used"
    assert lines == [f"{message}: name those that nvidia-smi lists"]
    assert not (tmp_path / "run").exists()


def test_a_batch_that_processes_cannot_share_evenly_is_exit_code_2(
    run_train, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(loader, "rank_count", lambda: 3)
    assert run_train(batch_size=4) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["batch_size is 4; 3 processes cannot share it evenly: make it a multiple"]
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_that_contradict_the_config_are_exit_code_2(run_train, tmp_path, capsys):
    save_weights(tmp_path / "three.pth", ExposureCorrectionNet([1, 1, 1], [8, 8, 8]))
    assert run_train(epochs=1, pretrained_model=str(tmp_path / "three.pth")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "three.pth is another network; set laplacian_level_count to 3, " in line
    assert "layer_count_of_every_unet to [1, 1, 1], " in line


def test_the_keys_that_would_make_weights_fit_are_named():
    theirs = ExposureCorrectionNet([1, 1], [8, 8]).architecture
    ours = ExposureCorrectionNet([1, 1], [8, 4], has_gain=True).architecture
    assert run_state.tell_difference(ours, theirs) == [
        "first_layer_out_channels_of_every_unet to [8, 8]",
        "has_gain to false",
    ]
    ours = ExposureCorrectionNet([1, 1], [8, 8], [True, False], padding_modes=["replicate"] * 2)
    assert run_state.tell_difference(ours.architecture, theirs) == [
        "is_group_norm_of_every_unet to [false, false]",
        'padding_mode_of_every_unet to ["zeros", "zeros"]',
    ]


def test_only_the_listed_gpus_are_visible(run_train):
    assert run_train(epochs=1) == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
