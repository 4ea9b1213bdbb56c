"""What the published text fixtures hold beyond scores: bad endings, and the reward's loss."""

import json

import pytest
import torch
from image_networks import Golden

from capscope.decoding.endings import BAD_ENDINGS, strip_bad_endings
from capscope.training.objectives import self_critical_loss

LOSS = 1e-5


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("lrp_ic/text_metrics.npz")


def also(name: str) -> frozenset[str]:
    """Return the endings that only the gridTD programs strip."""
    return frozenset({"and"}) if name.startswith("gridtd") else frozenset()


def test_the_lists_of_bad_endings(golden: Golden) -> None:
    stored = json.loads(str(golden.arrays["BAD_ENDINGS"]))
    for name, endings in stored.items():
        assert set(endings) == BAD_ENDINGS | also(name)


def test_bad_endings_of_every_program_where_it_answers(golden: Golden) -> None:
    endings = Golden("lrp_ic/text_metrics2.npz")
    sentences = json.loads(str(endings.arrays["badend2.in"]))
    names = endings.keys("badend2.out.")
    assert names
    for name in names:
        stripped = json.loads(str(endings.arrays[f"badend2.out.{name}"]))
        errors = json.loads(str(endings.arrays[f"badend2.error.{name}"]))
        for given, expected, error in zip(sentences, stripped, errors, strict=True):
            found = strip_bad_endings(given, also=also(name))
            assert (expected is None) == (error is not None)
            # The original raises where it would strip everything; ours leaves the sentence.
            assert found == (given if error else expected)


def test_the_first_sentences_are_those_of_which_something_is_left(golden: Golden) -> None:
    every = json.loads(str(golden.arrays["badend.in"]))
    left = [one for one in every if not one or not set(one.split(" ")) <= BAD_ENDINGS]
    assert json.loads(str(golden.arrays["badend.subset"])) == left


def test_the_strings_that_are_rewarded_are_those_of_the_ids(golden: Golden) -> None:
    word_map = golden.meta["word_map"]
    words = {number: word for word, number in word_map.items()}
    said = [" ".join(words[i] for i in row if i) for row in golden["sc.gen"].tolist()]
    assert said == json.loads(str(golden.arrays["sc.gen_str"]))
    silent = {word_map["<pad>"], word_map["<start>"]}
    references = [
        [" ".join(words[i] for i in row if i not in silent) for row in image]
        for image in golden["sc.all_caps"].tolist()
    ]
    assert references == json.loads(str(golden.arrays["sc.ref_str"]))


def test_the_loss_of_the_reward(golden: Golden) -> None:
    word_ids, reward = golden["sc.gen"], golden["sc.reward"]
    loss = self_critical_loss(golden["sc.logprobs"], word_ids, reward[:, 0], end=0)
    torch.testing.assert_close(loss, golden["sc.loss"], rtol=0, atol=LOSS, check_dtype=False)
