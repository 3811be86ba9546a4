"""Folders of well-exposed photos in, batches of (abnormal, normal) photos out.

Every random choice derives from (seed, epoch, index of the photo), so that the same samples
come out whatever the number of workers, and wherever a run was interrupted.
"""

import filecmp
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, Sampler

from folder import photo_paths
from photo import PhotoError, load_rgb
from synthesis import ExposureSynthesis, shift_exposure, uniform
from tones import apply_curve, draw_brightness, plain_curve

# Exposures at which validation photos are spoilt, in stops; 0 leaves them as they are.
VALIDATION_EVS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def make_generator(seed: int, *position: int) -> Generator:
    """Make the random generator that belongs to a position, such as (epoch, index)."""
    state = np.random.SeedSequence(seed, spawn_key=position).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))


def find_photos(folder: str | Path, name: str) -> list[Path]:
    """List the photos below a folder, sorted.

    Args:
        folder: searched with its subfolders.
        name: of the config key, for the error.

    Raises:
        FileNotFoundError: there is no such folder, or no photo in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{name}: {folder} is not a folder; set it to one with photos")
    paths = photo_paths(folder)
    if not paths:
        raise FileNotFoundError(f"{name}: no photo in {folder}; put photos there")
    return paths


def find_shared(paths: Sequence[Path], others: Sequence[Path]) -> list[Path]:
    """List those of `paths` whose file is, byte by byte, also among `others`."""
    others_of_size = defaultdict(list)
    for other in filter(Path.exists, others):
        others_of_size[other.stat().st_size].append(other)
    return [
        path
        for path in filter(Path.exists, paths)
        if any(is_same_file(path, other) for other in others_of_size[path.stat().st_size])
    ]


def is_same_file(path: Path, other: Path) -> bool:
    """True if both hold the same bytes; False as well if one can't be read."""
    try:
        return filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False


def keep_readable(paths: Iterable[Path]) -> list[Path]:
    """Leave out the photos that can't be read, each with a warning."""
    readable = []
    for path in paths:
        try:
            load_rgb(path, min_size=1)
            readable.append(path)
        except PhotoError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
    return readable


def crop_and_resize(photo: np.ndarray, box: tuple[int, int, int, int], size: Sequence[int]):
    """Cut box (top, left, height, width) in px and resize it to size (height, width)."""
    top, left, height, width = box
    crop = photo[top : top + height, left : left + width]
    is_smaller = size[0] <= height and size[1] <= width
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return cv2.resize(crop, (size[1], size[0]), interpolation=interpolation)


def largest_box(photo: np.ndarray, size: Sequence[int], scale: float = 1.0) -> tuple[int, int]:
    """Height and width in px of the largest box of size's aspect in a photo, times scale."""
    factor = scale * min(photo.shape[0] / size[0], photo.shape[1] / size[1])
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def to_tensor(photo: np.ndarray) -> Tensor:
    """Map (H, W, 3) to (3, H, W), both uint8: a quarter of the bytes that floats would take."""
    return torch.from_numpy(np.stack(cv2.split(photo)))


def to_floats(images: Tensor, device: torch.device) -> Tensor:
    """Move uint8 images to a device and map them to float32 in [0, 1] there."""
    return images.to(device, non_blocking=True).float() / 255


