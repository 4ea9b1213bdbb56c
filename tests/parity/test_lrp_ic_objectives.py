"""Scheduled sampling and self-critical training against the original program."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from image_networks import Golden
from original_captioners import KINDS, RELEVANCE_KINDS, captioner_of, features_of
from test_lrp_ic_captioners import gradients_agree, live_features, neutral_words
from torch import Tensor

from capscope.decoding.sampling import argmax, given, roll_out
from capscope.features.visual import Features
from capscope.models.captioner import SumCaptioner
from capscope.relevance.reweighting import reweight
from capscope.training.batches import CaptionBatch
from capscope.training.objectives import (
    caption_log_probs,
    cross_entropy,
    scheduled_sampling,
    self_critical_loss,
)
from capscope.training.rewards import CaptionReward
from capscope.training.reweighted import ReweightedCaptioner
from capscope.training.stages.xe import from_the_fourth_on

ABSOLUTE = 1e-5
LogProbs = Callable[[SumCaptioner, Features, Tensor], Tensor]


@pytest.fixture(params=KINDS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(f"lrp_ic/{request.param}.npz")


def special(golden: Golden) -> tuple[int, int]:
    return golden.meta["word_map"]["<start>"], golden.meta["word_map"]["<end>"]


def batch_of(golden: Golden) -> CaptionBatch:
    steps = int(golden["caplens"].max()) - 1
    targets = golden["caps"][:, 1 : steps + 1]
    return CaptionBatch(golden["caps"][:, :steps], targets, targets != 0)


def equal(found: Tensor, expected: Tensor, tolerance: float = ABSOLUTE) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, check_dtype=False)


def test_cross_entropy_over_the_words(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    equal(cross_entropy(captioner, features_of(golden), batch_of(golden)), golden["xe_loss"])


def test_scheduled_sampling(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    batch, mask = batch_of(golden), golden["ss_mask"].bool()
    mask = from_the_fourth_on(mask, batch.inputs.shape[1])
    found, _ = scheduled_sampling(captioner, features_of(golden), batch.inputs, mask)
    expected = golden["ss_logits"].log_softmax(-1)
    equal(found, expected)
    loss = cross_entropy(captioner, features_of(golden), batch, mask)
    spoken = expected.gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1)
    equal(loss, -spoken[batch.valid].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_scheduled_sampling_feeds_the_words_of_the_original(kind: str) -> None:
    model, case = Golden(f"lrp_ic/{kind}.npz"), Golden("lrp_ic/scheduled_sampling2.npz")
    captioner, _ = captioner_of(model)
    features = features_of(model).select(case[f"{kind}/x_index"])
    fed_ids = case[f"{kind}/fed_ids"]
    generator = np.random.RandomState(int(case[f"{kind}/numpy_seed"]))
    uniform = generator.uniform(0, 1, size=len(fed_ids))
    assert np.array_equal(uniform, case.arrays[f"{kind}/ss_uniform"])
    mask = torch.from_numpy(uniform < case.meta["ss_prob"])
    assert torch.equal(mask, case[f"{kind}/ss_mask"].bool())
    inputs = case[f"{kind}/caps"][:, : fed_ids.shape[1]]
    own_words = from_the_fourth_on(mask, inputs.shape[1])
    log_probs, fed = scheduled_sampling(captioner, features, inputs, own_words)
    assert torch.equal(fed, fed_ids)
    equal(log_probs, case[f"{kind}/ss_logits"].log_softmax(-1))


def plain(golden: Golden) -> LogProbs:
    start, end = special(golden)
    return lambda captioner, features, word_ids: caption_log_probs(
        captioner, features, word_ids, start=start, end=end
    )


def reweighted(golden: Golden) -> LogProbs:
    """The sampled branch of LRP-SCST: the predictor's inputs are weighted by their relevance."""
    neutral = neutral_words(golden)
    return lambda captioner, features, word_ids: plain(golden)(
        ReweightedCaptioner(captioner, neutral), features, word_ids
    )


class Joined(Golden):
    """One fixture file, with the weights of another."""

    def __init__(self, case: Golden, model: Golden) -> None:
        self.arrays, self.meta, self.model = case.arrays, model.meta, model

    def __getitem__(self, key: str) -> Tensor:
        return self.model[key] if key.startswith("w.") else super().__getitem__(key)


