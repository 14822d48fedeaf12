"""EoMT against transformers' and the authors', and how it anneals. Axes: B, C, K, Q, N, H, W."""

import re
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.checkpoints.fill import fill
from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import vit
from segwright.layers.object_truth import ObjectTruth
from segwright.models import eomt, preset

SIDE, QUERIES, CLASSES, POINTS = 80, 7, 5, 64  # five patches along each side
SMALL = eomt.Config(
    num_classes=CLASSES, encoder=vit.Config(width=128, depth=4, grid=5), num_queries=QUERIES, joint_blocks=2, points=POINTS
)
FORMS = ("dinov2", "dinov3")
SCALE = 1.3  # of places in training, instead of a random one


def shaken(network: nn.Module) -> nn.Module:
    """The network in float64, its parameters away from the zeros and ones of a new one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.double()


def of_form(form: str) -> eomt.Config:
    return replace(SMALL, encoder=replace(SMALL.encoder, form=form))


def hugging_face(form: str, monkeypatch) -> nn.Module:
    """transformers' EoMT, wholly in float64: it makes masks and places in float32, and draws a scale of places."""
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    settings = dict(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=2, num_labels=CLASSES, num_blocks=2, num_queries=QUERIES,
        image_size=SIDE, train_num_points=POINTS,
    )  # fmt: skip
    if form == "dinov2":
        network = transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**settings))
        for layer in network.layers:
            layer.register_forward_pre_hook(lambda _, given: (given[0], None if given[1] is None else given[1].double()))
        return shaken(network)
    theirs = "transformers.models.eomt_dinov3.modeling_eomt_dinov3"
    config = transformers.EomtDinov3Config(**settings, intermediate_size=512, layer_norm_eps=1e-5)
    network = shaken(transformers.EomtDinov3ForUniversalSegmentation(config))
    network.rope_embeddings.inv_freq = 1 / 100.0 ** torch.arange(0, 1, 4 / 64, dtype=torch.float64)
    centres = network.rope_embeddings.forward.__globals__["get_patches_center_coordinates"].__wrapped__
    monkeypatch.setattr(
        f"{theirs}.get_patches_center_coordinates", lambda h, w, dtype, device: centres(h, w, torch.float64, device)
    )
    monkeypatch.setattr(f"{theirs}.augment_patches_center_coordinates", lambda places, **_: places * SCALE)
    monkeypatch.setattr(vit, "drawn_scale", lambda *_: SCALE)
    return network


def twins(form: str, monkeypatch) -> tuple[eomt.EoMT, nn.Module]:
    """Our network and transformers', of the same weights."""
    torch.manual_seed(0)
    theirs = hugging_face(form, monkeypatch)
    ours = of_form(form).build().double()
    ours.load_state_dict(eomt.rename(theirs.state_dict()))  # strictly
    return ours, theirs


def drawn_image(side: int = SIDE) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)).double()


