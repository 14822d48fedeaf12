"""A data card for people and for programs."""

import json


def test_a_table_json_and_a_page(segwright, tiny_plan, tmp_path):
    data = tiny_plan.data.train + "/train"
    code, out, err = segwright("inspect", data, "--html", tmp_path / "card.html")
    assert code == 0 and "6" in out and (tmp_path / "card.html").exists(), err
    code, out, _ = segwright("inspect", data, "--json")
    assert json.loads(out)["count"] == 6
