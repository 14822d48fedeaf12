"""Names of SAM 2's tensors; that every published file fits is in tests/models/test_sam2.py."""

import pytest
import torch

from segwright.core.errors import FormatError
from segwright.models import sam2


def test_it_leaves_its_argument_alone_and_refuses_strangers(golden):
    weights = golden("sam2_a").weights
    keys = list(weights)
    ours = sam2.rename(weights)
    assert list(weights) == keys and len(ours) == len(keys) - 1 - 4 - 2  # one is unused, 5 and 3 are one each
    for key in (
        "memory_attention.layers.0.self_attn.q.weight",
        "sam_mask_decoder.transformer.layers.0.norm9.weight",
        "memory_encoder.fuser.layers.0.beta",
        "head.weight",
    ):
        with pytest.raises(FormatError, match=f"the weights hold '{key}', which SAM 2 does not"):
            sam2.rename(weights | {key: torch.zeros(1)})


def test_a_part_that_is_missing_is_named(golden):
    weights = golden("sam2_a").weights
    del weights["sam_prompt_encoder.point_embeddings.2.weight"]
    with pytest.raises(FormatError, match="lack 1 of 5 rows of prompts.kinds; take the whole file"):
        sam2.rename(weights)


def test_what_hugging_face_holds_twice_must_be_equal(golden):
    weights = golden("sam2_hf_video_a").weights
    with pytest.raises(FormatError, match="positional_embedding' is held twice, with other values"):
        sam2.rename(weights)


def test_rows_of_one_tensor_come_in_order(golden):
    weights = golden("sam2_a").weights
    queries = sam2.rename(weights)["decoder.queries"]
    assert torch.equal(queries[0], weights["sam_mask_decoder.obj_score_token.weight"][0])
    assert torch.equal(queries[2:], weights["sam_mask_decoder.mask_tokens.weight"])
