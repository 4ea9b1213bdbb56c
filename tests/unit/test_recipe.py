"""What the recipe of a training says: optimiser, weight decay, order, limit, how losses count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_folders, tiny_params

from capscope.data.captions import open_captions
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.models import build
from capscope.params import merge
from capscope.training.loop import Recipe
from capscope.training.optimisers import OPTIMISERS, build_optimiser
from capscope.training.run import spread, train_run
from capscope.training.schedules import Schedule
from capscope.training.stages.stage import Corpus
from capscope.training.stages.xe import CrossEntropy
from capscope.training.state import Progress, load_state, save_state


@pytest.fixture(scope="module")
def params() -> Any:
    return tiny_params()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, params):
    return tiny_folders(tmp_path_factory.mktemp("tiny"), params)


@pytest.fixture(scope="module")
def corpus(folders) -> Corpus:
    vocabulary, captions = open_captions(folders["vocabulary"])
    rows = np.arange(7, 60)
    return Corpus(captions, rows, vocabulary, FeatureStore.open(folders["features"]))


def recipe(params: Any, **changes: Any) -> Recipe:
    return Recipe.split({**params["systems"]["gridtd"]["xe"], **changes})[0]


def stage_of(corpus: Corpus, **settings: Any) -> CrossEntropy:
    torch.manual_seed(0)
    sizes = {"vocabulary_size": len(corpus.vocabulary), "feature_size": 7}
    captioner = build("lstm", **sizes, embedding=6, hidden=8)
    return CrossEntropy(captioner, corpus, {"scheduled_sampling": 0.0, **settings})


@pytest.fixture
def captioner():
    return build("attention_lstm", vocabulary_size=9, feature_size=4, embedding=5, hidden=6)


def test_what_the_parameters_leave_out_is_plain_adam(params, captioner):
    found = build_optimiser(captioner, recipe(params))
    assert type(found) is torch.optim.Adam
    assert found.param_groups[0]["weight_decay"] == 0


def test_weight_decay_leaves_biases_and_word_vectors_alone_unless_all_are_to_decay(
    params, captioner
):
    names = {id(parameter): name for name, parameter in captioner.named_parameters()}

    def decayed(**changes):
        settings = {"optimiser": "adamw", "weight_decay": 0.1, **changes}
        found = build_optimiser(captioner, recipe(params, **settings))
        assert isinstance(found, torch.optim.AdamW)
        groups = {group["weight_decay"]: group["params"] for group in found.param_groups}
        assert sum(map(len, groups.values())) == len(names)
        return {names[id(parameter)] for parameter in groups[0.1]}

    weights = {"projection.weight", "words.weight", "cell.weight_ih", "cell.weight_hh"}
    assert decayed() == weights
    assert decayed(decayed="all") == set(names.values())


def test_parameters_that_are_frozen_are_not_optimised(params, captioner):
    captioner.projection.requires_grad_(False)
    (group,) = build_optimiser(captioner, recipe(params)).param_groups
    assert len(group["params"]) == len(list(captioner.parameters())) - 2


def test_the_rate_is_multiplied_after_each_epoch():
    schedule = Schedule("step", 0.5, 12, epochs=3, decay=0.1)
    rates = [schedule.at(step) for step in range(12)]
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 4 + [0.005] * 4)


def test_references_in_the_given_order_are_the_same_slices_in_every_epoch(corpus):
    stage = stage_of(corpus, order="given")
    batches = stage.batches(8, seed=1, epoch=0)
    assert np.array_equal(np.concatenate(batches), corpus.rows)
    again = stage.batches(8, seed=2, epoch=5)
    assert all(np.array_equal(*pair) for pair in zip(batches, again, strict=True))
    assert [len(batch) for batch in batches] == [8] * 6 + [5]
    dropped = stage_of(corpus, order="given", last_batch="drop").batches(8, seed=1, epoch=0)
    assert np.array_equal(np.concatenate(dropped), corpus.rows[:48])


def test_shuffled_references_can_drop_the_last_batch_too(corpus):
    batches = stage_of(corpus, last_batch="drop").batches(8, seed=1, epoch=0)
    assert {len(batch) for batch in batches} == {8}
    assert len(np.unique(np.concatenate(batches))) == 48


def test_dropping_everything_is_an_error(corpus):
    with pytest.raises(CapscopeError, match="53 references do not fill a batch of 54"):
        stage_of(corpus, last_batch="drop").batches(54, seed=1, epoch=0)


def test_a_loss_per_caption_is_the_sum_over_its_words(corpus):
    rows = corpus.rows[:6]
    word, caption = (stage_of(corpus, per=per).step(rows) for per in ("word", "caption"))
    words = int(corpus.captions.lengths[rows].sum()) + 6
    assert (word.weight, caption.weight) == (words, 6)
    torch.testing.assert_close(caption.loss, word.loss * words / 6)


def test_a_limit_takes_references_from_the_first_to_the_last():
    rows = np.arange(10, 20)
    assert spread(rows, None) is rows
    assert spread(rows, 10) is rows
    assert spread(rows, 4).tolist() == [10, 13, 16, 19]
    assert spread(rows, 1).tolist() == [10]


@pytest.mark.parametrize(
    ("captioner", "visual"),
    [("rnn", "mean"), ("rnn", "flatten"), ("lstm", "flatten"), ("attention_lstm", None)],
)
@pytest.mark.slow
def test_a_recurrent_captioner_learns_a_few_references_by_heart(
    captioner, visual, folders, params, tmp_path
):
    """The overfitting check of the course: loss falls to almost nothing on a small part."""
    model = {"embedding": 12, "hidden": 24, **({} if visual is None else {"visual": visual})}
    settings = {
        **params["systems"]["gridtd"]["xe"],
        **{"epochs": 60, "patience": 60, "limit": 12, "batch_size": 12, "learning_rate": 0.02},
        **{"schedule": "step", "decay": 0.98, "clip_value": None, "per": "caption"},
        **{"optimiser": "adamw", "weight_decay": 0.01, "order": "given", "last_batch": "drop"},
    }
    system = {**params["systems"]["gridtd"], "captioner": captioner, "model": model}
    given = merge(params, {"systems": {"gridtd": {"xe": settings}}})
    given = {**given, "systems": {"gridtd": {**system, "xe": settings}}}
    arguments = [folders["data"], folders["vocabulary"], folders["features"], given]
    train_run(tmp_path / "run", *arguments, system="gridtd", stage="xe", seed=1)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    losses = [float(line.split(",")[4]) for line in lines if ",train,loss," in line]
    assert len(losses) == 60
    assert losses[-1] < 0.1 * losses[0]


def test_all_optimisers_step_as_their_equations_say(params, captioner):
    """One parameter, three steps, against what the papers write."""
    rate, first, second, small = 0.1, 0.6, 0.7, 1e-3
    gradients = [torch.tensor([0.5, -2.0]), torch.tensor([0.3, 0.1]), torch.tensor([-1.0, 0.4])]

    def walked(update) -> torch.Tensor:
        x, memory = torch.tensor([1.0, -1.0]), [torch.zeros(2), torch.zeros(2)]
        for t, gradient in enumerate(gradients, 1):
            x = update(x, gradient, memory, t)
        return x

    def momentum(x, g, m, t):
        m[0] = g if t == 1 else first * m[0] + g
        return x - rate * m[0]

    def nesterov(x, g, m, t):
        m[0] = g if t == 1 else first * m[0] + g
        return x - rate * (g + first * m[0])

    def adagrad(x, g, m, t):
        m[0] = m[0] + g**2
        return x - rate * g / (m[0].sqrt() + 1e-10)

    def rmsprop(x, g, m, t):
        m[0] = first * m[0] + (1 - first) * g**2
        return x - rate * g / (m[0].sqrt() + small)

    def adam(x, g, m, t):
        m[0], m[1] = first * m[0] + (1 - first) * g, second * m[1] + (1 - second) * g**2
        return x - rate * m[0] / (1 - first**t) / ((m[1] / (1 - second**t)).sqrt() + small)

    equations = {
        "sgd": lambda x, g, m, t: x - rate * g,
        "momentum": momentum,
        "nesterov": nesterov,
        "adagrad": adagrad,
        "rmsprop": rmsprop,
        "adam": adam,
        "adamw": lambda x, g, m, t: adam(x * (1 - rate * 0.1), g, m, t),
    }
    assert set(equations) == set(OPTIMISERS)
    for name, update in equations.items():
        part = torch.nn.Linear(1, 2, bias=False)
        part.weight.data = torch.tensor([[1.0], [-1.0]])
        settings = {"optimiser": name, "learning_rate": rate, "betas": (first, second)}
        decay = 0.1 if name == "adamw" else 0.0
        chosen = recipe(params, **settings, epsilon=small, weight_decay=decay)
        optimiser = build_optimiser(part, chosen)
        for gradient in gradients:
            part.weight.grad = gradient.unsqueeze(1)
            optimiser.step()
        torch.testing.assert_close(part.weight.detach()[:, 0], walked(update), msg=name)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_state_of_every_optimiser_comes_back_to_the_bit(params, captioner, tmp_path, name):
    def trained(model, optimiser, steps):
        for step in steps:
            torch.manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimiser.step()

    chosen = recipe(params, optimiser=name)
    optimiser = build_optimiser(captioner, chosen)
    trained(captioner, optimiser, range(2))
    save_state(tmp_path, captioner, optimiser, Progress("key", Schedule("constant", 0.1, 9)))
    again = build("attention_lstm", vocabulary_size=9, feature_size=4, embedding=5, hidden=6)
    resumed = build_optimiser(again, chosen)
    assert load_state(tmp_path, again, resumed, "key")
    for model, stepper in ((captioner, optimiser), (again, resumed)):
        trained(model, stepper, range(2, 4))
    for ours, theirs in zip(again.parameters(), captioner.parameters(), strict=True):
        assert torch.equal(ours, theirs)
