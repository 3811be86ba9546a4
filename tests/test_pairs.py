import os

import pytest

from pairs import Pair, find_results, match_pairs, read_pairs, split_name


def test_pairs_csv_gives_groups_exposures_and_paths_beside_it(pairs_csv):
    pairs, faults = read_pairs(pairs_csv)
    assert faults == []
    assert [pair.group for pair in pairs] == ["brackets"] * 3 + ["fivek_pairs"]
    assert [pair.ev for pair in pairs] == [-1.1, 0.9, 2.0, None]
    assert pairs[0].input == pairs_csv.parent / "hdrps/input/church_N1.png"


def test_pairs_csv_reports_all_its_faults_at_once(pairs_csv):
    (pairs_csv.parent / "hdrps/input/church_P1.png").unlink()
    (pairs_csv.parent / "fivek/gt/a1.png").unlink()
    pairs_csv.write_text(pairs_csv.read_text().replace("-1.1", "dark"))
    _, faults = read_pairs(pairs_csv)
    assert len(faults) == 3
    assert "line 2: ev is 'dark', not a number of stops" in faults[0]
    assert "line 3: no file" in faults[1]
    assert faults[1].endswith("church_P1.png")
    assert faults[2].endswith("fivek/gt/a1.png")


def test_blank_lines_are_passed_over_and_counted(pairs_csv):
    pairs_csv.write_text(pairs_csv.read_text().replace("\n", "\n\n").replace("-1.1", "dark"))
    pairs, faults = read_pairs(pairs_csv)
    assert len(pairs) == 3
    assert faults == [f"{pairs_csv}: line 3: ev is 'dark', not a number of stops"]


@pytest.mark.parametrize("ev", ["nan", "-inf"])
def test_exposures_that_are_no_numbers_and_empty_cells_are_faults(pairs_csv, ev):
    lines = pairs_csv.read_text().splitlines()
    lines[1] = lines[1].replace("-1.1", ev)
    lines[2] = "hdrps,church,hdrps/input/church_P1.png,,1"
    pairs_csv.write_text("\n".join(lines))
    assert read_pairs(pairs_csv)[1] == [
        f"{pairs_csv}: line 2: ev is '{ev}', not a number of stops",
        f"{pairs_csv}: line 3: gt is empty",
    ]


@pytest.mark.parametrize("column", ["set", "scene"])
def test_a_short_line_and_an_empty_name_are_faults(pairs_csv, column):
    columns = ["input", "gt", *sorted({"set", "scene"} - {column}), column]
    pairs_csv.write_text(f"{','.join(columns)}\na.png,b.png,hdrps\na.png,b.png,hdrps,\n")
    assert read_pairs(pairs_csv)[1] == [
        f"{pairs_csv}: line {number}: {column} is empty" for number in (2, 3)
    ]


def test_pairs_csv_that_is_missing_or_empty_or_of_another_kind_is_named(tmp_path):
    path = tmp_path / "pairs.csv"
    assert read_pairs(path)[1] == [f"{path}: can't be read (No such file or directory)"]
    path.write_text("set,scene,input,gt,ev\n")
    assert read_pairs(path)[1] == [f"{path}: holds no pairs"]
    path.write_text("scene,photo\n1,2\n")
    assert read_pairs(path)[1] == [f"{path}: no column set, input, gt; its columns: scene, photo"]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("a1_IMG_7_N1.5", ("a1_IMG_7", -1.5)),
        ("a1_n1", ("a1", -1)),
        ("a1_0", ("a1", 0)),
        ("a1_P1", ("a1", 1)),
        ("a1", ("a1", None)),
        ("IMG_20", ("IMG_20", None)),
        ("_N1", ("_N1", None)),
    ],
)
def test_names_tell_scene_and_exposure(stem, expected):
    assert split_name(stem) == expected


def test_photos_find_the_reference_of_every_expert_whatever_suffix_and_case(tmp_path, save_picture):
    for name in ("a1-Sky_N1.5.JPG", "a1-Sky_0.JPG", "a1-sky_p1.PNG", "b_2.png", "notes.txt"):
        save_picture(tmp_path / "photos" / f"{name}.png").rename(tmp_path / "photos" / name)
    for expert in ("expert_a", "expert_b"):
        save_picture(tmp_path / expert / "a1-sky.jpg")
        save_picture(tmp_path / expert / "B_2.png")
    pairs, faults = match_pairs(tmp_path / "photos", [tmp_path / "expert_a", tmp_path / "expert_b"])
    assert faults == []
    found = {(p.group, p.input.name, p.reference.name, p.ev, p.scene) for p in pairs}
    assert found == {
        (expert, *rest)
        for expert in ("expert_a", "expert_b")
        for rest in [
            ("a1-Sky_N1.5.JPG", "a1-sky.jpg", -1.5, "a1-sky"),
            ("a1-Sky_0.JPG", "a1-sky.jpg", 0, "a1-sky"),
            ("a1-sky_p1.PNG", "a1-sky.jpg", 1, "a1-sky"),
            ("b_2.png", "B_2.png", None, "b_2"),
        ]
    }


