"""The list of networks holds what --model takes, and published weights with their licences."""

import json
from dataclasses import replace

from segwright.models import preset, published, segformer


def test_each_name_in_the_list_is_a_network(segwright):
    code, out, _ = segwright("models", "--json")
    rows = json.loads(out)
    assert code == 0 and {"unet", "segformer_b0", "segformer_b5"} <= {row["name"] for row in rows}
    assert all(preset(row["name"]) and row["parameters_m"] > 0 for row in rows)
    code, out, _ = segwright("models")
    assert "segformer_b0" in out
    assert f"\n{max((row['name'] for row in rows), key=len)} " in out  # no name is cut, however narrow the terminal
    assert "come with: pip install 'segwright[weights]'" in " ".join(out.split())
    assert "GFLOPs: for one image of 512 x 512 or 128 x 128 x 128; both a multiplication and an addition count" in out
    assert all(name in out for name in published()) and "37.4 mIoU on ADE20K" in " ".join(out.split())


def test_networks_say_their_weights_and_operations(segwright):
    rows = {row["name"]: row for row in json.loads(segwright("models", "--json")[1])}
    assert rows["unet"]["sides"] == [512, 512] and rows["unet_3d"]["sides"] == [128, 128, 128]
    assert all(row["gflops"] > 0 for row in rows.values())
    b5 = rows["segformer_b5"]["weights"]["segformer_b5_cityscapes"]
    assert b5["score"] == "82.4 mIoU on Cityscapes val, single scale" and "non-commercial" in b5["licence"]


def test_only_weights_that_everybody_may_use(segwright, monkeypatch):
    found = segwright("models", "--licence", "permissive")[1]
    assert "non-commercial" not in found and "unstated" not in found and "unet_small" not in found
    free = replace(segformer.WEIGHTS["segformer_b0_ade20k"], licence="Apache-2.0")
    monkeypatch.setitem(segformer.WEIGHTS, "segformer_b0_ade20k", free)
    rows = {row["name"]: row for row in json.loads(segwright("models", "--licence", "permissive", "--json")[1])}
    assert list(rows["segformer_b0"]["weights"]) == ["segformer_b0_ade20k"] and "segformer_b1" not in rows
    assert segwright("models", "--licence", "any")[0] == 2
