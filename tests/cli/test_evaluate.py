"""Scores for people and for programs."""

import json


def test_a_table_and_json(segwright, finished_run, tiny_plan, tmp_path):
    data = tiny_plan.data.train + "/val"
    code, out, err = segwright("evaluate", finished_run, data)
    assert code == 0 and "mIoU" in out and "95 % interval" in out, err
    code, out, _ = segwright("evaluate", finished_run, data, "--json", "--out", tmp_path / "scores.json")
    assert json.loads(out)["values"] == json.loads((tmp_path / "scores.json").read_text())["values"]
