"""Speed of training's parts, all in one run: python -m benchmarks.training > docs/performance.md

First the loader: photos per second with one and two workers, photos per CPU-second of one process
that does nothing else, and where a photo's time goes. Then a step of the recipe's network: wall and
CPU-seconds of the whole and of its parts, each measured alone. Takes some minutes; whatever else
runs on the machine shows in the numbers.
"""

import contextlib
import dataclasses
import os
import platform
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn
from torch.utils.data import default_collate

import dataset
from benchmarks.inference import make_photo
from config import TrainConfig, load_config
from dataset import find_photos
from loader import make_train_loader
from loss import pyramid_loss, reconstruction_loss
from pyramid import gaussian_pyramid, laplacian_pyramid
from run_state import Networks, Optimizers, make_networks, make_optimizers, update_average
from step import has_fast_half_precision, step_settings, train_step
from utils import keep_freed_memory

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent
LARGE_PHOTO_COUNT = 6
LOADED_COUNT = {"small": 420, "12 MP": 90}  # photos per measurement
STEP_SIZE, STEP_BATCH = 256, 8
Seconds = tuple[float, float]  # wall, CPU


def describe_machine() -> str:
    """Processor, cores and versions, without names."""
    cpu_info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpu_info.read_text()) if cpu_info.exists() else None
    processor = found.group(1) if found else platform.processor() or platform.machine()
    load = f", load before the run {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor}, {os.cpu_count()} cores; {platform.system()}, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}, OpenCV {cv2.__version__}, "
        f"{torch.get_num_threads()} threads{load}."
    )


# ---------------------------------------------------------------------------- the loader


class Stopwatch:
    """Adds up the CPU seconds of the functions that it is put around."""

    def __init__(self):
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def around(self, part: str, function: Callable) -> Callable:
        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            result = function(*arguments)
            self.seconds[part] += time.process_time() - start
            return result

        return timed


@contextlib.contextmanager
def watched(train_set: dataset.TrainDataset) -> Iterator[Stopwatch]:
    """Time the parts of a data set's work."""
    watch, crop_and_resize = Stopwatch(), dataset.crop_and_resize
    train_set.load = watch.around("decode", train_set.load)
    train_set.synthesis = watch.around("spoil", train_set.synthesis)
    dataset.crop_and_resize = watch.around("crop", crop_and_resize)
    yield watch
    dataset.crop_and_resize = crop_and_resize


def measure_workers(config: TrainConfig, paths: list[Path], worker_count: int) -> float:
    """Return photos per second of wall time, from the first batch on."""
    config = dataclasses.replace(config, num_workers=worker_count)
    batches = iter(make_train_loader(config, paths, config.laplacian_level_count, CPU))
    next(batches)
    start = time.perf_counter()
    photo_count = sum(len(normal) for _, normal in batches)
    return photo_count / (time.perf_counter() - start)


def measure_parts(config: TrainConfig, paths: list[Path]) -> tuple[float, dict[str, float]]:
    """Return photos per CPU-second, and the milliseconds that each part takes of a photo."""
    loader = make_train_loader(config, paths, config.laplacian_level_count, CPU)
    train_set, size = loader.dataset, config.batch_size
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    train_set[0, 0]
    with watched(train_set) as watch:
        collate = watch.around("collate", default_collate)
        start = time.process_time()
        for first in range(0, len(paths), size):
            collate([train_set[0, index] for index in range(first, min(first + size, len(paths)))])
        seconds = time.process_time() - start
    torch.set_num_threads(threads)
    parts = watch.seconds | {"rest": seconds - sum(watch.seconds.values())}
    return len(paths) / seconds, {name: 1000 * s / len(paths) for name, s in parts.items()}


