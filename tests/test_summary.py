import math
from pathlib import Path

import pytest

from pairs import Pair
from scores import METHODS, Agreement, Score
from summary import format_table, summarize
from utils import MAX_PSNR


def make_pair(group="g", ev=None, scene="s"):
    return Pair(group, "set", scene, Path("input.png"), Path("gt.png"), ev)


def make_score(group, ev, psnr, brightness_error=0.0):
    measures = {"psnr": psnr, "ssim": 0.5, "brightness_error": brightness_error}
    return Score(make_pair(group, ev), {method: measures for method in METHODS})


def test_means_are_those_worked_by_hand():
    scores = [
        make_score("a", -1, 10, -0.2),
        make_score("a", -2, 14, 0.1),
        make_score("a", 1, 20, 0.3),
        make_score("a", 0, 40, 0.0),
        make_score("b", None, 31, -0.1),
    ]
    alike = {method: 25.0 for method in METHODS}
    summary = summarize(scores, [Agreement(("a",), alike)])
    assert list(summary) == ["a", "b", "every pair", "mean of the groups"]
    a, b, every, mean = (summary[section]["corrected"] for section in summary)
    assert [a[f"{part}_psnr"] for part in ("under", "over", "all")] == [12, 20, 21]
    assert [a[f"{part}_pairs"] for part in ("under", "over", "all")] == [2, 1, 4]
    assert a["under_brightness_error"] == pytest.approx(-0.05)
    assert a["under_absolute_brightness_error"] == pytest.approx(0.15)
    assert [b["under_psnr"], b["all_psnr"], b["all_agreement"]] == [None, 31, None]
    assert every["all_psnr"] == 23
    assert [a["all_median_psnr"], every["all_median_psnr"]] == [17, 20]
    assert [mean["under_psnr"], mean["all_psnr"], mean["all_agreement"]] == [12, 26, 25]
    assert mean["all_median_psnr"] == 24


def test_a_picture_near_or_at_its_reference_counts_no_more_than_the_cap():
    scores = [make_score("a", -1, math.inf), make_score("a", -1, 70), make_score("a", 1, 20)]
    means = summarize(scores, [])["a"]["corrected"]
    assert [means["under_psnr"], means["all_median_psnr"]] == [MAX_PSNR, MAX_PSNR]
    assert means["all_psnr"] == pytest.approx((2 * MAX_PSNR + 20) / 3)


def test_a_single_group_is_its_own_headline():
    summary = summarize([make_score("a", -1, 10)], [])
    assert list(summary) == ["a"]
    assert format_table(summary).endswith(
        "PSNR, a, in dB: corrected 10.00, untouched 10.00, mid grey gamma 10.00"
    )


def test_table_shows_a_dash_where_nothing_was_averaged_and_keeps_its_columns():
    lines = format_table(summarize([make_score("a", -1, 10)], [])).splitlines()
    assert len({len(line) for line in [*lines[:2], *lines[3:6]]}) == 1
    found, nothing = ["1", "10.00", "0.500", "0.000", "0.000"], ["0", "-", "-", "-", "-"]
    assert lines[3].split() == ["corrected", *found, *nothing, *found, "10.00", "-"]
