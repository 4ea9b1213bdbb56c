"""The base transformer and DIFNet: masks, positions, captions of one image, errors; ended beams."""

from itertools import pairwise

import pytest
import torch

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.ended_beam import ended_beam_search
from capscope.decoding.methods import search_images
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.layers.transformer import sinusoids

V, END = 9, 3


def captioner(name="difnet", **options):
    torch.manual_seed(1)
    size = {"segment_size": 4} if name == "difnet" else {}
    config = {"hidden": 8, "heads": 2, "feed_forward": 12, "padding": 1, "longest": 8, **options}
    model = build(name, vocabulary_size=V, feature_size=5, **config, **size).eval()
    model.words.weight.data *= 3
    return model


def images(count=2, cells=6):
    torch.manual_seed(2)
    return Features(torch.randn(count, cells, 5), segments=torch.rand(count, cells, 4))


def logits(model, features, ids):
    return model.readout(model.hidden(features, ids).values)


def test_positions_are_sinusoids_or_as_published_random_and_never_trained():
    model, published = captioner(), captioner(parity=True)
    assert not model.positions[0].any()
    assert not model.embedding.weight[1].any()
    assert published.positions[0].any()
    assert published.embedding.weight[1].any()
    assert "positions" not in dict(model.named_parameters())


def test_word_vectors_are_of_a_size_with_positions_or_as_published_vanish_beside_them():
    def share(parity):
        size = {"vocabulary_size": 300, "feature_size": 5, "hidden": 64, "heads": 2, "layers": 1}
        model = build("base", **size, parity=parity)
        places = sinusoids(len(model.positions), 64)
        return model.embedding.weight[2:].detach().square().mean() / places[1:].square().mean()

    assert 1.8 < share(parity=False) < 2.2  # sines and cosines: a mean of 1/2
    assert share(parity=True) < 0.02


def test_cells_of_zeros_are_as_if_they_were_not_there():
    model, features = captioner("base"), images()
    ids = torch.tensor([[2, 4, 5], [2, 6, 7]])
    padded = Features(torch.cat([features.cells, torch.zeros(2, 3, 5)], 1))
    torch.testing.assert_close(logits(model, padded, ids), logits(model, features, ids))
    assert model.encode(padded)["valid"].sum() == 12
    assert captioner("base", parity=True).encode(padded)["valid"].sum() == 18


def test_several_captions_of_an_image_are_read_as_one_by_one():
    model, features = captioner(), images()
    ids = torch.tensor([[2, 4, 5], [2, 6, 1], [2, 7, 8], [2, 5, 5]])
    together = logits(model, features, ids)
    alone = logits(model, features.select(torch.tensor([0, 0, 1, 1])), ids)
    torch.testing.assert_close(together, alone)
    assert not together[1, 2].any()  # padding says nothing


def test_a_caption_may_begin_with_padding():
    model, features = captioner(), images(1)
    assert logits(model, features, torch.tensor([[1, 4]]))[0, 0].any()
    memory = model.encode(features)
    step = model.step(torch.tensor([[1]]), model.start(memory), memory)
    expected = logits(model, features, torch.tensor([[1, 4]])).log_softmax(-1)[:, :1]
    torch.testing.assert_close(step.log_probs, expected)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (Features(torch.rand(1, 6, 5)), "needs the segments"),
        (Features(torch.rand(1, 6, 5), segments=torch.rand(1, 6, 3)), "of 4 classes"),
        (Features(torch.rand(1, 6, 5), segments=torch.rand(1, 4, 4)), "one row for each cell"),
    ],
)
def test_segments_that_do_not_fit_are_an_error(features, message):
    with pytest.raises(CapscopeError, match=message):
        captioner().encode(features)


def test_sizes_that_cannot_be_are_errors():
    with pytest.raises(CapscopeError, match="shared_layers is 3 of 3"):
        captioner(shared_layers=3)
    with pytest.raises(CapscopeError, match="lower max_length"):
        logits(captioner(), images(1), torch.full((1, 9), 4))


@pytest.mark.parametrize("forbidden", [(), (4, 5)])
def test_ended_beams_are_those_of_a_plain_search(forbidden):
    model, features = captioner(), images(3)
    steps, beam = 5, 3
    found = ended_beam_search(
        model, features, start=2, end=END, beam=beam, steps=steps, forbidden=forbidden, filler=0
    )
    for image in range(3):
        one = features.select(slice(image, image + 1))
        live = [((), 0.0)]
        for _ in range(steps):
            candidates = []
            for words, score in live:
                if words and words[-1] == END:
                    candidates.append((words, score))
                    continue
                ids = torch.tensor([[2, *words]])
                scores = logits(model, one, ids)[0, -1].detach().log_softmax(-1)
                scores[list(forbidden)] = -torch.inf
                for word, log_prob in enumerate(scores.tolist()):
                    candidates.append(((*words, word), score + log_prob))
            live = sorted(candidates, key=lambda one: -one[1])[:beam]
        hypotheses = found.hypotheses(END)[image]
        assert [one.word_ids for one in hypotheses] == [
            tuple(word for word in words if word != END) for words, _ in live
        ]
        assert [one.score for one in hypotheses] == pytest.approx(
            [score for _, score in live], abs=1e-4
        )


def test_the_published_search_is_a_parameter():
    model, features = captioner(), images(3)
    words = Vocabulary(("<unk>", "<pad>", "<bos>", "<eos>", *"abcde"), 1, 2, 3, 0)
    settings = {"beam": 3, "max_length": 5, "captions": 2, "parity": True, "published": "difnet"}
    found = search_images(model, features, words, settings)
    expected = ended_beam_search(model, features, start=2, end=END, beam=3, steps=5)
    for image, theirs in zip(found, expected.hypotheses(END), strict=True):
        assert [one.score for one in image] == [one.score for one in theirs[:2]]
    repeated = search_images(model, features, words, {**settings, "collapse": True})
    for image in repeated:
        for caption in image:
            assert all(a != b for a, b in pairwise(caption.word_ids))
