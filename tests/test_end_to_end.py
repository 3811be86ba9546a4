"""Train, predict and evaluate, each by its command, on small photos."""

import json
import subprocess
import sys

import cv2
import numpy as np
from conftest import ROOT

from checkpoint import load_weights


def run_command(*arguments) -> str:
    """Run a script of this repository as users do; returns what it prints."""
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def test_a_network_trains_corrects_a_folder_and_scores(
    train_settings, write_json, write_photos, make_photo, tmp_path
):
    # All photos are spoilt alike, to half their brightness, which a few steps can learn.
    write_photos(tmp_path / "train", 12)
    settings = train_settings | {
        "epochs": 8,
        "init_lr": 1e-2,
        "num_workers": 1,
        "has_gain": True,
        "begin_use_adv_loss_epoch": 8,
        "color_jitter_brightness": [0.5, 0.5],
        "color_jitter_saturation": 0,
        "color_jitter_contrast": 0,
    }
    printed = run_command("train.py", "--conf", write_json("conf.json", settings))
    assert all(f"epoch {epoch}/8" in printed for epoch in range(1, 9))
    run_dir = tmp_path / "run"
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    losses = [record["losses"]["reconstruction"] for record in records]
    assert losses[-1] < losses[0] / 2
    assert load_weights(run_dir / "best.pth").architecture["has_gain"]

    table = ["set,scene,input,gt,ev"]
    for index in range(3):
        normal = make_photo(64, 80, seed=100 + index)
        for folder, photo in (("dark", normal // 2), ("normal", normal)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{index}.png"), photo)
        table.append(f"own,{index},dark/{index}.png,normal/{index}.png,-2.2")
    (tmp_path / "pairs.csv").write_text("\n".join(table))

    predict_settings = {
        "img_pth": "is/given/on/the/command/line",
        "image_size": [32, 40],
        "use_orig_size": False,
        "result_output_dir": "so/is/this",
        "pretrained_model": str(run_dir / "last_best.pth"),
        "show_result": False,
        "laplacian_level_count": 2,
    }
    (run_dir / "best.pth").rename(run_dir / "last_best.pth")
    config = write_json("predict_conf.json", predict_settings)
    results = tmp_path / "results"
    printed = run_command("predict.py", tmp_path / "dark", "--output", results, "--conf", config)
    assert "3 corrected, 0 failed" in printed
    for index in range(3):
        normal, corrected = (
            cv2.imread(str(tmp_path / folder / f"{index}.png")).astype(float)
            for folder in ("normal", "results")
        )
        assert corrected.shape == normal.shape
        assert np.abs(corrected - normal).mean() < np.abs(normal // 2 - normal).mean() / 2

    scores = tmp_path / "scores"
    pairs = tmp_path / "pairs.csv"
    run_command("evaluate.py", "--pairs", pairs, "--results", results, "--output", scores)
    means = json.loads((scores / "scores.json").read_text())["means"]["own"]
    assert means["corrected"]["all_psnr"] > means["untouched"]["all_psnr"] + 4
