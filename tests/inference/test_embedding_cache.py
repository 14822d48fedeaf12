"""Embeddings on disk."""

import os

import numpy as np
import torch

from segwright.inference.embedding_cache import EmbeddingCache, image_digest


def test_what_is_remembered_comes_back_bit_by_bit(tmp_path):
    cache = EmbeddingCache(tmp_path / "deep" / "er")
    embedding = torch.randn(1, 4, 3, 2).transpose(2, 3)
    assert cache.recall("net", "image") is None
    cache.remember("net", "image", embedding)
    assert torch.equal(cache.recall("net", "image"), embedding)
    assert cache.recall("other", "image") is None and cache.recall("net", "other") is None


def test_those_used_longest_ago_go(tmp_path):
    cache = EmbeddingCache(tmp_path, max_bytes=3 * 500)
    for number in range(3):
        cache.remember("net", str(number), torch.full((1, 1, 10, 10), float(number)))
        os.utime(tmp_path / f"net-{number}.safetensors", (number, number))
    assert cache.recall("net", "0") is not None  # used now
    cache.remember("net", "3", torch.zeros(1, 1, 10, 10))
    assert [n for n in range(4) if cache.recall("net", str(n)) is not None] == [0, 2, 3]


def test_the_newest_stays_however_large(tmp_path):
    cache = EmbeddingCache(tmp_path, max_bytes=1)
    cache.remember("net", "0", torch.zeros(1, 1, 10, 10))
    cache.remember("net", "1", torch.zeros(1, 1, 10, 10))
    assert cache.recall("net", "0") is None and cache.recall("net", "1") is not None


def test_damage_and_a_place_that_cannot_be_written_cost_time_alone(tmp_path, caplog):
    cache = EmbeddingCache(tmp_path)
    cache.remember("net", "0", torch.zeros(1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"broken")
    assert cache.recall("net", "0") is None
    (tmp_path / "file").write_text("")
    caplog.set_level("INFO")
    EmbeddingCache(tmp_path / "file" / "below").remember("net", "0", torch.zeros(1))
    assert "the embedding is not kept" in caplog.text


def test_the_cache_lies_in_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EmbeddingCache().folder == tmp_path / "segwright" / "embeddings"


def test_a_digest_tells_values_shape_and_type():
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    others = [image + 1, image.reshape(2, 4, 3), image.astype(np.uint16)]
    assert len({image_digest(each) for each in [image, *others]}) == 4
    assert image_digest(image) == image_digest(np.asfortranarray(image))