MODES = {"scst": plain, "lrpscst": reweighted}
CASES = [("scst", kind) for kind in KINDS] + [("lrpscst", kind) for kind in RELEVANCE_KINDS]


def with_end(stored: Tensor, end: int) -> Tensor:
    """Put the end back where the original stores 0 for it: the first of the trailing zeros."""
    word_ids = stored.clone()
    for row in word_ids:
        length = int(row.nonzero().max()) + 1
        row[length : length + 1] = end
    return word_ids


def spoken_part(word_ids: Tensor, end: int) -> Tensor:
    return (torch.cumsum(word_ids == end, 1) - (word_ids == end).long()) == 0


def published_reward(
    word_ids: Tensor,
    baseline: Tensor,
    references: list[list[list[int]]],
    *,
    start: int,
    end: int,
    weights: tuple[float, float] = (1.0, 0.0),
) -> np.ndarray:
    """Reward of drawn captions minus that of baseline captions, by the published conventions."""
    reward = CaptionReward(
        references,
        start=start,
        end=end,
        cider_weight=weights[0],
        bleu_weight=weights[1],
        frequencies="batch",
        end_token="references",
    )
    images = 2 * list(range(len(references)))
    scores = reward.score([*word_ids.tolist(), *baseline.tolist()], images)
    return scores[: len(references)] - scores[len(references) :]


def references_of(all_caps: Tensor, start: int, end: int) -> list[list[list[int]]]:
    return [
        [[word for word in row if word not in (0, start, end)] for row in image]
        for image in all_caps.tolist()
    ]


@pytest.mark.parametrize(("mode", "kind"), CASES)
def test_self_critical_training(mode: str, kind: str) -> None:
    model, case = Golden(f"lrp_ic/{kind}.npz"), Golden("lrp_ic/scst_rewards.npz")
    start, end = special(model)
    captioner, network = captioner_of(model)
    rows = case[f"{kind}/x_index"]
    features = live_features(model, network).select(rows)
    forced = case[f"{kind}/forced_ids"]
    steps = forced.shape[1]

    with torch.no_grad():
        memory = captioner.encode(features)
        options = {"start": start, "end": end, "steps": steps}
        baseline = roll_out(captioner, memory, argmax, **options)
        greedy = baseline.word_ids[:, 0]
        drawn = roll_out(captioner, memory, given(forced.unsqueeze(1)), **options).word_ids[:, 0]
    assert torch.equal(greedy.masked_fill(greedy == end, 0), case[f"{kind}/greedy"])
    spoken = spoken_part(greedy, end)
    equal(baseline.log_probs[:, 0][spoken], case[f"{kind}/greedy_logprobs"][spoken])
    assert torch.equal(drawn.masked_fill(drawn == end, 0), case[f"{kind}/{mode}_sample"])

    references = references_of(case[f"{kind}/all_caps"], start, end)
    for name, weights in {"reward": (1.0, 0.0), "reward_half_bleu": (0.5, 0.5)}.items():
        reward = published_reward(drawn, greedy, references, start=start, end=end, weights=weights)
        expected = case.arrays[f"{kind}/{mode}_{name}"]
        np.testing.assert_allclose(np.repeat(reward[:, None], steps, 1), expected, atol=1e-12)
        log_probs = MODES[mode](model)(captioner, features, drawn)
        loss = self_critical_loss(log_probs, drawn, torch.from_numpy(reward), end=end)
        equal(loss, case[f"{kind}/{mode}_loss{name.removeprefix('reward')}"])
        if name == "reward":
            spoken = spoken_part(drawn, end)
            equal(log_probs[spoken], case[f"{kind}/{mode}_logprobs"][spoken])
            loss.backward()
            gradients_agree(Joined(case, model), f"{kind}/grad_{mode}.", captioner, network)
            features = Features(features.cells.detach())


