"""Time and memory of predict.py beside its parts, all in one run: python -m benchmarks.inference

Each part runs in a process of its own, which keeps freed memory as predict.py does, and whose peak
counts from where it stands with the libraries and the network loaded. The photo is a dim room with
grain; part c1 is a page of fine print, which takes longest. Times are the best of several
repetitions. Of 12 megapixels, a folder of photos stands beside the parts of one; at the end,
`correct` on 512 x 512 px beside the network's pass alone, and what it takes to start. A pass is one
of all levels, the coarsest on four mirror images. Part b1 is all that `correct` needs of the
network by default: the coarsest level on the mirror images as they are and toned, its correction
carried to 512 px.
"""

import argparse
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from bilateral_grid import to_batch
from config import PredictConfig
from correction import correct, correct_file, correct_files, load_model
from inference import device_of, run_network
from photo import load_photo, save_photo
from utils import keep_freed_memory

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "weights" / "exposure_correction.pth"
SOURCE = ROOT / "test" / "room_minus3ev.jpg"
CONFIG = PredictConfig(
    img_pth="unused",
    image_size=(512, 512),
    use_orig_size=False,
    result_output_dir="unused",
    pretrained_model=str(WEIGHTS),
    show_result=False,
)


def make_photo(path: Path, megapixels: float) -> None:
    """Write a JPEG of 3:2 with detail down to the pixel, as sensors give it."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    size = (round(height * 1.5), height)
    photo = cv2.resize(load_photo(SOURCE).pixels, size, interpolation=cv2.INTER_CUBIC)
    random = np.random.default_rng(0)
    grain = random.normal(0, 4, (size[1], size[0], 1)).astype(np.float32)
    photo = np.clip(photo + cv2.GaussianBlur(grain, (0, 0), 0.6)[..., None] * 2, 0, 255)
    cv2.imwrite(str(path), photo.round().astype(np.uint8)[:, :, ::-1])


def make_page(path: Path, megapixels: float) -> None:
    """Write a JPEG of 3:2, over-exposed fine print: nearly all of it is unlike its surroundings."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    page = np.full((height, round(height * 1.5), 3), 255, np.uint8)
    for bottom in range(60, height, 40):
        cv2.putText(page, "the quick brown fox " * 20, (40, bottom), 0, 1, (90, 80, 80), 2)
    cv2.imwrite(str(path), page)


def decode_encode(path: Path, output: Path, model: torch.nn.Module) -> None:
    photo = load_photo(path)
    save_photo(photo, photo.pixels, output)


@torch.inference_mode()
def run_all_levels(picture: np.ndarray, model: torch.nn.Module) -> None:
    """Pass (H, W, 3) float32 through the network alone, nothing toned or carried on."""
    model(to_batch(picture, device_of(model)), self_ensemble=True)


def network_pass(path: Path, output: Path, model: torch.nn.Module) -> None:
    run_all_levels(np.full((341, 512, 3), 0.4, np.float32), model)


def coarsest_pass(path: Path, output: Path, model: torch.nn.Module) -> None:
    run_network(np.full((341, 512, 3), 0.4, np.float32), model, model.level_count)


def whole_predict(path: Path, output: Path, model: torch.nn.Module) -> None:
    correct_file(path, output, model, CONFIG)


def network_at_own_size(path: Path, output: Path, model: torch.nn.Module) -> None:
    run_all_levels(load_photo(path).pixels.astype(np.float32) / 255, model)


PARTS: dict[str, Callable[[Path, Path, torch.nn.Module], None]] = {
    "a  decode + encode": decode_encode,
    "b  network, 512 px": network_pass,
    "b1 coarsest level": coarsest_pass,
    "c  whole predict": whole_predict,
    "c1 same, fine print": whole_predict,
    "d  network, own size": network_at_own_size,
}


