import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

import correction
import evaluate
from utils import MAX_PSNR


def test_scoring_the_untouched_photos_as_results_prints_and_writes_their_own_scores(
    pairs_csv, tmp_path, capsys
):
    output = tmp_path / "scores"
    arguments = ["--pairs", pairs_csv, "--results", pairs_csv.parent, "--output", output]
    assert evaluate.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert printed.index("4 of 4 from") < printed.index("PSNR, mean of the groups, in dB")
    with open(output / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert all(row["corrected_psnr"] == row["untouched_psnr"] for row in rows)
    content = json.loads((output / "scores.json").read_text())
    assert content["failures"] == []
    assert "OpenCV" in content["protocol"]["versions"]
    means = content["means"]["brackets"]["untouched"]
    expected = np.mean([float(row["untouched_psnr"]) for row in rows if row["group"] == "brackets"])
    assert means["all_psnr"] == pytest.approx(expected)


def test_pictures_equal_to_their_references_are_capped_in_means_and_inf_in_the_table(
    tmp_path, save_picture
):
    save_picture(tmp_path / "photos" / "a_N1.png", seed=1)
    save_picture(tmp_path / "gt" / "a.png", seed=2)
    save_picture(tmp_path / "results" / "a_N1.png", seed=2)
    folders = {"--inputs": "photos", "--references": "gt", "--results": "results", "--output": "."}
    arguments = [text for key, name in folders.items() for text in (key, str(tmp_path / name))]
    assert evaluate.main(arguments) == 0
    written = (tmp_path / "scores.json").read_text()
    content = json.loads(written, parse_constant=pytest.fail)
    assert content["means"]["gt"]["corrected"]["all_psnr"] == MAX_PSNR
    with open(tmp_path / "scores.csv", newline="") as file:
        assert [row["corrected_psnr"] for row in csv.DictReader(file)] == ["inf"]


def test_names_that_are_no_text_are_printed_and_written(tmp_path, save_picture, capsys):
    name = os.fsdecode(b"a\xff.png")
    for folder in ("photos", os.fsdecode(b"gt\xff")):
        save_picture(tmp_path / folder / "a.png").rename(tmp_path / folder / name)
    folders = {"--inputs": "photos", "--references": folder, "--results": "photos", "--output": "."}
    arguments = [text for key, name in folders.items() for text in (key, str(tmp_path / name))]
    assert evaluate.main(arguments) == 0
    assert "gt\\udcff" in capsys.readouterr().out
    assert "a\\udcff.png" in (tmp_path / "scores.csv").read_text()
    content = json.loads((tmp_path / "scores.json").read_text())
    assert folder in content["means"]


def test_scores_that_cannot_be_written_are_printed(pairs_csv, tmp_path, monkeypatch, capsys):
    def save_scores(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluate, "save_scores", save_scores)
    arguments = ["--pairs", pairs_csv, "--results", pairs_csv.parent, "--output", tmp_path]
    assert evaluate.main([str(argument) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert "PSNR, mean of the groups, in dB" in printed.out
    assert f"{tmp_path}: can't be written to (No space left on device)" in printed.err


def test_a_folder_for_scores_that_is_read_only_is_refused(pairs_csv, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    folder = pairs_csv.parent
    arguments = ["--pairs", pairs_csv, "--results", folder, "--output", folder]
    assert evaluate.main([str(argument) for argument in arguments]) == 2
    assert capsys.readouterr().err == f"{folder}: can't be written to; name another folder\n"


def test_weights_are_run_on_photos_of_the_protocols_size(pairs_csv, tmp_path, monkeypatch, capsys):
    calls = []

    def correct(photo, model, image_size, **options):
        calls.append((photo.shape, model, image_size, options))
        return photo

    model = SimpleNamespace(level_count=4)
    monkeypatch.setattr(correction, "load_model", lambda path, device: model)
    monkeypatch.setattr(correction, "correct", correct)
    (tmp_path / "mine.pth").write_bytes(b"weights")
    weights = ["--weights", str(tmp_path / "mine.pth")]
    assert evaluate.main(["--pairs", str(pairs_csv), *weights]) == 0
    wanted = {"finest_level": None, "restraint": 0.11}
    assert calls == [((24, 32, 3), model, (512, 512), wanted)] * 4
    assert (
        "mine.pth (sha256 9a129038d9a0), at the size below, finest_level null, restraint 0.11\n"
        in capsys.readouterr().out
    )
    calls.clear()
    options = ["--finest-level", "1", "--restraint", "0"]
    assert evaluate.main(["--pairs", str(pairs_csv), *weights, *options]) == 0
    assert [call[-1] for call in calls] == [{"finest_level": 1, "restraint": 0.0}] * 4
    assert "at the size below, finest_level 1, restraint 0\n" in capsys.readouterr().out
    options = ["--finest-level", "5"]
    assert evaluate.main(["--pairs", str(pairs_csv), *weights, *options]) == 2
    assert capsys.readouterr().err == "--finest-level is 5; allowed: 1 to 4\n"


def test_weights_that_cannot_be_read_end_with_their_own_message(
    pairs_csv, tmp_path, monkeypatch, capsys
):
    def load_model(path, device):
        raise ValueError(f"{path}: not weights")

    monkeypatch.setattr(correction, "load_model", load_model)
    weights = tmp_path / "mine.pth"
    weights.write_bytes(b"")
    assert evaluate.main(["--pairs", str(pairs_csv), "--weights", str(weights)]) == 2
    assert capsys.readouterr().err == f"{weights}: not weights\n"


def test_a_broken_photo_gives_exit_code_1_and_its_reason(pairs_csv, capsys):
    broken = pairs_csv.parent / "empa/input/church_P2.png"
    broken.write_bytes(b"no photo")
    assert evaluate.main(["--pairs", str(pairs_csv), "--results", str(pairs_csv.parent)]) == 1
    printed = capsys.readouterr()
    assert "3 of 4 from" in printed.out
    assert f"failed:\n{broken}: " in printed.err


def test_what_fails_for_one_photo_costs_no_other_its_score(pairs_csv, monkeypatch, capsys):
    def correct(photo, *arguments, **options):
        correct.count += 1
        if correct.count == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return photo

    correct.count = 0
    monkeypatch.setattr(correction, "correct", correct)
    assert evaluate.main(["--pairs", str(pairs_csv)]) == 1
    printed = capsys.readouterr()
    assert "3 of 4 from" in printed.out
    first = pairs_csv.parent / "hdrps/input/church_N1.png"
    assert printed.err == f"failed:\n{first}: CUDA out of memory. Tried to allocate\n"


def test_missing_files_give_exit_code_2_and_a_line_each(pairs_csv, tmp_path, capsys):
    pairs_csv.with_name("empa").rename(tmp_path / "away")
    gone, file_in_the_way = tmp_path / "gone.pth", tmp_path / "pairs.csv"
    arguments = ["--pairs", pairs_csv, "--weights", gone, "--output", file_in_the_way]
    assert evaluate.main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[2] == f"{gone}: no such weights; name some with --weights"
    assert lines[3].startswith(f"{file_in_the_way}: can't be made a folder")


def test_names_that_are_too_long_are_told_as_missing(pairs_csv, tmp_path, capsys):
    long = str(tmp_path / ("a" * 300))
    pairs = ["--pairs", str(pairs_csv)]
    for arguments in (
        [*pairs, "--weights", long],
        [*pairs, "--results", long],
        ["--inputs", long, "--references", long],
    ):
        assert evaluate.main(arguments) == 2
        assert f"{long}: no such" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --pairs --inputs is required"),
        (["--inputs", "a"], "--inputs and --references go together"),
        (["--pairs", "a", "--references", "b"], "--inputs and --references go together"),
        (["--pairs", "a", "--results", "b", "--weights", "c"], "not allowed with argument"),
        (
            ["--pairs", "a", "--results", "b", "--restraint", "0"],
            "for --weights, not for --results",
        ),
        (["--pairs", "a", "--restraint", "2"], "--restraint is 2; allowed: 0 to 1"),
        (["--pairs", "a", "--restraint", "nan"], "--restraint is nan; allowed: 0 to 1"),
    ],
)
def test_wrong_arguments_end_with_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_ends_with_a_line_and_exit_code_130(pairs_csv, monkeypatch, capsys):
    def stop(pairs, correct):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "score_pairs", stop)
    assert evaluate.main(["--pairs", str(pairs_csv), "--results", str(pairs_csv.parent)]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_scores_are_written_though_nobody_reads_on(pairs_csv, tmp_path):
    arguments = ["--pairs", str(pairs_csv), "--results", str(pairs_csv.parent)]
    process = subprocess.Popen(
        [sys.executable, "evaluate.py", *arguments, "--output", str(tmp_path / "scores")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == 1
    assert (tmp_path / "scores" / "scores.csv").exists()