@pytest.mark.parametrize(("mode", "kind"), CASES)
def test_self_critical_loss_of_the_first_fixtures(mode: str, kind: str) -> None:
    golden = Golden(f"lrp_ic/{kind}.npz")
    start, end = special(golden)
    captioner, network = captioner_of(golden)
    features, expected = live_features(golden, network), golden[f"{mode}_logprobs"]
    drawn = with_end(golden[f"{mode}_sample"], end)
    log_probs = MODES[mode](golden)(captioner, features, drawn)
    padding = MODES[mode](golden)(captioner, features, drawn.masked_fill(drawn == end, 0))
    # The stored 0 is either the end or a drawn padding: only the log-probability tells.
    is_padding = (drawn == end) & ((padding - expected).abs() < (log_probs - expected).abs())
    drawn, log_probs = drawn.masked_fill(is_padding, 0), torch.where(is_padding, padding, log_probs)
    counted = torch.cat([drawn[:, :1] >= 0, (drawn[:, :-1] != 0) & (drawn[:, :-1] != end)], 1)
    equal(log_probs[counted], expected[counted])
    greedy = with_end(golden["scst_greedy"], end)
    references = references_of(golden["all_caps"], start, end)
    reward = published_reward(drawn, greedy, references, start=start, end=end)
    np.testing.assert_allclose(reward, golden.arrays[f"{mode}_reward"][:, 0], atol=1e-12)
    loss = self_critical_loss(log_probs, drawn, torch.from_numpy(reward), end=end)
    equal(loss, golden[f"{mode}_loss"])
    loss.backward()
    gradients_agree(golden, f"grad_{mode}.", captioner, network)


def test_the_reward_strings_of_the_fixture_are_those_of_the_ids() -> None:
    case = Golden("lrp_ic/scst_rewards.npz")
    for kind in KINDS:
        model = Golden(f"lrp_ic/{kind}.npz")
        start, end = special(model)
        words = {index: word for word, index in model.meta["word_map"].items()}
        found = [
            [" ".join(words[word] for word in reference) for reference in image]
            for image in references_of(case[f"{kind}/all_caps"], start, end)
        ]
        assert found == case.meta["info"][kind]["references"]


@pytest.mark.parametrize("kind", RELEVANCE_KINDS)
def test_greedy_sampling_with_relevance_weights(kind: str) -> None:
    """Every step says the likeliest word of the re-weighted logits; 0 is fed after the end."""
    golden = Golden(f"lrp_ic/{kind}.npz")
    start, end = special(golden)
    captioner, _ = captioner_of(golden)
    expected = golden["sample_lrp_greedy_ids"]
    memory = captioner.encode(features_of(golden))
    state = captioner.start(memory)
    fed = torch.full((len(expected), 1), start)
    alive = torch.ones(len(expected), dtype=torch.bool)
    for t in range(expected.shape[1]):
        with torch.no_grad():
            summands, state = captioner.step_summands(fed, state, memory)
            found = reweight(captioner, summands, neutral_words(golden))
        best, word = found.weighted[:, 0].log_softmax(-1).max(-1)
        equal(best[alive], golden["sample_lrp_greedy_logprobs"][alive, t])
        for name, weights in (("w_hidden", found.hidden), ("w_context", found.context)):
            equal(weights[alive, 0], golden[f"sample_lrp_greedy_{name}"][alive, t], 1e-4)
        alive = alive & (word != end)
        word = word.masked_fill(~alive, 0)
        assert torch.equal(word, expected[:, t])
        fed = word.unsqueeze(1)


def test_accuracies_divide_by_padded_positions(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    batch = batch_of(golden)
    with torch.no_grad():
        logits = captioner.readout(captioner.hidden(features_of(golden), batch.inputs).values)
    ranks = (logits > logits.gather(-1, batch.targets.unsqueeze(-1))).sum(-1)
    for best in (1, 5):
        right = ((ranks < best) & batch.valid).sum() / batch.valid.numel()
        assert 100 * float(right) == pytest.approx(float(golden.arrays[f"top{best}_acc"]))


def test_half_of_the_reward_can_be_bleu(golden: Golden) -> None:
    start, end = special(golden)
    drawn, greedy = (with_end(golden[f"scst_{name}"], end) for name in ("sample", "greedy"))
    references = references_of(golden["all_caps"], start, end)
    reward = published_reward(drawn, greedy, references, start=start, end=end, weights=(0.5, 0.5))
    expected = golden.arrays["scst_reward_half_bleu"][:, 0]
    np.testing.assert_allclose(reward, expected, atol=1e-12)
