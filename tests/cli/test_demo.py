"""The demo runs the main job; here on fewer scenes and for seconds, at full length by make demo."""

from segwright.cli import demo


def test_it_ends_with_the_path_of_the_report(segwright, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "TRAIN_SCENES", 4)
    monkeypatch.setattr(demo, "VAL_SCENES", 2)
    monkeypatch.setattr(demo, "MINUTES", 0.05)
    code, out, err = segwright("demo", "--out", tmp_path / "demo")
    assert code == 0, err
    assert out.replace("\n", "").endswith(str(tmp_path / "demo" / "run" / "report.html"))
    assert len(list((tmp_path / "demo" / "predictions").iterdir())) == 4
    code, _, err = segwright("demo", "--out", tmp_path / "demo")
    assert code == 2 and "exists already" in err
