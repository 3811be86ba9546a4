"""What carrying to full size costs in quality: python -m benchmarks.upsampling --pairs CSV

For each group of pairs: PSNR of what all levels make of the photo at 512 px, carried to its own
size, against what they make of it at that size; and PSNR of the default correction against the
references, by the protocol of evaluate.py (all at 512 px) and at the photos' own size, where all
levels at that size stand beside. The first column leaves out photos of 512 px and less.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from checkpoint import CheckpointError
from colour import to_8_bit
from correction import correct, load_model
from pairs import read_pairs
from photo import load_photo
from scores import LONG_SIDE, load_picture
from utils import capped_psnr

COLUMNS = (
    "carried / network at own size",
    "at 512 px / reference",
    "carried / reference at own size",
    "network / reference at own size",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True, help="table of pairs, see evaluate.py")
    parser.add_argument(
        "--weights", type=Path, default=Path("weights/exposure_correction.pth"), help="weights"
    )
    options = parser.parse_args()
    pairs, faults = read_pairs(options.pairs)
    if faults:
        parser.error("\n".join(faults))
    try:
        model = load_model(options.weights)
    except (CheckpointError, OSError) as error:
        parser.error(str(error))
    scores = defaultdict(lambda: defaultdict(list))
    for pair in tqdm(pairs, unit="pair", leave=False, disable=None):
        photo = to_8_bit(load_photo(pair.input).pixels)
        reference = to_8_bit(load_photo(pair.reference).pixels)
        if reference.shape != photo.shape:
            reference = cv2.resize(reference, photo.shape[1::-1], interpolation=cv2.INTER_AREA)
        carried = correct(photo, model, (LONG_SIDE, LONG_SIDE))
        group = scores[pair.group]
        small = load_picture(pair.input)
        at_512 = correct(small, model, (LONG_SIDE, LONG_SIDE))
        group[COLUMNS[1]].append(capped_psnr(at_512, load_picture(pair.reference, small.shape[:2])))
        group[COLUMNS[2]].append(capped_psnr(carried, reference))
        at_own_size = correct(photo, model, use_orig_size=True, finest_level=1)
        if max(photo.shape) > LONG_SIDE:
            all_levels = correct(photo, model, (LONG_SIDE, LONG_SIDE), finest_level=1)
            group[COLUMNS[0]].append(capped_psnr(all_levels, at_own_size))
        group[COLUMNS[3]].append(capped_psnr(at_own_size, reference))

    print(f"{'PSNR in dB':<14}", *(f"{column:>34}" for column in COLUMNS))
    rows = {
        name: [np.mean(group[column]) if group[column] else np.nan for column in COLUMNS]
        for name, group in scores.items()
    }
    rows["mean"] = np.nanmean(list(rows.values()), axis=0)
    for name, values in rows.items():
        print(f"{name:<14}", *(f"{value:34.2f}" for value in values))


if __name__ == "__main__":
    main()