def print_loader(config: TrainConfig, folders: dict[str, list[Path]]) -> None:
    parts = ("decode", "crop", "spoil", "collate", "rest")
    columns = ("photos", "px", "recipe", "per CPU-second", "1 worker, per s", "2 workers, per s")
    print("|", " | ".join((*columns, *(f"{part}, ms" for part in parts))), "|")
    print("|", " | ".join(["---"] * (len(columns) + len(parts))), "|")
    plain = dataclasses.replace(
        config,
        exposure_shift_share=0.0,
        untouched_share=0.0,
        retone_strength=0.0,
        brightness_pull=0.0,
        hidden_light_share=0.0,
        agreement_weight=0.0,
    )
    for kind, paths in folders.items():
        some = (paths * (LOADED_COUNT[kind] // len(paths) + 1))[: LOADED_COUNT[kind]]
        for side in (256, 512):
            for recipe, settings in (("ColorJitter", plain), ("conf.json", config)):
                sized = dataclasses.replace(settings, image_size=(side, side), batch_size=8)
                per_cpu_second, shares = measure_parts(sized, some)
                speeds = [measure_workers(sized, some, count) for count in (1, 2)]
                row = [kind, str(side), recipe, *(f"{s:.0f}" for s in (per_cpu_second, *speeds))]
                print("|", " | ".join(row + [f"{shares[part]:.2f}" for part in parts]), "|")


# ------------------------------------------------------------------------------ the step


def best_of(function: Callable[[], Any], repetitions: int = 3) -> Seconds:
    """Return the fewest wall seconds of a call, with all threads, and CPU seconds, with one.

    Threads that wait for each other count as busy.
    """

    def fewest(clock: Callable[[], float]) -> float:
        times = []
        for _ in range(repetitions):
            start = clock()
            function()
            times.append(clock() - start)
        return min(times)

    wall, threads = fewest(time.perf_counter), torch.get_num_threads()
    torch.set_num_threads(1)
    cpu = fewest(time.process_time)
    torch.set_num_threads(threads)
    return wall, cpu


def measure_sub_network(network: nn.Module, side: int, is_half: bool) -> tuple[Seconds, Seconds]:
    """Return the seconds of a level's forward and backward passes."""
    image = torch.rand(STEP_BATCH, 3, side, side, requires_grad=True)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, is_half):
            return network(image).float()

    loss = forward().mean()
    return best_of(forward), best_of(lambda: loss.backward(retain_graph=True))


def measure_step(
    networks: Networks, optimizers: Optimizers, config: TrainConfig, version_count: int
) -> Seconds:
    settings = step_settings(config, config.laplacian_level_count, 1, CPU)
    abnormal = torch.rand(STEP_BATCH, version_count, 3, STEP_SIZE, STEP_SIZE)
    normal = torch.rand(STEP_BATCH, 3, STEP_SIZE, STEP_SIZE)
    train_step(networks, optimizers, abnormal, normal, **settings)
    return best_of(lambda: train_step(networks, optimizers, abnormal, normal, **settings))


def measure_step_parts(config: TrainConfig) -> dict[str, Seconds]:
    """Return the seconds of a whole step, and of its parts, each alone."""
    is_half = config.mixed_precision == "auto" and has_fast_half_precision(CPU)
    networks = make_networks(config, CPU)
    generator, optimizers = networks.generator, make_optimizers(networks, config)
    for sub_network in generator.sub_networks:  # zeros would be a special case
        nn.init.normal_(sub_network.head.weight, std=0.01)
    level_count = config.laplacian_level_count
    parts = {
        "whole step, one version of each photo": measure_step(networks, optimizers, config, 1),
        "whole step, two versions": measure_step(networks, optimizers, config, 2),
    }
    image = torch.rand(STEP_BATCH, 3, STEP_SIZE, STEP_SIZE)
    parts["pyramids"] = best_of(
        lambda: (laplacian_pyramid(image, level_count), gaussian_pyramid(image, level_count))
    )
    for index, sub_network in enumerate(generator.sub_networks):
        level = level_count - index
        times = measure_sub_network(sub_network, STEP_SIZE >> (level - 1), is_half)
        parts[f"level {level}, forward"], parts[f"level {level}, backward"] = times
    targets = gaussian_pyramid(image, level_count)
    outputs = [torch.rand_like(target).requires_grad_() for target in targets]
    parts["losses, forward and backward"] = best_of(
        lambda: (reconstruction_loss(outputs, targets) + pyramid_loss(outputs, targets)).backward()
    )

    def optimize() -> None:
        optimizers.generator.step()
        update_average(networks, optimizers.generator, config.ema_decay)

    parts["optimizer and running average"] = best_of(optimize)
    return parts


def print_step(config: TrainConfig) -> None:
    config = dataclasses.replace(
        config, begin_use_level_epoch=None, begin_use_adv_loss_epoch=config.epochs + 1
    )
    tables = {"float32": measure_step_parts(dataclasses.replace(config, mixed_precision="off"))}
    if has_fast_half_precision(CPU):
        tables["bfloat16"] = measure_step_parts(config)
    columns = [f"{name}, {clock} s" for name in tables for clock in ("wall", "CPU")]
    print("|", " | ".join(("part", *columns)), "|")
    print("|", " | ".join(["---"] * (1 + len(columns))), "|")
    for part in tables["float32"]:
        times = [f"{seconds:.3f}" for table in tables.values() for seconds in table[part]]
        print("|", " | ".join((part, *times)), "|")


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    config = load_config(ROOT / "conf.json", TrainConfig)
    print("# Speed of training\n")
    print("By `python -m benchmarks.training > docs/performance.md`, on", describe_machine())
    print("\n## Loader\n")
    print(
        f"Small photos are those of `data/train`, at most 768 px; the {LARGE_PHOTO_COUNT} of "
        "12 megapixels are enlarged, with grain added. *ColorJitter*: brightness, contrast and "
        "saturation, one version of each photo; *conf.json*: the recipe, two versions where it "
        "has `agreement_weight`. Workers are timed by the clock, the parts by CPU-seconds.\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        large = [Path(folder) / f"{index}.jpg" for index in range(LARGE_PHOTO_COUNT)]
        for path in large:
            make_photo(path, 12)
        small = find_photos(ROOT / "data" / "train", "data/train")
        print_loader(config, {"small": small, "12 MP": large})
    weights = sum(p.numel() for p in make_networks(config, CPU).generator.parameters())
    print("\n## Step\n")
    print(
        f"Batches of {STEP_BATCH} photos at {STEP_SIZE} x {STEP_SIZE} px, all "
        f"{weights / 1e6:.1f} million weights of `conf.json`'s network learning, without the "
        "discriminator; the best of three, wall seconds with all threads, CPU-seconds with one. "
        "Each part is measured alone, so that they need not add up.\n"
    )
    print_step(config)


if __name__ == "__main__":
    main()
