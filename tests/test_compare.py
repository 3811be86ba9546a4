import numpy as np
from PIL import Image

from compare import save_comparison


def test_comparison_shows_before_left_and_after_right(tmp_path):
    before = np.zeros((40, 60, 3), np.float32)
    after = np.ones((40, 60, 3), np.float32) * np.float32([1, 0, 0])
    save_comparison(tmp_path / "deep" / "photo.png", before, after)
    picture = np.asarray(Image.open(tmp_path / "deep" / "photo.png").convert("RGB"))
    height, width = picture.shape[:2]
    assert tuple(picture[height * 2 // 5, width // 4]) == (0, 0, 0)
    assert tuple(picture[height * 2 // 5, width * 3 // 4]) == (255, 0, 0)
