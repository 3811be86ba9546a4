from pathlib import Path

import pytest

import folder
from config import ConfigError
from folder import count_kinds, find_inputs, make_output_dir, photo_paths, plan_outputs
from photo_formats import PhotoError

ROOT, OUT = Path("in"), Path("out")


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


@pytest.fixture
def join_torchrun(monkeypatch):
    """(rank, how many) makes this process one of torchrun's."""

    def join(rank: int, rank_count: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
        monkeypatch.setenv("WORLD_SIZE", str(rank_count))
        monkeypatch.setenv("RANK", str(rank))

    return join


@pytest.fixture
def touch(tmp_path):
    """(names) -> the folder that holds empty files of these names."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "in"

    return make


def planned(names: list[str], output_format: str | None = None) -> dict[str, str]:
    outputs = plan_outputs([ROOT / name for name in names], ROOT, OUT, output_format)
    return {
        str(path.relative_to(ROOT)): str(output.relative_to(OUT))
        for path, output in outputs.items()
    }


# ------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize(
    ("names", "output_format", "expected"),
    [
        (["a.jpg", "b/a.JPEG", "b/c.png"], None, ["a.jpg", "b/a.JPEG", "b/c.png"]),
        (["a.jpg", "a.png"], None, ["a.jpg", "a.png"]),
        (["a.jpg", "a.png"], "png", ["a.jpg.png", "a.png"]),
        (["a.jpg", "a.jpg.png", "a.png"], "png", ["a.jpg_.png", "a.jpg.png", "a.png"]),
        (["a.bmp", "a.jpg"], "png", ["a.png", "a.jpg.png"]),
        (["a.bmp", "b/a.jpg"], "png", ["a.png", "b/a.png"]),
        (["a.jpeg", "a.jpg"], "jpeg", ["a.jpeg", "a.jpg"]),
        (["a.nef", "a.tif"], None, ["a.nef.tif", "a.tif"]),
        (["a.nef", "b.tiff"], None, ["a.tif", "b.tiff"]),
        (["a.b.jpg"], "webp", ["a.b.webp"]),
        (["A.png", "a.jpg"], "jpeg", ["A.png.jpg", "a.jpg"]),  # some disks ignore case
        (["A.jpg", "a.jpg"], None, ["A.jpg", "a.jpg.jpg"]),
        (["a.nef", "a.tif.compare.png"], None, ["a.nef.tif", "a.tif.compare.png"]),
    ],
)
def test_results_keep_their_names_and_never_meet(names, output_format, expected):
    plan = planned(names, output_format)
    assert list(plan) == names  # in order
    assert list(plan.values()) == expected
    assert len(set(expected)) == len(names)


# ----------------------------------------------------------------------------- the photos


def test_a_folder_is_searched_with_its_subfolders(touch):
    folder = touch("a.jpg", "b/c.png", "notes.txt", ".hidden/d.jpg")
    outputs, failures, *_ = find_inputs(folder, OUT)
    assert outputs == {folder / "a.jpg": OUT / "a.jpg", folder / "b/c.png": OUT / "b/c.png"}
    assert failures == []


def test_a_single_photo_goes_right_into_the_output_folder(touch):
    photo = touch("deep/a.jpg") / "deep/a.jpg"
    assert find_inputs(photo, OUT) == ({photo: OUT / "a.jpg"}, [], 0, [], 0)


def test_results_of_an_earlier_run_are_no_photos(touch, tmp_path):
    make_output_dir(tmp_path / "in" / "out")
    folder = touch("a.jpg", "out/a.jpg", "out/deep/b.jpg", "out/notes.txt")
    work = find_inputs(folder, folder / "out")
    assert work.outputs == {folder / "a.jpg": folder / "out" / "a.jpg"}
    assert work.result_count == 2 and work.others == []


def test_results_behind_a_link_among_the_photos_are_no_photos(touch, tmp_path):
    folder, elsewhere = touch("a.jpg"), tmp_path / "elsewhere"
    make_output_dir(elsewhere)
    (elsewhere / "a.jpg").touch()
    (folder / "out").symlink_to(elsewhere)
    for output_dir in (folder / "out", elsewhere):
        work = find_inputs(folder, output_dir)
        assert list(work.outputs) == [folder / "a.jpg"] and work.result_count == 1


def test_a_link_to_itself_fails_alone_later(touch):
    folder = touch("b.jpg")
    (folder / "a.jpg").symlink_to("a.jpg")
    outputs, failures, *_ = find_inputs(folder, folder / "out")
    assert [path.name for path in outputs] == ["a.jpg", "b.jpg"] and not failures


@pytest.mark.parametrize(
    ("names", "source", "output_dir", "output_format"),
    [
        (["a.jpg"], "", "", None),
        (["a.jpg"], "a.jpg", "", None),
        (["a.jpg"], "a.jpg", "../in/.", "jpeg"),
        (["a.jpg", "a.png"], "", "", "png"),
        (["x/a.jpg", "x/x/a.jpg"], "x", "", None),  # x/x/a.jpg would become x/a.jpg
        (["a.jpg", "a.png"], "a.jpg", "", "png"),  # which is not among the photos asked for
        (["a.nef", "a.tif"], "a.nef", "", None),
        (["a.jpg", "x/a.jpg"], "x", "", None),
    ],
)
def test_results_never_replace_photos(touch, names, source, output_dir, output_format):
    folder = touch(*names)
    with pytest.raises(ConfigError, match=r"result_output_dir is .* would be replaced; name an"):
        find_inputs(folder / source, folder / output_dir, output_format)


def test_comparisons_replace_nothing_either(touch, tmp_path):
    folder = touch("a.png", "a.jpg.compare.png")
    with pytest.raises(ConfigError, match=r"a\.jpg\.compare\.png would be replaced"):
        find_inputs(folder, folder, "jpeg", compare=True)
    assert find_inputs(folder, folder, "jpeg").outputs
    others = tmp_path / "others"
    others.mkdir()
    (others / "a.jpg.compare.png").touch()
    with pytest.raises(ConfigError, match=r"a\.jpg\.compare\.png would be replaced"):
        find_inputs(folder / "a.png", others, "jpeg", compare=True)
    assert find_inputs(folder / "a.png", others, "jpeg", skip_existing=True, compare=True).outputs


def test_a_photo_is_not_replaced_under_another_name_of_the_same_file(touch, tmp_path):
    folder = touch("a.jpg")  # as on a disk that ignores case
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").hardlink_to(folder / "a.jpg")
    with pytest.raises(ConfigError, match="would be replaced"):
        find_inputs(folder, tmp_path / "out")


def test_a_photo_beside_a_link_to_the_photos_is_not_replaced(touch, tmp_path):
    folder = touch("album/a.jpg")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.jpg").touch()
    (tmp_path / "links" / "album").symlink_to(folder / "album")
    with pytest.raises(ConfigError, match="would be replaced"):
        find_inputs(tmp_path / "links" / "album", tmp_path / "links")


def test_a_photo_above_is_not_replaced_for_want_of_its_comparison(touch):
    folder = touch("a.jpg", "x/a.jpg")
    assert not find_inputs(folder / "x", folder, skip_existing=True).outputs
    with pytest.raises(ConfigError, match="would be replaced"):
        find_inputs(folder / "x", folder, skip_existing=True, compare=True)


def test_files_are_replaced_only_where_nothing_but_results_can_be(touch, tmp_path):
    folder, out = touch("IMG_1.jpg", "101/IMG_1.jpg", "102/IMG_2.jpg"), tmp_path / "out"
    for output_dir in (folder / "101", folder / "102", out):
        make_output_dir(output_dir)
    with pytest.raises(ConfigError, match=r"101/IMG_1\.jpg would be replaced"):
        find_inputs(folder / "IMG_1.jpg", folder / "101")
    for output_dir in (folder / "102", out):  # the first run
        (output_dir / "IMG_1.jpg").touch()
    with pytest.raises(ConfigError, match=r"102/IMG_1\.jpg would be replaced"):
        find_inputs(folder / "IMG_1.jpg", folder / "102")
    assert find_inputs(folder / "IMG_1.jpg", out).outputs


def test_an_output_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    def mkdir(*_, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(ConfigError, match=r"out: can't be made, or written to \(Permission denied"):
        make_output_dir(tmp_path / "out")


def test_the_output_folder_may_be_above_the_photos(touch):
    folder = touch("x/a.jpg", "x/y/b.jpg")
    outputs = find_inputs(folder / "x", folder).outputs
    assert list(outputs.values()) == [folder / "a.jpg", folder / "y/b.jpg"]


def test_photos_and_results_may_share_a_folder_where_no_two_names_meet(touch):
    folder = touch("a.jpg", "b.bmp")
    outputs = find_inputs(folder, folder, "png").outputs
    assert list(outputs.values()) == [folder / "a.png", folder / "b.png"]


def test_photos_whose_result_is_there_are_left_out_where_asked(touch, tmp_path):
    folder = touch("a.jpg", "b.jpg")
    make_output_dir(tmp_path / "out")
    (tmp_path / "out" / "a.jpg").touch()
    assert list(find_inputs(folder, tmp_path / "out").outputs) == [
        folder / "a.jpg",
        folder / "b.jpg",
    ]
    left = find_inputs(folder, tmp_path / "out", skip_existing=True)
    assert list(left.outputs) == [folder / "b.jpg"] and left.skipped_count == 1


def test_a_new_namesake_has_results_made_again_whose_names_it_may_have_changed(touch, tmp_path):
    folder, out = touch("a.bmp", "b.jpg"), tmp_path / "out"
    make_output_dir(out)
    for output in find_inputs(folder, out, "jpeg").outputs.values():
        output.touch()
    assert not find_inputs(folder, out, "jpeg", skip_existing=True).outputs
    touch("a.jpg")  # whose result has the name that a.bmp's had
    left = find_inputs(folder, out, "jpeg", skip_existing=True).outputs
    assert left == {folder / "a.bmp": out / "a.bmp.jpg", folder / "a.jpg": out / "a.jpg"}
    (out / "a.bmp.jpg").touch()
    assert not find_inputs(folder, out, "jpeg", skip_existing=True).outputs


def test_files_that_are_no_photos_by_suffix_are_told_but_hidden_ones_and_results(
    touch, join_torchrun, tmp_path
):
    make_output_dir(tmp_path / "in" / "out")
    names = ("a.jpg", "b.GIF", "c/d.gif", "c/notes", ".hidden", "out/a.jpg", "out/list.txt")
    folder = touch(*names)
    others = find_inputs(folder, folder / "out").others
    assert [path.name for path in others] == ["b.GIF", "d.gif", "notes"]
    assert count_kinds(others) == "2 .gif, 1 notes"
    join_torchrun(1, 2)
    assert find_inputs(folder, folder / "out").others == []


def test_comparisons_beside_results_are_no_photos(touch):
    folder = touch("a.jpg", "a.jpg.compare.png", "b.compare.png", "c/d.jpg.compare.png")
    work = find_inputs(folder, OUT)
    names = [path.name for path in work.outputs]
    assert names == ["a.jpg", "b.compare.png", "d.jpg.compare.png"] and not work.others


@pytest.mark.parametrize(
    ("source", "words"), [("none", "no such file or folder"), ("", "no photo in it")]
)
def test_a_path_without_photos_is_refused_by_name(touch, source, words):
    folder = touch("notes.txt")
    with pytest.raises(ConfigError, match=f"img_pth is {folder / source}: {words}"):
        find_inputs(folder / source, OUT)


# ---------------------------------------------------------------------------- listings


def test_folders_are_listed_once_sorted_and_without_hidden_files(tmp_path):
    root, outside = tmp_path / "photos", tmp_path / "outside"
    for name in ("b.JPG", "a/z.png", "a/.x.png", ".git/c.png", "a/note.txt", "c/d.nef"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    outside.mkdir()
    (outside / "o.tif").touch()
    (root / "a/loop").symlink_to(root)
    (root / "link").symlink_to(outside)
    (outside / "back").symlink_to(outside)
    names = [path.relative_to(root).as_posix() for path in photo_paths(root)]
    assert names == ["a/z.png", "b.JPG", "c/d.nef", "link/o.tif"]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path):
    with pytest.raises(PhotoError, match="nowhere: cannot be listed: No such file"):
        photo_paths(tmp_path / "nowhere")
    failures = []
    assert photo_paths(tmp_path / "nowhere", failures.append) == []
    assert [type(failure) for failure in failures] == [PhotoError]


# ---------------------------------------------------------------------- several processes


@pytest.mark.parametrize("rank_count", [1, 2, 3, 5])
def test_processes_share_a_folder_without_overlap(touch, join_torchrun, rank_count):
    folder = touch("a.jpg", "a.png", "b.jpg", "c.jpg")
    whole = find_inputs(folder, OUT, "png").outputs
    shares = []
    for rank in range(rank_count):
        join_torchrun(rank, rank_count)
        shares.append(find_inputs(folder, OUT, "png").outputs)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert sum(map(len, shares)) == len(whole) == 4
    assert {path: output for share in shares for path, output in share.items()} == whole


def test_shares_do_not_depend_on_what_other_processes_have_finished(touch, join_torchrun, tmp_path):
    folder = touch("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    join_torchrun(1, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").touch()  # of the first process
    left = find_inputs(folder, tmp_path / "out", skip_existing=True)
    assert list(left.outputs) == [folder / "b.jpg", folder / "d.jpg"]


def test_what_concerns_the_whole_folder_is_told_by_one_process(touch, join_torchrun, monkeypatch):
    def list_files(folder, on_error):
        on_error(PhotoError("locked: cannot be listed"))
        return [folder / "a.jpg", folder / "b.jpg", folder / "c.txt"]

    monkeypatch.setattr(folder, "visible_files", list_files)
    source = touch("a.jpg", "b.jpg")
    join_torchrun(0, 2)
    first = find_inputs(source, OUT)
    join_torchrun(1, 2)
    second = find_inputs(source, OUT)
    assert first.failures == ["locked: cannot be listed"] and first.others == [source / "c.txt"]
    assert not second.failures and not second.others


def test_a_rank_without_torchrun_shares_nothing(touch, monkeypatch):
    folder = touch("a.jpg", "b.jpg")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(find_inputs(folder, OUT).outputs) == 2