def measure(part: str, path: Path, repetitions: int) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak memory in GB of one part."""
    keep_freed_memory()
    model = load_model(WEIGHTS)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    with tempfile.TemporaryDirectory() as folder:
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times = []
        for _ in range(repetitions):
            wall, cpu = time.perf_counter(), time.process_time()
            PARTS[part](path, Path(folder) / "output.jpg", model)
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return min(wall for wall, _ in times), min(cpu for _, cpu in times), (peak - base) * unit / 1e9


def measure_folder(path: Path, count: int, repetitions: int) -> float:
    """Return wall seconds a photo, of `count` copies of one photo corrected as a folder."""
    keep_freed_memory()
    model = load_model(WEIGHTS)
    with tempfile.TemporaryDirectory() as folder:
        outputs = {}
        for index in range(count):
            copy = Path(folder) / f"{index}.jpg"
            shutil.copyfile(path, copy)
            outputs[copy] = Path(folder) / "output" / copy.name
        times = []
        for _ in range(repetitions):
            start = time.perf_counter()
            failures = correct_files(outputs, model, CONFIG)
            times.append(time.perf_counter() - start)
            assert not failures, failures
    return min(times) / count


def measure_small(repetitions: int) -> tuple[float, float]:
    """Return wall seconds of `correct` on 512 x 512 px, and of the network's pass."""
    model = load_model(WEIGHTS)
    photo = cv2.resize(load_photo(SOURCE).pixels, (512, 512), interpolation=cv2.INTER_AREA)
    abnormal = photo.astype(np.float32) / 255
    whole, network = [], []
    for _ in range(repetitions):  # in turns, so that noise meets both
        start = time.perf_counter()
        correct(photo, model)
        middle = time.perf_counter()
        run_all_levels(abnormal, model)
        whole.append(middle - start)
        network.append(time.perf_counter() - middle)
    return min(whole), min(network)


def measure_start(*arguments: str, repetitions: int = 3) -> float:
    """Return wall seconds of a new Python process, the best of several."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 12, 24])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--own-size-up-to", type=float, default=1, help="megapixels for part d")
    parser.add_argument("--folder", type=int, default=20, help="photos of the folder; 0: none")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"PyTorch {torch.__version__}, OpenCV {cv2.__version__}, {threads} threads")
    print(f"{'MP':>4}  {'part':22}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}{'c / part':>10}")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in options.megapixels:
            path, page = (Path(folder) / f"{name}{megapixels:g}.jpg" for name in ("", "page"))
            with context.Pool(1) as pool:  # its memory would count as its children's
                pool.apply(make_photo, (path, megapixels))
                pool.apply(make_page, (page, megapixels))
            results = {}
            for part in PARTS:
                if part.startswith("d") and megapixels > options.own_size_up_to:
                    continue
                with context.Pool(1) as pool:
                    repetitions = 1 if part.startswith("d") else options.repetitions
                    source = page if part.startswith("c1") else path
                    results[part] = pool.apply(measure, (part, source, repetitions))
            whole = results["c  whole predict"][0]
            for part, (wall, cpu, peak) in results.items():
                ratio = f"{whole / wall:10.2f}"
                print(f"{megapixels:4g}  {part:22}{wall:8.3f}{cpu:8.3f}{peak:9.3f}{ratio}")
            decode, network, coarsest = (results[part][0] for part in list(PARTS)[:3])
            print(f"{megapixels:4g}  {'c / (a + b)':22}{whole / (decode + network):8.2f}")
            print(f"{megapixels:4g}  {'c / (a + b1)':22}{whole / (decode + coarsest):8.2f}")
            if megapixels == 12 and options.folder:
                with context.Pool(1) as pool:
                    photo = pool.apply(measure_folder, (path, options.folder, 2))
                larger = max(decode, network)
                print(f"{megapixels:4g}  {'folder, per photo':22}{photo:8.3f}")
                print(f"{megapixels:4g}  {'folder / max(a, b)':22}{photo / larger:8.2f}")
        with context.Pool(1) as pool:
            whole, network = pool.apply(measure_small, (options.repetitions,))
        print(f"512 x 512 px: correct / network {whole / network:.2f}")
    python, imports = measure_start("-c", "pass"), measure_start("-c", "import correction")
    mistake = measure_start("predict.py", "no such photo")
    print(f"start-up: Python {python:.2f} s, all imports {imports:.2f} s")
    print(f"a mistake told / all imports: {mistake / imports:.2f}")


if __name__ == "__main__":
    main()
