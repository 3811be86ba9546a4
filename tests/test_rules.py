import math
from dataclasses import fields, make_dataclass

import pytest

from rules import (
    Relation,
    either,
    file_path,
    find_faults,
    gpu_list,
    list_of,
    number,
    one_of,
    optional,
    or_null,
    pair,
    required,
    show,
    whole,
)


@pytest.mark.parametrize(
    ("rule", "words", "accepted", "refused"),
    [
        (whole(1, 8), "a whole number, 1 to 8", [1, 8], [0, 9, 2.0, True, "1"]),
        (whole(1), "a whole number, 1 or more", [1, 10**9], [10**9 + 1]),
        (number(0, 1), "a number, 0 to 1", [0, 0.5, 1], [-0.1, 1.1, math.nan, False, None]),
        (number(0, above=True), "a number above 0", [1e-9], [0, math.inf]),
        (number(0, 1, below=True), "a number, 0 to below 1", [0, 0.999], [1]),
        (file_path(), "a text that is not empty", ["a"], ["", "a\0", 1]),
        (file_path(can_be_empty=True), "a text, or an empty one", [""], [None]),
        (one_of("a", "b"), '"a" or "b"', ["a"], ["c", ["a"]]),
        (list_of(whole(1, 2)), "a list, each item a whole number, 1 to 2", [[], (1, 2)], [1, [3]]),
        (or_null(whole(1, 2)), "null; or a whole number, 1 to 2", [None, 1], [0]),
    ],
)
def test_a_rule_accepts_what_its_words_say(rule, words, accepted, refused):
    assert rule.allowed == words
    assert all(rule.accepts(value) for value in accepted)
    assert not any(rule.accepts(value) for value in refused)


def test_a_rising_pair_may_be_level_but_not_fall():
    rule = pair("[min, max]", number(0), is_rising=True)
    assert rule.accepts([1, 1])
    assert not rule.accepts([2, 1])
    assert not rule.accepts([1, 2, 3])
    assert rule.read([1, 2]) == (1, 2)


def test_a_short_form_is_widened_and_a_long_one_is_read():
    rule = either(whole(1), list_of(whole(1)), lambda side: (side, side))
    assert rule.read(3) == (3, 3)
    assert rule.read([1, 2]) == (1, 2)


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert file_path().read("~/photos") == "/home/me/photos"
    assert file_path().read("photos/~") == "photos/~"


def test_gpus_are_listed_once_each_and_without_spaces():
    assert all(map(gpu_list().accepts, ["", "0", "0,11"]))
    assert not any(map(gpu_list().accepts, [0, "0, 1", "0,", "1,1", "-1"]))


def test_faults_are_unknown_then_missing_and_wrong_keys_then_relations_of_sound_ones():
    config = make_dataclass(
        "Config", [(key, int, required(whole(0), 1)) for key in ("low", "high", "rest")]
    )
    is_rising = Relation(("low", "high"), lambda low, high: low <= high, "low is at most high")
    keys = fields(config)
    assert find_faults(keys, [is_rising], {"low": 1, "high": 2, "rest": 0}) == []
    assert find_faults(keys, [is_rising], {"Low": 1, "low": 3, "high": 2}) == [
        "Low is not a known key; did you mean low?",
        'rest is missing: a whole number, 0 or more; write for example "rest": 1',
        "low is 3, high is 2; allowed: low is at most high; change one of them",
    ]
    assert len(find_faults(keys, [is_rising], {"low": 3, "high": -1, "rest": 0})) == 1


def test_an_optional_key_may_be_missing():
    config = make_dataclass("Config", [("epochs", int, optional(whole(1), 7))])
    assert find_faults(fields(config), [], {}) == []


def test_a_long_value_is_cut_where_it_is_shown():
    assert show([1, "a", None]) == '[1, "a", null]'
    assert len(show([1] * 1000)) == 60
