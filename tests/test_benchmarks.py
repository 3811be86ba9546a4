"""That the benchmarks run; what they measure is looked at where they are run for it."""

import sys

import pytest
from conftest import ROOT

from benchmarks import inference, levels, upsampling
from correction import load_model

WEIGHTS = ROOT / "weights" / "exposure_correction.pth"


@pytest.mark.parametrize("part", inference.PARTS)
def test_each_part_of_a_prediction_runs(tmp_path, part):
    photo = tmp_path / "photo.jpg"
    inference.make_photo(photo, 0.02)
    inference.PARTS[part](photo, tmp_path / "out.jpg", load_model(WEIGHTS))
    assert (tmp_path / "out.jpg").exists() == part.startswith(("a ", "c"))


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # no photo of more than 512 px
@pytest.mark.parametrize("benchmark", [levels, upsampling])
def test_benchmarks_of_quality_score_each_group(pairs_csv, monkeypatch, capsys, benchmark):
    arguments = ["benchmark", "--pairs", str(pairs_csv), "--weights", str(WEIGHTS)]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark.main()
    assert {"brackets", "fivek_pairs"} <= set(capsys.readouterr().out.split())
    monkeypatch.setattr(sys, "argv", [*arguments[:-1], "nowhere.pth"])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()
    assert "nowhere.pth: no such file" in capsys.readouterr().err
