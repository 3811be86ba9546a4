"""What several test files need: photos, tiny networks, tiny configs, and a process left clean."""

import csv
import gc
import json
import multiprocessing
import os
import signal
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pictures import save
from PIL import Image

import predict
import train
from checkpoint import save_weights
from config import TrainConfig
from interruption import SIGNALS
from model import ExposureCorrectionNet

ROOT = Path(__file__).parent.parent


def make_batch(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random numbers in [0, 1], the same ones every time."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def processes_of(session: int) -> list[int]:
    """The living processes of a session, whatever their group."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            if os.getsid(pid) == session:
                found.append(pid)
        except ProcessLookupError:
            pass
    return found


@pytest.fixture(autouse=True)
def clean_process(monkeypatch):
    """Undo what main() sets in a process that ends after it, but here goes on."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in handlers.items():
        if handler is signal.SIG_IGN:  # as a job in the background has it
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_flush_denormal(False)
    end_workers()


def end_workers() -> None:
    """End loaders' workers that garbage keeps alive; collecting it later would wait for them."""
    workers = multiprocessing.active_children()
    if workers:
        # PyTorch's handler takes the end of a worker for a failure.
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for worker in workers:
            worker.kill()
            worker.join()
        gc.collect()
        signal.signal(signal.SIGCHLD, handler)


@pytest.fixture
def make_photo():
    """(height, width, seed) -> (H, W, 3) uint8: smooth, colourful, neither black nor white."""

    def make(height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
        small = np.random.default_rng(seed).uniform(30, 225, (5, 5, 3)).astype(np.float32)
        photo = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        return photo.round().astype(np.uint8)

    return make


@pytest.fixture
def write_photos(make_photo):
    """(folder, how many, height, width) -> paths of as many PNGs, other ones in each folder."""

    def write(folder: Path, count: int, height: int = 64, width: int = 64) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"photo_{index}.png" for index in range(count)]
        first_seed = zlib.crc32(folder.name.encode())
        for index, path in enumerate(paths):
            cv2.imwrite(str(path), make_photo(height, width, seed=first_seed + index))
        return paths

    return write


@pytest.fixture
def write_weights(tmp_path):
    """(gain, architecture) -> a file of weights that multiply every photo by (1 + gain)."""

    def write(gain: float = 0.0, name: str = "tiny.pth", **architecture) -> Path:
        settings = {"layer_counts": [1, 1], "first_channels": [8, 8], "has_gain": True}
        network = ExposureCorrectionNet(**(settings | architecture))
        if gain:  # of the coarsest level; the gain carries on to the detail of the finer one
            torch.nn.init.constant_(network.sub_networks[0].head.bias[:3], gain)
        path = tmp_path / "weights" / name
        save_weights(path, network)
        return path

    return write


@pytest.fixture
def train_settings(tmp_path, write_photos):
    """A conf.json's content: two levels, five photos of 64 px, two epochs of three steps."""
    write_photos(tmp_path / "train", 5)
    write_photos(tmp_path / "valid", 1)
    return {
        "image_size": [32, 32],
        "discriminator_image_size": 128,
        "train_data_dir": str(tmp_path / "train"),
        "valid_data_dir": str(tmp_path / "valid"),
        "batch_size": 2,
        "init_lr": 1e-3,
        "final_lr": 1e-5,
        "weight_decay": 0,
        "discriminator_weight_decay": 0,
        "discriminator_init_lr": 1e-3,
        "discriminator_final_lr": 1e-5,
        "epochs": 2,
        "begin_use_adv_loss_epoch": 3,
        "CUDA_VISIBLE_DEVICES": "",
        "num_workers": 0,
        "model_save_dir": str(tmp_path / "run"),
        "laplacian_level_count": 2,
        "layer_count_of_every_unet": [1, 1],
        "first_layer_out_channels_of_every_unet": [8, 8],
        "color_jitter_brightness": [0.3, 2.5],
        "color_jitter_saturation": 0.2,
        "color_jitter_contrast": 0.2,
        "mixed_precision": "off",
    }


@pytest.fixture
def make_config(train_settings):
    """(changes) -> TrainConfig."""
    return lambda **changes: TrainConfig(**(train_settings | changes))


@pytest.fixture
def write_json(tmp_path):
    """(name, values) -> path of a JSON file."""

    def write(name: str, values: dict) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(values))
        return path

    return write


@pytest.fixture
def run_predict(tmp_path, write_json, write_weights):
    """(command line, gain of the network, config) -> exit code; results go to tmp_path / out."""

    def call(*arguments, gain: float = 0.0, **changes) -> int:
        values = {
            "img_pth": str(tmp_path / "photos"),
            "image_size": [32, 32],
            "use_orig_size": False,
            "result_output_dir": str(tmp_path / "out"),
            "pretrained_model": str(write_weights(gain)),
            "show_result": False,
            "self_ensemble": False,  # toned versions would make the gain a curve
        }
        config = write_json("predict_conf.json", values | changes)
        return predict.main([*map(str, arguments), "--conf", str(config)])

    return call


@pytest.fixture(autouse=True)
def keep_warning_format(monkeypatch):
    """Training sets it for its process; pytest has a use for the line of code."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)


@pytest.fixture
def run_train(train_settings, write_json, tmp_path):
    """(name of the run, changed settings) -> exit code; its files are in tmp_path / name."""

    def call(name: str = "run", **changes) -> int:
        settings = train_settings | {"model_save_dir": str(tmp_path / name)} | changes
        return train.main(["--conf", str(write_json(f"{name}.json", settings))])

    return call


@pytest.fixture
def dark(tmp_path, make_photo) -> np.ndarray:
    """The only photo of the folder, dark.png; the network sees it at its own size."""
    photo = make_photo(30, 32) // 3
    save(tmp_path / "photos" / "dark.png", photo)
    return photo


@pytest.fixture
def after_step(monkeypatch):
    """(function of the number of the step, from 1) is called after every step of training."""

    def install(function) -> None:
        step, count = train.train_step, [0]

        def counted(*arguments, **settings):
            losses = step(*arguments, **settings)
            count[0] += 1
            function(count[0])
            return losses

        monkeypatch.setattr(train, "train_step", counted)

    return install


@pytest.fixture
def save_picture():
    """(path, value, size, seed) -> path of a flat picture; or of noise, where a seed is given."""

    def save(
        path: Path, value: int = 100, size: tuple[int, int] = (24, 32), seed: int | None = None
    ) -> Path:
        pixels = np.full((*size, 3), value, np.uint8)
        if seed is not None:
            pixels = np.random.default_rng(seed).integers(0, 256, pixels.shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return save


@pytest.fixture
def pairs_csv(tmp_path, save_picture):
    """A table of pairs: two sets of brackets, and one of unknown exposure."""
    rows = [
        ("hdrps", "church", "hdrps/input/church_N1.png", "hdrps/gt/church.png", "-1.1"),
        ("hdrps", "church", "hdrps/input/church_P1.png", "hdrps/gt/church.png", "0.9"),
        ("empa", "church", "empa/input/church_P2.png", "empa/gt/church.png", "2"),
        ("fivek_pairs", "a1", "fivek/input/a1.png", "fivek/gt/a1.png", ""),
    ]
    for seed, (_, _, photo, reference, _) in enumerate(rows):
        save_picture(tmp_path / photo, seed=seed)
        save_picture(tmp_path / reference, value=120)
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([("set", "scene", "input", "gt", "ev"), *rows])
    return tmp_path / "pairs.csv"
