"""coco.pt: read without running it, made of any data set, used like every other data set."""

import io
import json
import pickle

import h5py
import numpy as np
import pytest
import torch
from bad_images import picture
from click.testing import CliRunner
from PIL import Image

from capscope.cli import capscope
from capscope.data import coco_pt as module
from capscope.data.annotations import open_dataset, read_karpathy
from capscope.data.captions import open_captions, prepare_captions
from capscope.data.coco_pt import UNKNOWN, VAL_ID, read_coco_pt
from capscope.data.coco_pt_build import Recipe, build_coco_pt, write_coco_pt
from capscope.data.prepare import prepare_dataset
from capscope.errors import CapscopeError
from capscope.files import read_manifest, write_manifest
from capscope.foreign import load

WORDS = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "dog", "runs"]
CAPTIONS = [[1, 4, 5, 6, 2], [1, 4, 3, 2, 0], [1, 5, 2, 0, 0]]


def content(train=3, val=2, size=12):
    generator = torch.Generator().manual_seed(0)

    def pixels(count):
        return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)

    captions = torch.tensor(CAPTIONS)
    return {
        "train_images": pixels(train),
        "train_captions": captions[:train].clone(),
        "val_images": pixels(val),
        "val_captions": captions[:val].clone(),
        "vocab": {"idx_to_token": WORDS, "token_to_idx": {w: i for i, w in enumerate(WORDS)}},
    }


@pytest.fixture
def separate():
    """Read files in a process of its own, as always outside of tests; it takes seconds to start."""


@pytest.fixture(autouse=True)
def reading(request, monkeypatch):
    def plain(node):
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        return torch.from_numpy(node) if isinstance(node, np.ndarray) else node

    def read(path):
        try:
            return plain(load(str(path)))
        except CapscopeError as error:
            raise CapscopeError(f"{path} was not loaded: {error}") from error

    if "separate" not in request.fixturenames:
        monkeypatch.setattr(module, "read_foreign", read)


@pytest.fixture
def path(tmp_path):
    torch.save(content(), tmp_path / "coco.pt")
    return tmp_path / "coco.pt"


def settings(path, policy="fail"):
    return {
        "name": "coco_pt",
        "reader": "coco_pt",
        "coco_pt": {"file": str(path)},
        "downloads": [],
        "on_unreadable": policy,
        "evaluate": ["val"],
    }


def test_pictures_captions_and_words_come_out_as_they_are(path, tmp_path):
    prepare_dataset(tmp_path / "data", settings(path))
    dataset = open_dataset(tmp_path / "data", {"dataset": settings(path)})
    assert [image.id for image in dataset.split("train")] == [0, 1, 2]
    assert [image.id for image in dataset.split("val")] == [VAL_ID, VAL_ID + 1]
    expected = content()
    for split in ("train", "val"):
        for image, pixels in zip(dataset.split(split), expected[f"{split}_images"], strict=True):
            found = np.asarray(Image.open(dataset.path(image))).transpose(2, 0, 1)
            assert np.array_equal(found, pixels.numpy())
            assert (image.width, image.height) == found.shape[:0:-1]
    assert dataset.by_id(1).tokens == (("a", UNKNOWN),)
    assert dataset.by_id(1).references == ("a",)
    manifest = read_manifest(tmp_path / "data", "data", check_hashes=True)
    assert manifest["images"] == {"train": 3, "val": 2}
    assert manifest["files"]["images"]["files"] == 5


def test_a_system_takes_the_words_of_the_file_if_it_is_told_to(path, tmp_path):
    prepare_dataset(tmp_path / "data", settings(path))
    own = {"min_count": 1, "max_length": 3, "references": "all", "words": "given"}
    params = {"dataset": settings(path), "systems": {"lstm": {"vocabulary": own}}}
    prepare_captions(tmp_path / "vocabulary", tmp_path / "data", params, "lstm")
    vocabulary, captions = open_captions(tmp_path / "vocabulary")
    assert list(vocabulary.words) == WORDS
    assert captions.labels.tolist() == [[4, 5, 6], [4, 3, 0], [5, 0, 0], [4, 5, 6], [4, 3, 0]]
    (tmp_path / "data" / "vocabulary.json").unlink()
    write_manifest(tmp_path / "data", "data", params={}, folders=["images"])
    with pytest.raises(CapscopeError, match="came without a vocabulary"):
        prepare_captions(tmp_path / "vocabulary", tmp_path / "data", params, "lstm")