def test_experts_whose_folders_have_the_same_name_are_told_apart_by_the_path(
    tmp_path, save_picture
):
    save_picture(tmp_path / "photos" / "a.png")
    folders = [save_picture(tmp_path / who / "gt" / "a.png").parent for who in ("ann", "ben")]
    pairs, _ = match_pairs(tmp_path / "photos", folders)
    assert [pair.group for pair in pairs] == [str(folder) for folder in folders]


def test_photos_without_exactly_one_reference_are_reported(tmp_path, save_picture):
    photos = [save_picture(tmp_path / "photos" / name) for name in ("a_N1.png", "b_N1.png")]
    for name in ("b.jpg", "B.png"):
        save_picture(tmp_path / "gt" / name)
    _, faults = match_pairs(tmp_path / "photos", [tmp_path / "gt"])
    assert faults == [
        f"{photos[0]}: no picture of that name in {tmp_path / 'gt'}",
        f"{photos[1]}: 2 pictures of that name (B.png, b.jpg) in {tmp_path / 'gt'}",
    ]


def test_folders_that_are_missing_or_empty_are_reported(tmp_path):
    gone = tmp_path / "gone"
    assert match_pairs(gone, [gone])[1] == [f"{gone}: no such folder"] * 2
    assert match_pairs(tmp_path, [tmp_path])[1] == [f"{tmp_path}: holds no photos"]
    assert find_results([], tmp_path, gone)[1] == [f"{gone}: no such folder"]


def test_folders_that_cannot_be_listed_are_faults(tmp_path, save_picture, monkeypatch):
    photo = save_picture(tmp_path / "photos" / "a.png")

    def walk(folder, onerror, **options):
        onerror(PermissionError(13, "Permission denied", f"{folder}/private"))
        return os_walk(folder, **options)

    os_walk = os.walk
    monkeypatch.setattr(os, "walk", walk)
    fault = f"{photo.parent}/private: cannot be listed: Permission denied"
    pairs, faults = match_pairs(photo.parent, [photo.parent])
    assert [pair.input for pair in pairs] == [photo] and faults == [fault] * 2
    assert find_results(pairs, photo.parent, photo.parent) == ({photo: photo}, [fault])


def test_one_finished_picture_is_not_taken_for_two_photos(tmp_path, save_picture):
    photos = [save_picture(tmp_path / "photos" / name) for name in ("a/x.jpg", "b/x.jpg")]
    for photo in photos:
        save_picture(tmp_path / "gt" / photo.relative_to(tmp_path / "photos"))
    result = save_picture(tmp_path / "results" / "a" / "x.png")
    pairs = [Pair("gt", "gt", photo.parent.name, photo, photo, None) for photo in photos]
    assert find_results(pairs, tmp_path / "photos", tmp_path / "results")[1] == [
        f"{result}: the only picture for {photos[0]}, {photos[1]}; "
        f"put each result at its photo's path below {tmp_path / 'results'}"
    ]


def test_results_are_found_by_path_then_by_name_and_the_missing_are_reported(
    pairs_csv, save_picture
):
    pairs, _ = read_pairs(pairs_csv)
    root, results_dir = pairs_csv.parent, pairs_csv.parent / "results"
    same_path = save_picture(results_dir / "hdrps/input/church_N1.jpg")
    elsewhere = save_picture(results_dir / "mine/Church_P1.tif")
    save_picture(results_dir / "other/church_N1.png")  # a namesake, but not at the same path
    save_picture(results_dir / "one/a1.png")
    save_picture(results_dir / "two/a1.png")
    results, faults = find_results(pairs, root, results_dir)
    assert results == {pairs[0].input: same_path, pairs[1].input: elsewhere}
    assert faults == [
        f"{pairs[2].input}: no picture of that name in {results_dir}",
        f"{pairs[3].input}: 2 pictures of that name (a1.png, a1.png) in {results_dir}",
    ]
