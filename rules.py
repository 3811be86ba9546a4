"""The rules by which a config is checked, and the lines that say what is wrong with it."""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What one key may hold: the words for it, the test of it, and the form that code gets."""

    allowed: str
    accepts: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Relation:
    """What several keys must fulfil together; tested once each of them is sound by itself."""

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    allowed: str


def whole(low: int, high: int = 10**9) -> Rule:
    """A whole number in low..high; true and false are none."""
    words = (
        f"a whole number, {low} or more" if high == 10**9 else f"a whole number, {low} to {high}"
    )
    return Rule(words, lambda value: type(value) is int and low <= value <= high)


def number(low: float, high: float = 1e9, *, above: bool = False, below: bool = False) -> Rule:
    """A finite number in low..high; `above` and `below` shut out low and high themselves."""
    start = f"a number above {low:g}" if above else f"a number, {low:g}"
    end = f" to {'below ' if below else ''}{high:g}" if high < 1e9 else "" if above else " or more"

    def accepts(value: Any) -> bool:
        is_number = type(value) in (int, float) and low <= value <= high  # NaN fails this, too
        return is_number and not (above and value == low) and not (below and value == high)

    return Rule(start + end, accepts)


def file_path(*, can_be_empty: bool = False) -> Rule:
    """A file or folder; a ~ at its start is the user's home, as in a shell."""
    words = "a text, or an empty one" if can_be_empty else "a text that is not empty"

    def accepts(value: Any) -> bool:
        return type(value) is str and "\0" not in value and (can_be_empty or bool(value))

    return Rule(words, accepts, os.path.expanduser)


def boolean() -> Rule:
    """True or false, and not 1 or 0."""
    return Rule("true or false", lambda value: type(value) is bool)


def one_of(*choices: str) -> Rule:
    """One of the given words."""
    return Rule(" or ".join(map(json.dumps, choices)), lambda value: value in choices)


def list_of(item: Rule) -> Rule:
    """A list, read as a tuple; Relations say how long it must be."""

    def accepts(value: Any) -> bool:
        return type(value) in (list, tuple) and all(map(item.accepts, value))

    return Rule(f"a list, each item {item.allowed}", accepts, tuple)


def pair(names: str, item: Rule, *, is_rising: bool = False) -> Rule:
    """A list of two, read as a tuple; `is_rising` wants the first not above the second."""

    def accepts(value: Any) -> bool:
        is_pair = list_of(item).accepts(value) and len(value) == 2
        return is_pair and not (is_rising and value[0] > value[1])

    order = ", the first not above the second" if is_rising else ""
    return Rule(f"{names}, each {item.allowed}{order}", accepts, tuple)


def either(short: Rule, long: Rule, widen: Callable[[Any], Any] = lambda value: value) -> Rule:
    """`long`, or the `short` form of it, which `widen` turns into the long one."""
    return Rule(
        f"{short.allowed}; or {long.allowed}",
        lambda value: short.accepts(value) or long.accepts(value),
        lambda value: widen(value) if short.accepts(value) else long.read(value),
    )


def or_null(rule: Rule) -> Rule:
    """What `rule` allows, or null (None)."""
    return either(Rule("null", lambda value: value is None), rule)


def image_side_pair(low: int) -> Rule:
    """[height, width] in px."""
    return pair("[height, width]", whole(low, 65536))


def jitter() -> Rule:
    """A strength x, drawing factors from [max(0, 1 - x), 1 + x], or that range itself."""
    return either(number(0), pair("[min, max]", number(0), is_rising=True))


def gpu_list() -> Rule:
    """Numbers of GPUs, as the environment variable CUDA_VISIBLE_DEVICES takes them."""

    def accepts(value: Any) -> bool:
        is_list = type(value) is str and re.fullmatch(r"([0-9]+(,[0-9]+)*)?", value) is not None
        return is_list and len(set(value.split(","))) == value.count(",") + 1

    words = 'GPU numbers without spaces, none twice, such as "0" or "0,1"; or "" for the CPU'
    return Rule(words, accepts)


def one_per_level(key: str) -> Relation:
    """The list has an item for every level of the pyramid."""
    return Relation(
        (key, "laplacian_level_count"),
        lambda items, level_count: None in (items, level_count) or len(items) == level_count,
        f"{key} has one item per level, so laplacian_level_count of them, coarsest first",
    )


def not_above(low_key: str, high_key: str) -> Relation:
    """The one value does not exceed the other."""
    return Relation(
        (low_key, high_key),
        lambda low, high: low <= high,
        f"{low_key} is at most {high_key}",
    )


def required(rule: Rule, example: Any) -> Any:
    """A key that every file has; `example` is shown to whoever left it out or got it wrong."""
    return field(metadata={"rule": rule, "example": example})


def optional(rule: Rule, default: Any) -> Any:
    """A key that files may leave out."""
    return field(default=default, metadata={"rule": rule, "example": default})


# --------------------------------------------------------------------------- the checking


def find_faults(
    keys: Iterable[Field], relations: Iterable[Relation], values: dict[str, Any]
) -> list[str]:
    """Return a line for each fault of `values`: unknown, missing and wrong ones, then relations.

    Args:
        keys: the fields of a config, made by `required` and `optional`.
        relations: what several of them must fulfil together.
        values: by key.
    """
    known = {key.name: key for key in keys}
    lines = [unknown_key_line(name, known) for name in values if name not in known]
    sound = {}
    for name, key in known.items():
        value = values.get(name, key.default)
        rule = key.metadata["rule"]
        if value is MISSING:
            lines.append(f"{name} is missing: {rule.allowed}; {fix_of(key)}")
        elif not rule.accepts(value):
            lines.append(f"{name} is {show(value)}; allowed: {rule.allowed}; {fix_of(key)}")
        else:
            sound[name] = value
    for relation in relations:
        if all(name in sound for name in relation.keys):
            together = [sound[name] for name in relation.keys]
            if not relation.holds(*together):
                named = zip(relation.keys, together, strict=True)
                held = ", ".join(f"{name} is {show(value)}" for name, value in named)
                lines.append(f"{held}; allowed: {relation.allowed}; change one of them")
    return lines


def unknown_key_line(name: str, known: dict[str, Field]) -> str:
    """Return the fault line for a key that no config has, with the nearest that it has."""
    by_small_letters = {key.lower(): key for key in known}
    nearest = difflib.get_close_matches(name.lower(), by_small_letters, n=1)
    fix = f"did you mean {by_small_letters[nearest[0]]}?" if nearest else "remove it"
    return f"{name} is not a known key; {fix}"


def fix_of(key: Field) -> str:
    """Return what to write for the key."""
    return f'write for example "{key.name}": {json.dumps(key.metadata["example"])}'


def show(value: Any) -> str:
    """Return the value as JSON shows it, cut where it is long."""
    shown = json.dumps(value, default=repr, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."
