"""The list of networks holds what --model takes."""

import json

from segwright.models import preset


def test_each_name_in_the_list_is_a_network(segwright):
    code, out, _ = segwright("models", "--json")
    rows = json.loads(out)
    assert code == 0 and {"unet", "segformer_b0", "segformer_b5"} <= {row["name"] for row in rows}
    assert all(preset(row["name"]) and row["parameters_m"] > 0 for row in rows)
    code, out, _ = segwright("models")
    assert "segformer_b0" in out
