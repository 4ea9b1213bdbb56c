"""The captioner of the fixtures on latent space, and its decoders, against the original program."""

import numpy as np
import torch
from image_networks import Golden
from latent_captioner import captions_of, latent_captioner, numbers
from torch.nn import functional

from capscope.decoding.diverse import diverse_beam_search
from capscope.decoding.endings import strip_bad_endings
from capscope.decoding.sampling import argmax, greedy_search, roll_out
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.replacement import Constant
from capscope.features.visual import Features
from capscope.relevance.reweighting import reweight

ABSOLUTE = 1e-5
ALSO = frozenset({"and"})  # gridTD's further bad ending
LONGEST_DIVERSE = 50


def test_teacher_forcing() -> None:
    golden = Golden("latent_xic/model.npz")
    captioner, cells = latent_captioner()
    word_ids = golden["tf_captions"]
    inputs = word_ids[:, : golden["tf_logits"].shape[1]]
    with torch.no_grad():
        hidden = captioner.hidden(Features(cells), inputs)
        logits = captioner.readout(hidden.values)
        betas = torch.cat([one.beta for one in captioner.unroll(Features(cells), inputs)], 1)
    torch.testing.assert_close(logits, golden["tf_logits"], rtol=0, atol=ABSOLUTE)
    torch.testing.assert_close(hidden.attention, golden["tf_alphas"], rtol=0, atol=ABSOLUTE)
    torch.testing.assert_close(betas, golden["tf_betas"], rtol=0, atol=ABSOLUTE)
    pad = captions_of(golden, "word_map")["<pad>"]
    asked = word_ids[:, 1 : inputs.shape[1] + 1]
    loss = functional.cross_entropy(logits.flatten(0, 1), asked.flatten(), ignore_index=pad)
    torch.testing.assert_close(loss, golden["tf_ce"], rtol=0, atol=ABSOLUTE)


def test_search_under_perturbation_without_any() -> None:
    golden = Golden("latent_xic/model.npz")
    captioner, cells = latent_captioner()
    word_map = captions_of(golden, "word_map")
    special = {word_map[f"<{kind}>"] for kind in ("pad", "start", "end", "unk")}
    for image in numbers(golden, "beam3_outprobs_"):
        perturbed = Perturbed(captioner, Features(cells[[int(image)]]), Constant(0.0))
        masks = torch.zeros(1, cells.shape[1], dtype=torch.bool)
        found = perturbed.search(masks, start=word_map["<start>"], end=word_map["<end>"])
        expected = golden[f"beam3_outprobs_{image}"]
        torch.testing.assert_close(found.log_probs[0], expected, rtol=0, atol=ABSOLUTE)
        ids = [one for one in found.captions[0] if one not in special]
        np.testing.assert_array_equal(ids, golden[f"beam3_ids_{image}"])
        words = {word_id: word for word, word_id in word_map.items()}
        said = " ".join(words[one] for one in ids)
        assert said == captions_of(golden, "beam3_captions")[int(image)]


def test_greedy_sampling_and_search() -> None:
    golden = Golden("latent_xic/model.npz")
    captioner, cells = latent_captioner()
    word_map = captions_of(golden, "word_map")
    start, end = word_map["<start>"], word_map["<end>"]
    expected = golden["sample_greedy_ids"]
    with torch.no_grad():
        rollout = roll_out(
            captioner,
            captioner.encode(Features(cells)),
            argmax,
            start=start,
            end=end,
            steps=expected.shape[1],
        )
    found = rollout.word_ids[:, 0]
    assert torch.equal(found.masked_fill(found == end, 0), expected)
    torch.testing.assert_close(
        rollout.log_probs[:, 0][found != 0],
        golden["sample_greedy_logprobs"][found != 0],
        rtol=0,
        atol=ABSOLUTE,
    )
    rows = golden["greedy_ids"].tolist()
    said = greedy_search(
        captioner, Features(cells), start=start, end=end, max_length=len(rows[0]) - 1
    )
    words = {word_id: word for word, word_id in word_map.items()}
    sentences = captions_of(golden, "greedy_sentences")
    for hypothesis, row, sentence in zip(said, rows, sentences, strict=True):
        ids = [start, *hypothesis.word_ids]
        assert ids + [0] * (len(row) - len(ids)) == row
        text = " ".join(words[one] for one in hypothesis.word_ids)
        assert strip_bad_endings(text, also=ALSO) == sentence


def test_diverse_beam_search() -> None:
    golden = Golden("latent_xic/model.npz")
    captioner, cells = latent_captioner()
    word_map = captions_of(golden, "word_map")
    words = {word_id: word for word, word_id in word_map.items()}
    special = {word_map[f"<{kind}>"] for kind in ("pad", "start", "end", "unk")}
    found = diverse_beam_search(
        captioner,
        Features(cells),
        start=word_map["<start>"],
        end=word_map["<end>"],
        groups=3,
        beam=3,
        max_length=LONGEST_DIVERSE,
        penalty=0.5,
        parity=True,
    )
    for image in numbers(golden, "dbs3_"):
        texts = [
            " ".join(words[one] for one in hypothesis.word_ids if one not in special)
            for hypothesis in found[int(image)]
        ]
        said = [strip_bad_endings(text, also=ALSO) for text in texts]
        assert said == captions_of(golden, f"dbs3_{image}")


def test_forward_with_relevance_weights() -> None:
    golden = Golden("latent_xic/model.npz")
    captioner, cells = latent_captioner()
    word_map = captions_of(golden, "word_map")
    neutral = torch.zeros(captioner.vocabulary_size, dtype=torch.bool)
    listed = captions_of(golden, "lrpctx_stopwords")
    neutral[[word_map[word] for word in listed if word in word_map]] = True
    inputs = golden["tf_captions"][:, : golden["lrpctx_logits"].shape[1]]
    with torch.no_grad():
        found = reweight(captioner, captioner.summands(Features(cells), inputs), neutral)
    torch.testing.assert_close(found.logits, golden["lrpctx_logits"], rtol=0, atol=ABSOLUTE)
    expected = golden["lrpctx_weighted_logits"]
    torch.testing.assert_close(found.weighted, expected, rtol=0, atol=ABSOLUTE)