def drawn_truth(side: int = SIDE) -> list[ObjectTruth]:
    """Two segments in the first image, of which one lies on the other, and one in the second."""
    first, second = torch.zeros(2, side, side, dtype=torch.int32), torch.zeros(1, side, side, dtype=torch.int32)
    first[0, 10:40, 5:50], first[1, 30:77, 31:64], second[0, 20:60, 11:70] = 1, 2, 1
    return [
        ObjectTruth(torch.tensor([[5.0, 10, 50, 40], [31, 30, 64, 77]]), torch.tensor([1, 4]), first),
        ObjectTruth(torch.tensor([[11.0, 20, 70, 60]]), torch.tensor([2]), second),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_says_what_transformers_says_with_masks_and_without(form, monkeypatch):
    ours, theirs = twins(form, monkeypatch)
    ours.eval(), theirs.eval()
    answers = []
    for is_masked in ([True, True], [False, True], [False, False]):
        theirs.attn_mask_probs.copy_(torch.tensor(is_masked))
        ours.is_masked.copy_(torch.tensor(is_masked))
        with torch.no_grad():
            mine, wanted = ours(drawn_image()), theirs(drawn_image())
        torch.testing.assert_close(mine.class_logits, wanted.class_queries_logits, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mine.mask_logits, wanted.masks_queries_logits, rtol=1e-9, atol=1e-9)
        answers.append(mine.mask_logits)
    assert not any(torch.allclose(answers[0], other) for other in answers[1:])  # masks do something


class Draws:
    """The random numbers that our network draws, given to transformers' once more, by their shapes.

    transformers draws the points that pairs are compared at for each layer and image, where ours does for all layers at once.
    """

    def __init__(self, monkeypatch) -> None:
        self.kept, self.asked, self.rand = defaultdict(list), 0, torch.rand
        self.patch = monkeypatch.setattr

    def keep(self) -> None:
        def rand(*shape, **options):
            numbers = self.rand(*shape, **options)
            self.kept[tuple(numbers.shape)].append(numbers)
            return numbers

        self.patch(torch, "rand", rand)

    def give(self) -> None:
        def rand(*shape, **_):
            if shape == (1, POINTS, 2):
                (points,) = self.kept[2, POINTS, 2]
                self.asked += 1
                return points[(self.asked + 1) % 2][None]
            return self.kept[shape].pop(0).double()

        self.patch(torch, "rand", rand)


@pytest.mark.parametrize("form", FORMS)
def test_learns_what_transformers_learns_before_each_block(form, monkeypatch):
    ours, theirs = twins(form, monkeypatch)
    ours.train(), theirs.train()
    ours.masking = (0.7, 0.4)
    theirs.attn_mask_probs.copy_(torch.tensor(ours.masking))
    image, truth, draws = drawn_image(), drawn_truth(), Draws(monkeypatch)
    answers = ours.answers(image, every=True, generator=torch.Generator().manual_seed(3))
    draws.keep()
    losses = ours(image, truth, torch.Generator().manual_seed(3))
    sum(losses.values()).backward()
    draws.give()
    said, predict = [], theirs.predict
    theirs.predict = lambda tokens: said.append(predict(tokens)) or said[-1]
    masks = [
        torch.stack([(each.planes == number + 1).any(0) for number in range(len(each.class_ids))]).double() for each in truth
    ]
    loss = theirs(image, mask_labels=masks, class_labels=[each.class_ids for each in truth]).loss
    loss.backward()
    assert len(answers) == len(said) == 3
    for mine, (mask_logits, class_logits) in zip(answers, said, strict=True):
        torch.testing.assert_close(mine.mask_logits, mask_logits, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mine.class_logits, class_logits, rtol=1e-9, atol=1e-9)
    assert sum(losses.values()).item() == pytest.approx(loss.item(), rel=1e-6)  # transformers' weights of classes are float32
    wanted = eomt.rename({name: one.grad for name, one in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, wanted[name], rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


class Authors(nn.Module):
    """The authors' modules by their names: a ViT of timm's and heads, put together as the paper says, without masks."""

    def __init__(self, grid: int, gated: bool) -> None:
        super().__init__()
        timm = pytest.importorskip("timm", reason="the comparison with the authors' layout needs timm")
        mlp = dict(mlp_layer=timm.layers.SwiGLUPacked, mlp_ratio=16 / 3, act_layer=nn.SiLU) if gated else {}
        backbone = timm.models.VisionTransformer(
            img_size=16 * grid, patch_size=16, embed_dim=192, depth=3, num_heads=3, num_classes=0, reg_tokens=4,
            no_embed_class=True, init_values=1e-5, **mlp,
        )  # fmt: skip
        self.network = nn.Module()
        self.network.encoder = nn.Module()
        self.network.encoder.backbone = backbone
        self.network.encoder.register_buffer("pixel_mean", torch.zeros(1, 3, 1, 1))
        self.network.encoder.register_buffer("pixel_std", torch.ones(1, 3, 1, 1))
        self.network.register_buffer("attn_mask_probs", torch.zeros(2))
        self.network.q = nn.Embedding(QUERIES, 192)
        self.network.class_head = nn.Linear(192, CLASSES + 1)
        widths = [layer for _ in range(3) for layer in (nn.Linear(192, 192), nn.GELU())]
        self.network.mask_head = nn.Sequential(*widths[:-1])
        self.network.upscale = nn.Sequential(*(self.doubling(timm.layers.LayerNorm2d) for _ in range(2)))
        self.criterion = nn.Module()
        self.criterion.register_buffer("empty_weight", torch.ones(CLASSES + 1))

    @staticmethod
    def doubling(norm: type[nn.Module]) -> nn.Module:
        parts = nn.Sequential()
        parts.add_module("conv1", nn.ConvTranspose2d(192, 192, 2, stride=2))
        parts.add_module("act", nn.GELU())
        parts.add_module("conv2", nn.Conv2d(192, 192, 3, padding=1, groups=192, bias=False))
        parts.add_module("norm", norm(192))
        return parts

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network, backbone = self.network, self.network.encoder.backbone
        tokens = backbone._pos_embed(backbone.patch_embed(image))
        tokens = backbone.blocks[0](tokens)
        tokens = torch.cat([network.q.weight.expand(len(image), -1, -1), tokens], dim=1)
        tokens = backbone.norm(backbone.blocks[2](backbone.blocks[1](tokens)))
        patches = tokens[:, QUERIES + 5 :].mT.unflatten(2, backbone.patch_embed.grid_size)
        queries = tokens[:, :QUERIES]
        masks = torch.einsum("bqc,bchw->bqhw", network.mask_head(queries), network.upscale(patches))
        return network.class_head(queries), masks


@pytest.mark.parametrize("gated", [False, True])
def test_the_authors_layout_says_what_their_modules_say(gated):
    torch.manual_seed(0)
    theirs = shaken(Authors(3, gated)).eval()
    encoder = vit.Config(width=192, depth=3, grid=3, has_gated_mlp=gated)
    ours = replace(SMALL, encoder=encoder).build().double().eval()
    ours.load_state_dict(eomt.rename(theirs.state_dict()))
    assert not ours.is_masked.any()
    image = drawn_image(48)
    with torch.no_grad():
        for mine, wanted in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("eomt_small_640", {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "num_blocks": 3}),
        ("eomt_base_640", {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_blocks": 3}),
        ("eomt_large_1280", {"image_size": 1280}),
        ("eomt_large_512", {"image_size": 512, "num_queries": 100, "num_labels": 150}),
        ("eomt_large_1024", {"image_size": 1024, "num_queries": 100, "num_labels": 19}),
        (
            "eomt_giant_640",
            {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "num_blocks": 5, "use_swiglu_ffn": True},
        ),
        (
            "eomt_small_dinov3",
            {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "num_blocks": 3, "intermediate_size": 1536},
        ),
    ],
)
def test_presets_are_the_published_networks(name, facts):
    transformers = pytest.importorskip("transformers", reason="the comparison of layouts needs transformers")
    kind = "EomtDinov3" if name.endswith("dinov3") else "Eomt"
    facts = {"num_labels": 133, "num_queries": 200} | facts
    config = getattr(transformers, f"{kind}Config")(**facts)
    with torch.device("meta"):
        theirs = getattr(transformers, f"{kind}ForUniversalSegmentation")(config)
        ours = eomt.PRESETS[name].build()
    hub = {key.replace("mlp.gate_proj", "mlp.weights_in"): tensor for key, tensor in theirs.state_dict().items()}
    if facts.get("use_swiglu_ffn"):  # files that were saved before gates had a layer of their own
        for key in [key for key in hub if "mlp.up_proj" in key]:
            gate = key.replace("up_proj", "weights_in")
            hub[gate] = torch.cat([hub[gate], hub.pop(key)])
        hub = {key.replace("mlp.down_proj", "mlp.weights_out"): tensor for key, tensor in hub.items()}
    for weights in (theirs.state_dict(), hub):
        renamed = eomt.rename(weights)
        assert {key: each.shape for key, each in renamed.items()} == {
            key: each.shape for key, each in ours.state_dict().items()
        }


def test_files_on_dinov3_have_the_authors_names_too(monkeypatch):
    theirs = hugging_face("dinov3", monkeypatch).state_dict()
    names = {
        r"embeddings\.": "network.encoder.backbone.patch_embed.",
        r"layers\.": "network.encoder.backbone.blocks.",
        r"layernorm\.": "network.encoder.backbone.norm.",
        r"query\.": "network.q.",
        r"class_predictor": "network.class_head",
        r"mask_head\.fc([123])": lambda found: f"network.mask_head.{2 * int(found[1]) - 2}",
        r"upscale_block\.block\.(\d)\.layernorm2d": r"network.upscale.\1.norm",
        r"upscale_block\.block": "network.upscale",
        r"attn_mask_probs": "network.attn_mask_probs",
    }
    authors = {}
    for key, tensor in theirs.items():
        pattern = next((pattern for pattern in names if re.match(pattern, key)), None)
        authors[key if pattern is None else re.sub(f"^{pattern}", names[pattern], key)] = tensor
    assert not theirs.keys() & (authors.keys() - {"criterion.empty_weight"})
    mine, again = eomt.rename(theirs), eomt.rename(authors)
    assert mine.keys() == again.keys() and all(torch.equal(mine[name], again[name]) for name in mine)


def test_begins_from_what_dinov2_learned_alone():
    """Their patches are of 14 x 14 pixels; all but the encoder stays random."""
    timm = pytest.importorskip("timm", reason="the comparison with DINOv2's layout needs timm")
    dinov2 = timm.models.VisionTransformer(
        img_size=70, patch_size=14, embed_dim=128, depth=4, num_heads=2, num_classes=0, reg_tokens=4, no_embed_class=True,
        init_values=1e-5,
    )  # fmt: skip
    network = SMALL.build()
    queries = network.queries.detach().clone()
    (said,) = fill(network, dinov2.state_dict(), source="dinov2.pth")
    assert said.startswith("the encoder alone is in the file; random: queries, is_masked, classify.weight and")
    assert torch.equal(network.encoder.positions, dinov2.pos_embed[0]) and torch.equal(network.queries, queries)


def test_blocks_anneal_one_after_another_as_in_the_authors_files():
    steps = 6 * 14782  # of EoMT-L on COCO: twelve epochs
    starts, ends = [14782, 29564, 44346, 59128], [29564, 44346, 59128, 73910]
    for block in range(4):
        assert eomt.masking(starts[block] / steps, 4)[block] == 1
        assert eomt.masking(ends[block] / steps, 4)[block] == pytest.approx(0, abs=1e-9)
        assert eomt.masking((starts[block] + ends[block]) / 2 / steps, 4)[block] == pytest.approx(0.5**0.9)
    small = [eomt.masking(step / (12 * 14782), 3) for step in (29564, 73910, 118256)]  # of EoMT-S, and 2x as long
    assert [row.index(1) for row in small] == [0, 1, 2]
    assert eomt.masking(0, 1) == (1,) and eomt.masking(1, 5) == (0,) * 5
    shares = [eomt.masking(step / 50, 5) for step in range(51)]
    for before, after in zip(shares, shares[1:], strict=False):
        assert all(a >= b for a, b in zip(before, after, strict=True))  # it only falls
        assert list(after) == sorted(after)  # the first block goes first


def test_a_trained_network_masks_nothing_and_says_so_where_it_is_saved():
    torch.manual_seed(0)
    network = SMALL.build().eval()
    assert network.is_masked.all() and network.masking == (1, 1)
    network.set_progress(0.4)
    assert network.is_masked.tolist() == [False, True] and network.masking == (0, 1)
    network.set_progress(1.0)
    assert not network.state_dict()["is_masked"].any()
    assert len(network.answers(torch.zeros(1, 3, 32, 32), every=False)) == 1


def test_a_query_sees_the_patches_of_its_mask_and_all_that_is_no_patch():
    network = SMALL.build()
    logits = torch.full((1, QUERIES, 8, 8), -1.0)
    logits[0, 0, :4, 4:] = 1.0  # the patch above to the right
    visible = network._visible(logits, 2, 2, 1.0, None)
    assert visible.shape == (1, QUERIES, QUERIES + 5 + 4) and visible[..., :-4].all()
    assert visible[0, 0, -4:].tolist() == [False, True, False, False] and not visible[0, 1:, -4:].any()
    generator = torch.Generator().manual_seed(0)
    shares = [network._visible(logits, 2, 2, 0.25, generator)[0, :, -4:].all(-1).float().mean() for _ in range(200)]
    assert torch.stack(shares).mean().item() == pytest.approx(0.75, abs=0.03)


def test_any_sides_of_whole_patches_will_do(monkeypatch):
    """The queries are the first tokens: nothing that is beyond a side may count among the patches of another."""
    for form in FORMS:
        torch.manual_seed(0)
        network = of_form(form).build().eval()
        with torch.no_grad():
            found = network(torch.randn(1, 3, 48, 112))
        assert found.class_logits.shape == (1, QUERIES, CLASSES + 1) and found.mask_logits.shape == (1, QUERIES, 12, 28)
    with pytest.raises(ShapeError, match="pad them to 48 x 112"):
        network(torch.zeros(1, 3, 40, 112))


def test_one_image_at_a_time_on_one_device_is_enough():
    """Learning rates and the like of the authors are for sixteen images; what is learned of one must not depend on these."""
    torch.manual_seed(0)
    config = replace(SMALL, encoder=vit.Config(width=64, depth=2, grid=4), num_queries=5, joint_blocks=1)
    network, image = config.build().train(), drawn_image(64)[:1].float()
    planes = torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[0, 16:48, :32] = 1
    truth = [ObjectTruth(torch.tensor([[0.0, 16, 32, 48]]), torch.tensor([3]), planes)]
    optimiser, curve = torch.optim.AdamW(network.parameters(), lr=1e-3), []
    for number in range(60):
        network.set_progress(number / 60)
        terms = network(image, truth, torch.Generator().manual_seed(number))
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        curve.append(sum(terms.values()).item())
    assert sum(curve[-5:]) < 0.3 * sum(curve[:5])
    with torch.no_grad():
        found = network.eval()(image)
    best = found.class_logits[0].softmax(-1)[:, 3].argmax()
    mask = F.interpolate(found.mask_logits[:, best, None], size=(64, 64), mode="bilinear")[0, 0] > 0
    assert (mask & (planes[0] > 0)).sum() > 0.9 * (mask | (planes[0] > 0)).sum()


def test_it_learns_the_same_whatever_was_drawn_before():
    network, image = SMALL.build().train().double(), drawn_image()
    network.set_progress(0.25)
    with torch.no_grad():
        first, again = (network(image, drawn_truth(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert list(first) == ["classes", "masks", "dice"] and all(torch.equal(first[name], again[name]) for name in first)


def test_says_what_is_wrong():
    with pytest.raises(SettingError, match="joint_blocks is 7 and the encoder has 6 blocks; give 6 at most, such as 1"):
        replace(preset("eomt_tiny"), joint_blocks=7)
    with pytest.raises(SettingError, match="num_queries is 0; give 1 or more"):
        eomt.Config(num_queries=0)
    weights = preset("eomt_tiny").build().state_dict()
    with pytest.raises(FormatError, match="hold no queries.*check that the file is of an EoMT"):
        eomt.rename({"network.encoder.backbone.cls_token": weights["encoder.prefix"][None, :1]})
    with pytest.raises(FormatError, match="'head.weight', which no Vision Transformer has"):
        eomt.rename({"network.q.weight": weights["queries"], "head.weight": weights["queries"]})
