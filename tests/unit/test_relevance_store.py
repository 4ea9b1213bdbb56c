"""The relevance store gives back what was put in, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from capscope.errors import CapscopeError
from capscope.explain.explanation import Explanation
from capscope.explain.raster import sum_pool
from capscope.explain.store import FILE, Captions, RelevanceStore, write_relevance
from capscope.files import read_manifest

CAPTIONS = Captions.of([7, 3, 9], [[4, 5, 6], [2], [8, 8]])


def explanation(rows: list[int], seed: int = 0, pixels: bool = True) -> Explanation:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.from_numpy(CAPTIONS.lengths[rows])
    size = (len(rows), int(lengths.max()))
    return Explanation(
        torch.randn(*size, 4, generator=generator),
        torch.randn(*size, size[1], generator=generator).tril(),
        torch.randn(*size, 8, 8, generator=generator) if pixels else None,
        {"start": torch.randn(size, generator=generator) * 1e5},
    ).within(lengths)


def write(folder: Path, batches: list[tuple[list[int], Explanation]], map_size: int = 4) -> None:
    write_relevance(
        folder,
        CAPTIONS,
        [(np.array(rows), each) for rows, each in batches],
        map_size=map_size,
        attributes={"explainer": "lrp", "split": "test", "grid": (2, 2), "image_size": 8},
        params={"map_size": map_size},
        inputs={},
    )


def test_what_was_written_in_batches_is_read_caption_by_caption(tmp_path: Path) -> None:
    parts = {(1,): explanation([1], 1), (2, 0): explanation([2, 0], 2)}
    write(tmp_path, [(list(rows), each) for rows, each in parts.items()])
    with RelevanceStore(tmp_path) as store:
        assert (store.explainer, store.split, store.grid, store.image_size) == (
            "lrp",
            "test",
            (2, 2),
            8,
        )
        assert [stored.image_id for stored in store] == [7, 3, 9]
        for rows, each in parts.items():
            for place, row in enumerate(rows):
                stored = store[row]
                length = int(CAPTIONS.lengths[row])
                assert stored.word_ids == tuple(CAPTIONS.word_ids[row, :length])
                near = {"atol": 1e-2, "rtol": 1e-3}
                grid = each.grid[place, :length].view(length, 2, 2)
                pooled = sum_pool(each.pixels[place, :length], 4, 4)
                torch.testing.assert_close(stored.grid, grid, **near)
                torch.testing.assert_close(
                    stored.words, each.words[place, :length, :length], **near
                )
                torch.testing.assert_close(stored.pixels, pooled, **near)
                start = each.conservation["start"][place, :length]
                assert stored.conservation["start"].equal(start)


def test_an_explanation_without_pixels_is_stored_without(tmp_path: Path) -> None:
    write(tmp_path, [([0, 1, 2], explanation([0, 1, 2], pixels=False))])
    with RelevanceStore(tmp_path) as store:
        assert store[0].pixels is None


def test_maps_smaller_than_the_stored_size_keep_theirs(tmp_path: Path) -> None:
    write(tmp_path, [([0, 1, 2], explanation([0, 1, 2]))], map_size=64)
    with RelevanceStore(tmp_path) as store:
        assert store[0].pixels.shape == (3, 8, 8)


def test_values_beyond_float16_are_cut_and_counted(tmp_path: Path) -> None:
    each = explanation([0, 1, 2])
    each.grid[0, 0, 0] = 1e6
    write(tmp_path, [([0, 1, 2], each)])
    assert read_manifest(tmp_path, "relevance")["saturated"] == 1
    with RelevanceStore(tmp_path) as store:
        assert store[0].grid[0, 0, 0] == 65504


def test_relevance_that_is_not_finite_leaves_no_store(tmp_path: Path) -> None:
    each = explanation([0, 1, 2])
    each.grid[0, 0, 0] = float("nan")
    with pytest.raises(CapscopeError, match=r"'grid' of images \[7, 3, 9\] is not finite"):
        write(tmp_path, [([0, 1, 2], each)])
    assert not (tmp_path / FILE).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [([0, 1, 2], explanation([0, 1, 2]))])
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:-10])
    with pytest.raises(CapscopeError, match=r"make .* again"):
        RelevanceStore(tmp_path)