def test_the_same_file_gives_the_same_bytes_and_another_one_leaves_nothing_behind(path, tmp_path):
    out = tmp_path / "data"
    prepare_dataset(out, settings(path))
    manifest = (out / "manifest.json").read_bytes()
    torch.save(content(train=2), path)
    prepare_dataset(out, settings(path))
    assert not (out / "images" / "train" / "000002.png").exists()
    torch.save(content(), path)
    prepare_dataset(out, settings(path))
    assert (out / "manifest.json").read_bytes() == manifest


def without(key):
    return lambda d: d.pop(key)


def replaced(key, change):
    return lambda d: d.update({key: change(d[key])})


def outside(row, place, word):
    def edit(loaded):
        loaded["train_captions"][row, place] = word

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("val_captions"), "lacks val_captions"),
        (without("vocab"), "lacks vocab"),
        (replaced("train_images", lambda t: t[:2]), "2 train_images, 3 train_captions"),
        (replaced("train_images", lambda t: t.float()), r"train_images: torch\.float32"),
        (replaced("train_images", lambda t: t[:, :1]), r"train_images: torch\.uint8 \(3, 1,"),
        (replaced("train_images", lambda t: t[0]), "expected torch.uint8"),
        (replaced("train_images", lambda t: t[:0]), "expected torch.uint8"),
        (replaced("train_images", lambda t: t[..., :7]), "two sizes"),
        (replaced("val_images", lambda t: "pictures"), "val_images: a str, no tensor"),
        (replaced("val_captions", lambda t: t.int()), "expected torch.int64"),
        (outside(1, 2, 7), r"train_captions\[1, 2\] is word 7, outside of the 7"),
        (outside(0, 1, -1), r"train_captions\[0, 1\] is word -1"),
        (outside(2, 0, 4), r"train_captions\[2\] does not begin with <START>"),
        (outside(0, 2, 1), r"train_captions\[0\] has <START> twice"),
        (replaced("vocab", lambda v: WORDS), "needs 'idx_to_token'"),
        (replaced("vocab", lambda v: {**v, "idx_to_token": WORDS[1:]}), "not the inverse"),
        (replaced("vocab", lambda v: {"idx_to_token": [*WORDS[4:], *WORDS[4:]]}), "lacks <NULL>"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(path, tmp_path, edit, message):
    loaded = content()
    edit(loaded)
    torch.save(loaded, path)
    with pytest.raises(CapscopeError, match=message):
        prepare_dataset(tmp_path / "data", settings(path))
    assert not (tmp_path / "data").exists()


def test_a_caption_without_a_word_stops_or_leaves_its_picture_out(path, tmp_path):
    loaded = content()
    loaded["train_captions"][1] = torch.tensor([1, 2, 0, 0, 0])
    torch.save(loaded, path)
    with pytest.raises(CapscopeError, match=r"train_captions\[1\] has no word"):
        prepare_dataset(tmp_path / "data", settings(path))
    dataset = prepare_dataset(tmp_path / "data", settings(path, "skip"))
    assert [image.id for image in dataset.split("train")] == [0, 2]
    assert read_manifest(tmp_path / "data", "data")["skipped"] == 1


class Canary:
    def __reduce__(self):
        return print, ("sung",)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
@pytest.mark.slow
def test_code_in_the_file_is_not_run(path, capfd, save, separate):
    save({**content(), "more": Canary()}, path)
    with pytest.raises(CapscopeError, match="was not loaded"):
        read_coco_pt(path)
    assert "sung" not in capfd.readouterr().out


@pytest.mark.parametrize("name", ["coco.pt", "coco.h5"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_file_that_is_cut_short_is_an_error(tmp_path, source, name, kept):
    write_coco_pt(tmp_path, source, RECIPE)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CapscopeError, match=name):
        read_coco_pt(tmp_path / name)


def hdf5(**members):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, value in members.items():
            file[name] = value
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (h5py.SoftLink("/vocab"), "is a link to another place"),
        (h5py.ExternalLink("/etc/passwd", "/"), "is a link to another place"),
    ],
)
def test_links_in_an_hdf5_file_are_not_followed(tmp_path, member, message):
    (tmp_path / "coco.h5").write_bytes(hdf5(train_images=member))
    with pytest.raises(CapscopeError, match=message):
        read_coco_pt(tmp_path / "coco.h5")


