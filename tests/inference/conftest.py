import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from segwright.inference.prompting import Prompter
from segwright.layers.prompts import PromptedMasks


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No test reads what another one remembered, nor writes to the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "segwright"


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Tiny networks gain nothing from threads, and lose much where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class _Squares(nn.Module):
    """Sees bright squares on black, and answers a point with the square that it lies on, sharp, and with two poor masks."""

    divisors = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sides: list[tuple[int, int]] = []

    def encode(self, image: Tensor) -> Tensor:
        self.sides.append((image.shape[2], image.shape[3]))
        bright = nn.functional.avg_pool2d(image[:, :1], 4)[0, 0] > 0  # (h, w)
        self.regions = torch.from_numpy(ndimage.label(bright.numpy())[0])
        return torch.zeros(1, 1, image.shape[2] // 16, image.shape[3] // 16)

    def decode(self, embedding, prompts, *, multimask):
        assert multimask
        logits, scores = [], []
        for x, y in prompts.points_xy[0, :, 0].tolist():
            row, column = (min(int(at / 4), side - 1) for at, side in zip((y, x), self.regions.shape, strict=True))
            region = (self.regions == self.regions[row, column]) & (self.regions > 0)
            sharp, blurred = torch.where(region, 200.0, -200.0), torch.where(region, 0.5, -0.5)
            logits.append(torch.stack([blurred, sharp, sharp]))
            scores.append(torch.tensor([0.99, 0.5, 0.95 if region.any() else 0.1]))
        return PromptedMasks(torch.stack(logits)[None], torch.stack(scores)[None])


@pytest.fixture
def squares() -> np.ndarray:
    """Two bright squares on black (3, 64, 64)."""
    image = np.zeros((3, 64, 64), np.uint8)
    image[:, 4:20, 8:24] = 255
    image[:, 32:60, 32:44] = 255
    return image


@pytest.fixture
def squares_prompter() -> Prompter:
    """A promptable network that finds bright squares."""
    return Prompter(network=_Squares(), side=64)


def _clip_tokenizer(longest):
    from transformers import CLIPTokenizer

    letters = [chr(ord("a") + number) for number in range(26)]
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token="!", model_max_length=longest)


def _save_text_network(kind, folder):
    """A tiny network of transformers, of random weights, with all files that belong to it."""
    import transformers

    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"vocab_size": 64, "bos_token_id": 53, "eos_token_id": 54, "pad_token_id": 0}
    sides = {"size": {"height": 32, "width": 32}}
    if kind == "owlv2":
        text, vision = {**layers, **ends, "max_position_embeddings": 16}, {**layers, "image_size": 32, "patch_size": 8}
        config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
        images = transformers.Owlv2ImageProcessor(**sides)
        network, processor = (
            transformers.Owlv2ForObjectDetection(config),
            transformers.Owlv2Processor(images, _clip_tokenizer(16)),
        )
    elif kind == "clipseg":
        text, vision = {**layers, **ends, "max_position_embeddings": 77}, {**layers, "image_size": 32, "patch_size": 8}
        parts = {"extract_layers": [0, 1], "reduce_dim": 8, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 8}
        config = transformers.CLIPSegConfig(text_config=text, vision_config=vision, projection_dim=16, **parts)
        images = transformers.ViTImageProcessor(**sides)
        network = transformers.CLIPSegForImageSegmentation(config)
        processor = transformers.CLIPSegProcessor(images, _clip_tokenizer(77))
    elif kind == "grounding-dino":
        swin = transformers.SwinConfig(
            image_size=32, window_size=2, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1],
            out_features=["stage2", "stage3", "stage4"], out_indices=[2, 3, 4],
        )  # fmt: skip
        counts = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        widths = {"d_model": 64, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 10}
        text = {**layers, "vocab_size": 64, "max_position_embeddings": 64, "model_type": "bert"}
        config = transformers.GroundingDinoConfig(backbone_config=swin, text_config=text, **counts, **widths)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "cat", "dog", "red"]
        cut = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
        images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
        network = transformers.GroundingDinoForObjectDetection(config)
        processor = transformers.GroundingDinoProcessor(images, cut)
    else:
        wide = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
        vit = {
            "model_type": "sam3_vit_model",
            **wide,
            "num_hidden_layers": 2,
            "image_size": 112,
            "pretrain_image_size": 56,
            "window_size": 4,
        }
        heads = {"geometry_encoder_config": {**wide, "num_layers": 1}, "detr_encoder_config": {**wide, "num_layers": 1}}
        config = transformers.Sam3Config(
            vision_config={"backbone_config": {**vit, "global_attn_indexes": [1]}, "fpn_hidden_size": 32},
            text_config={**layers, **ends, "max_position_embeddings": 32, "projection_dim": 32},
            detr_decoder_config={**wide, "num_layers": 1, "num_queries": 5},
            mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
            **heads,
        )
        images = transformers.Sam3ImageProcessor(size={"height": 112, "width": 112})
        network, processor = transformers.Sam3Model(config), transformers.Sam3Processor(images, _clip_tokenizer(32))
    network.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """Gives the folder of a tiny random network that reads texts, by its kind."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            torch.manual_seed(0)
            _save_text_network(kind, made[kind])
        return made[kind]

    return folder