class TrainDataset(Dataset):
    """Random crops, flipped at random, with the same crops spoilt.

    A photo that can't be read gives way to the next one, with a warning; each loader's worker
    finds that out, and warns, by itself.

    Args:
        paths: the normal photos.
        image_size: (height, width) of the crops in px.
        synthesis: spoils a crop.
        crop_scale: range of the crops' sides, as shares of the largest crop that fits.
        seed: of everything random.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: tuple[int, int],
        synthesis: ExposureSynthesis,
        crop_scale: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
    ):
        self.paths = list(paths)
        self.image_size = tuple(image_size)
        self.synthesis = synthesis
        self.crop_scale = crop_scale
        self.seed = seed
        self.unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return (abnormal, normal) of (epoch, index), uint8.

        abnormal: (versions of the photo, 3, h, w); normal: (3, h, w).
        """
        epoch, index = position
        generator = make_generator(self.seed, epoch, index)
        scale = uniform(*self.crop_scale, generator)
        photo = self.load(index, math.ceil(max(self.image_size) / scale))
        height, width = largest_box(photo, self.image_size, scale)
        top = round(uniform(0, photo.shape[0] - height, generator))
        left = round(uniform(0, photo.shape[1] - width, generator))
        crop = crop_and_resize(photo, (top, left, height, width), self.image_size)
        if uniform(0, 1, generator) < 0.5:
            crop = cv2.flip(crop, 1)
        abnormal, normal = self.synthesis(crop, generator)
        return torch.stack([to_tensor(version) for version in abnormal]), to_tensor(normal)

    def load(self, index: int, min_size: int) -> np.ndarray:
        """Load (H, W, 3) uint8; the sides are min_size px or more if the file's are.

        Raises:
            PhotoError: none of the photos can be read.
        """
        for offset in range(len(self.paths)):
            candidate = (index + offset) % len(self.paths)
            if candidate in self.unreadable:
                continue
            try:
                return load_rgb(self.paths[candidate], min_size)
            except PhotoError as error:
                self.unreadable.add(candidate)
                warnings.warn(f"skipped: {error}", stacklevel=2)
        raise none_readable(self.paths)


def none_readable(paths: Sequence[Path]) -> PhotoError:
    """The error of photos to train on none of which can be read."""
    message = f"train_data_dir: none of the {len(paths)} photos, such as {paths[0]}, can be read"
    return PhotoError(f"{message}; put photos there that can")


class ValidationDataset(Dataset):
    """The middle of every photo at every exposure of `VALIDATION_EVS`; nothing is random.

    Args:
        paths: photos that can be read.
        image_size: (height, width) of what is seen of them in px.
        brightness_pull: as in training, so that what the network learns to make of wrong exposures
            is what counts; at 0 EV it is the photo itself.
    """

    def __init__(
        self, paths: Sequence[Path], image_size: tuple[int, int], brightness_pull: float = 0.0
    ):
        self.paths = list(paths)
        self.image_size = tuple(image_size)
        self.brightness_pull = brightness_pull

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return (abnormal, normal), each (exposures, 3, h, w) uint8."""
        try:
            photo = load_rgb(self.paths[index], max(self.image_size))
        except PhotoError as error:  # it could be read when the run began
            fix = "put it back, and the same command goes on"
            raise PhotoError(f"valid_data_dir: {error}; {fix}") from error
        height, width = largest_box(photo, self.image_size)
        top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
        crop = crop_and_resize(photo, (top, left, height, width), self.image_size)
        drawn = draw_brightness(crop, self.brightness_pull) if self.brightness_pull > 0 else crop
        abnormal, normal = [], []
        for ev in VALIDATION_EVS:
            abnormal.append(apply_curve(crop, shift_exposure(plain_curve(), ev)) if ev else crop)
            normal.append(drawn if ev else crop)
        return torch.stack([*map(to_tensor, abnormal)]), torch.stack([*map(to_tensor, normal)])


class EpochSampler(Sampler):
    """The photos of an epoch in its own random order, as (epoch, index).

    Args:
        photo_count: how many there are.
        seed: of the order.
        rank, rank_count: of the processes that share each batch evenly. The few photos that do
            not divide are left out, other ones in each epoch.

    Attributes:
        total: photos of an epoch, over all processes.
        epoch: from 1; set it before each epoch.
        start: how many photos of the epoch are done already, over all processes.
    """

    def __init__(self, photo_count: int, seed: int, rank: int = 0, rank_count: int = 1):
        self.photo_count, self.seed = photo_count, seed
        self.rank, self.rank_count = rank, rank_count
        self.total = photo_count - photo_count % rank_count
        self.epoch, self.start = 1, 0

    def __len__(self) -> int:
        return (self.total - self.start) // self.rank_count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.randperm(self.photo_count, generator=make_generator(self.seed, self.epoch))
        own = order[self.start + self.rank : self.total : self.rank_count]
        return iter([(self.epoch, index) for index in own.tolist()])