def test_groups_that_hold_themselves_and_values_of_other_files_are_refused(tmp_path):
    path = tmp_path / "coco.h5"
    with h5py.File(path, "w") as file:
        file["vocab/self"] = file.create_group("vocab")
    with pytest.raises(CapscopeError, match="deep"):
        read_coco_pt(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])
    with pytest.raises(CapscopeError, match="takes its values from another file"):
        read_coco_pt(path)


RECIPE = Recipe(train=4, val=2, size=16, words=3, vocabulary=3)


@pytest.fixture
def source(tmp_path):
    """Return a data set of eight pictures with two references each."""
    entries = []
    for number in range(8):
        picture(20 + number, 30).save(tmp_path / f"{number}.png")
        sentences = [{"raw": f"a dog runs home {number}"}, {"raw": "a dog <START>"}]
        split = "train" if number < 5 else "val"
        one = {"filename": f"{number}.png", "cocoid": number, "split": split}
        entries.append(one | {"sentences": sentences})
    (tmp_path / "dataset.json").write_text(json.dumps({"images": entries}))
    return read_karpathy(tmp_path / "dataset.json", tmp_path, "toy")


def test_a_built_file_holds_resized_pictures_and_cut_captions(source):
    built = build_coco_pt(source, RECIPE)
    assert built["train_images"].shape == (4, 3, 16, 16)
    assert built["val_captions"].shape == (2, 5)
    words = built["vocab"]["idx_to_token"]
    assert words[:6] == [*WORDS[:4], "a", "dog"]
    assert len(words) == 4 + 3
    for caption in np.concatenate([built["train_captions"], built["val_captions"]]):
        told = [words[word_id] for word_id in caption]
        assert told[0] == "<START>"
        assert told.count("<END>") == 1
        assert set(told[told.index("<END>") + 1 :]) <= {"<NULL>"}
    rows = {row.tobytes() for row in built["train_images"]}
    images = [np.asarray(Image.open(source.path(i)).resize((16, 16), 2)) for i in source.images]
    assert rows <= {image.transpose(2, 0, 1).tobytes() for image in images}


def test_both_files_hold_the_same_and_the_same_data_give_the_same_bytes(source, tmp_path):
    for name in ("one", "two"):
        write_coco_pt(tmp_path / name, source, RECIPE)
    pt, twin = (read_coco_pt(tmp_path / "one" / name) for name in ("coco.pt", "coco.h5"))
    assert pt.vocabulary == twin.vocabulary
    assert pt.captions == twin.captions
    assert all(torch.equal(pt.images[split], twin.images[split]) for split in pt.images)
    for name in ("coco.pt", "coco.h5", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_other_programs_find_plain_tensors_and_containers(source, tmp_path):
    write_coco_pt(tmp_path, source, RECIPE)
    loaded = torch.load(tmp_path / "coco.pt", weights_only=True)
    kinds = {name: (value.dtype, value.dim()) for name, value in loaded.items() if name != "vocab"}
    assert kinds == {
        f"{split}_{what}": kind
        for split in ("train", "val")
        for what, kind in (("images", (torch.uint8, 4)), ("captions", (torch.int64, 2)))
    }
    words = loaded["vocab"]["idx_to_token"]
    assert loaded["vocab"]["token_to_idx"] == {word: number for number, word in enumerate(words)}


def test_more_pictures_than_there_are_cannot_be_drawn(source):
    with pytest.raises(CapscopeError, match="has 5 images of split 'train', 6 are asked for"):
        build_coco_pt(source, RECIPE._replace(train=6))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco.pt", "coco.h5"])
def test_the_commands_make_a_file_and_a_data_set_of_it(path, tmp_path, name, separate):
    run = CliRunner().invoke
    (tmp_path / "first.json").write_text(json.dumps({"dataset": settings(path)}))
    first = ["--params", "params.yaml", "--params", str(tmp_path / "first.json")]
    data, out = tmp_path / "data", tmp_path / "built"
    assert run(capscope, ["data", *first, "--out", str(data)]).exit_code == 0
    sizes = ["--train", "2", "--val", "1", "--size", "8", "--words", "2", "--vocabulary", "2"]
    found = run(
        capscope, ["export", "coco_pt", *first, "--data", str(data), "--out", str(out), *sizes]
    )
    assert found.exit_code == 0, found.output
    dataset = prepare_dataset(tmp_path / "again", settings(out / name))
    assert [image.split for image in dataset.images] == ["train", "train", "val"]
    assert read_manifest(out, "coco_pt")["params"]["size"] == 8
