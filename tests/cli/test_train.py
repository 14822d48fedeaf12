"""A run goes on where it was stopped."""


def test_resume_finishes_a_run_and_scores_it(segwright, finished_run):
    code, out, err = segwright("train", "--resume", finished_run)
    assert code == 0 and "mIoU" in out, err
    assert (finished_run / "report.html").exists()


def test_wrong_words_are_named(segwright, finished_run, tmp_path):
    for words, message in (
        ((), "give either a plan file, or --resume RUN"),
        (("--resume", finished_run, "--set", "training.steps=1"), "--resume goes on with a run as it is"),
        ((tmp_path / "no.toml",), "cannot read the plan"),
        (("--resume", tmp_path / "nowhere"), "cannot read the plan"),
        ((finished_run, "--out", finished_run), "holds a run already"),
    ):
        code, _, err = segwright("train", *words)
        assert code == 2 and message in err, (words, err)
