"""Makes mobile_sam_a.json and .safetensors: what MobileSAM's own code says, and the names and shapes of its published file.

    pip install mobilesam-mirror torchvision && python tests/golden/make_mobile_sam.py

The encoder is MobileSAM's with few channels, on an image of 1024 x 1024, the only size that its code takes. Weights and image
are drawn from their names by the rule in tests/models/conftest.py. Its code is under the Apache licence.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from mobile_sam import sam_model_registry
from mobile_sam.modeling.tiny_vit_sam import TinyViT
from safetensors.torch import save_file

HERE = Path(__file__).parent
WIDTHS, HEADS = (8, 16, 32, 320), (1, 2, 2, 10)  # 320: the width at which their code leaves out the last halving
SEED = 61
STRIDES = {"stage0": 997, "stage1": 997, "stage2": 499, "stage3": 2003, "embedding": 1999}  # of stored samples


def main() -> None:
    spec = importlib.util.spec_from_file_location("conftest", HERE.parent / "models" / "conftest.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    network = TinyViT(
        img_size=1024, embed_dims=list(WIDTHS), depths=[2, 2, 6, 2], num_heads=list(HEADS), window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0, layer_lr_decay=0.8,
    ).eval()  # fmt: skip
    shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    counters = [key for key in shapes if key.endswith("num_batches_tracked")]
    weights = {
        key: torch.zeros((), dtype=torch.int64) if key in counters else rule.made_weight(key, shape, SEED, {})
        for key, shape in shapes.items()
    }
    network.load_state_dict(weights)
    network.train(False)  # its table of biases is made anew here
    image = torch.from_numpy(rule.drawn(f"{SEED}:in:x", [1, 3, 1024, 1024])).float()
    seen = {}
    for number, layer in enumerate(network.layers):
        last = layer.blocks[-1]
        last.register_forward_hook(lambda _, __, out, at=number: seen.__setitem__(f"stage{at}", out))
    arrays, outputs, tolerance = {}, {}, {}
    found = {}
    for dtype in (torch.float32, torch.float64):
        network.to(dtype).train(False)
        with torch.no_grad():
            embedding = network(image.to(dtype))
        maps = {name: square(out) for name, out in seen.items()}
        found[dtype] = {**maps, "embedding": embedding}
    for name, exact in found[torch.float64].items():
        apart = float((found[torch.float32][name] - exact).abs().max())
        arrays[f"out/{name}@sample"] = exact.flatten()[:: STRIDES[name]].float().contiguous()
        outputs[name] = {"shape": list(exact.shape), "stride": STRIDES[name], "f32_vs_f64_maxdiff": apart}
        tolerance[name] = {"atol": 5 * apart, "rtol": 1e-5}
    save_file(arrays, HERE / "mobile_sam_a.safetensors")
    whole = sam_model_registry["vit_t"]().state_dict()
    facts = {
        "name": "mobile_sam_a",
        "reference": "mobile_sam.modeling.tiny_vit_sam.TinyViT",
        "config": {"widths": WIDTHS, "num_heads": HEADS[1:], "output_stride": 16},
        "weights": "recipe",
        "recipe": {"seed": SEED, "scales": {}},
        "weight_shapes": shapes,
        "weight_int_keys": counters,
        "inputs": {"x": {"shape": [1, 3, 1024, 1024], "not_stored_make_with": "recipe.randn('in:x')"}},
        "outputs": outputs,
        "tolerance": tolerance,
        "layout": {key: list(tensor.shape) for key, tensor in whole.items()},
    }
    (HERE / "mobile_sam_a.json").write_text(json.dumps(facts) + "\n")
    print({name: facts["f32_vs_f64_maxdiff"] for name, facts in outputs.items()}, file=sys.stderr)


def square(out: torch.Tensor) -> torch.Tensor:
    """A map (1, C, h, w), also of rows of pixels (1, h * w, C)."""
    if out.ndim == 4:
        return out
    side = round(out.shape[1] ** 0.5)
    return out.transpose(1, 2).unflatten(2, (side, side))


if __name__ == "__main__":
    main()
