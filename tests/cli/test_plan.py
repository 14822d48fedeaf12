"""The plan that is printed is the plan that trains."""

from segwright.plans.plan import Plan


def test_a_plan_is_written_and_carried_out(segwright, tiny_plan, tmp_path):
    words = ("--minutes", "0.05", "--model", "unet_small", "--set", "training.steps=3", "--out", tmp_path / "plan.toml")
    code, out, err = segwright("plan", tiny_plan.data.train, *words)
    assert code == 0, err
    assert "segwright train" in out
    assert Plan.read(tmp_path / "plan.toml").training.steps == 3
    code, out, err = segwright("train", tmp_path / "plan.toml", "--out", tmp_path / "run")
    assert code == 0 and "mIoU" in out, err
    assert (tmp_path / "run" / "report.html").exists()


def test_an_unwritable_file_is_named(segwright, tiny_plan, tmp_path):
    (tmp_path / "file").write_text("")
    words = ("--minutes", "0.05", "--model", "unet_small", "--out", tmp_path / "file" / "plan.toml")
    code, _, err = segwright("plan", tiny_plan.data.train, *words)
    assert code == 2 and "plan.toml cannot be written, as" in err
