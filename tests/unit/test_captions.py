from pathlib import Path

import h5py
import numpy as np
import pytest
from small_disk import files_of_at_most

from capscope.data.annotations import Image
from capscope.data.captions import encode_captions, published_draw, read_captions, write_captions
from capscope.data.vocabulary import Vocabulary, build_vocabulary
from capscope.errors import CapscopeError


def image(number: int, *references: str) -> Image:
    tokens = tuple(tuple(reference.split()) for reference in references)
    return Image(number, f"{number}.jpg", "train", references, tokens)


IMAGES = (
    image(5, "a cat", "a black cat sits"),
    image(3, "a dog and a cat and a mouse"),
    image(9, "a dog"),
)


@pytest.fixture
def vocabulary() -> Vocabulary:
    return build_vocabulary([words for one in IMAGES for words in one.tokens], 2)


def test_references_keep_their_order_and_long_ones_are_left_out(vocabulary: Vocabulary) -> None:
    captions = encode_captions(IMAGES, vocabulary, 4)
    assert captions.image_ids.tolist() == [5, 9]
    assert captions.labels.dtype == np.uint16
    a, cat, dog, unk = *vocabulary.encode(["a", "cat", "dog"]), vocabulary.unk
    assert captions.labels.tolist() == [[a, cat, 0, 0], [a, unk, cat, unk], [a, dog, 0, 0]]
    assert captions.lengths.tolist() == [2, 4, 2]
    assert list(captions.rows_of(5)) == [0, 1]
    assert list(captions.rows_of(9)) == [2]
    assert 9 in captions
    assert 3 not in captions
    with pytest.raises(CapscopeError, match="image 3"):
        captions.rows_of(3)


def test_the_file_has_the_layout_of_the_sheet(tmp_path: Path, vocabulary: Vocabulary) -> None:
    captions = encode_captions(IMAGES, vocabulary, 8)
    write_captions(tmp_path / "captions.h5", captions)
    with h5py.File(tmp_path / "captions.h5") as file:
        assert file["label_start_ix"][()].tolist() == [1, 3, 4]
        assert file["label_end_ix"][()].tolist() == [2, 3, 4]
        assert file["label_length"][()].tolist() == [2, 4, 8, 2]
        assert file["image_ids"].dtype == np.int64
    again = read_captions(tmp_path / "captions.h5", vocabulary)
    for name in ("image_ids", "labels", "lengths", "first", "last"):
        np.testing.assert_array_equal(getattr(again, name), getattr(captions, name))


def test_the_same_captions_give_the_same_bytes(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for name in ("one.h5", "two.h5"):
        write_captions(tmp_path / name, encode_captions(IMAGES, vocabulary, 8))
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_captions_of_another_vocabulary_are_refused(tmp_path: Path, vocabulary: Vocabulary) -> None:
    write_captions(tmp_path / "captions.h5", encode_captions(IMAGES, vocabulary, 8))
    other = build_vocabulary([("a", "cat")], 1)
    with pytest.raises(CapscopeError, match="another vocabulary"):
        read_captions(tmp_path / "captions.h5", other)


def test_a_file_that_is_not_one_of_captions_is_named(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    path = tmp_path / "captions.h5"
    with pytest.raises(CapscopeError, match=r"captions\.h5"):
        read_captions(path, vocabulary)
    path.write_text("no HDF5")
    with pytest.raises(CapscopeError, match=r"captions\.h5"):
        read_captions(path, vocabulary)
    path.unlink()
    h5py.File(path, "w").close()
    with pytest.raises(CapscopeError, match=r"captions\.h5"):
        read_captions(path, vocabulary)


def test_word_ids_beyond_sixteen_bits_are_kept() -> None:
    words = tuple(f"w{number}" for number in range(70_000))
    vocabulary = build_vocabulary([words], 1)
    captions = encode_captions([image(1, words[-1])], vocabulary, 3)
    assert captions.labels[0, 0] == 70_000


def test_a_limit_that_no_reference_keeps_is_an_error(vocabulary: Vocabulary) -> None:
    with pytest.raises(CapscopeError, match="max_length"):
        encode_captions(IMAGES, vocabulary, 1)


def test_the_published_draw_gives_five_of_the_references_whatever_their_number() -> None:
    draw = published_draw()
    for count in (1, 2, 5, 9):
        references = [(f"word{number}",) for number in range(count)]
        drawn = list(draw(references))
        assert len(drawn) == 5
        assert set(drawn) <= set(references)
        if count >= 5:
            assert len(set(drawn)) == 5
        else:
            assert drawn[:count] == references


def test_a_full_disk_leaves_no_captions_and_one_clear_error(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    many = [image(number, *["a cat and a dog"] * 5) for number in range(2000)]
    captions = encode_captions(many, vocabulary, 40)
    with (
        pytest.raises(CapscopeError, match=r"cannot write .*captions\.h5"),
        files_of_at_most(100_000),
    ):
        write_captions(tmp_path / "captions.h5", captions)
    assert list(tmp_path.iterdir()) == []
