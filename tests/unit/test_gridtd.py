"""gridTD keeps the captioner protocol; padding, parity and bad checkpoints."""

import pytest
import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.importers.lrp_ic import from_original
from capscope.models import build
from capscope.models.captioner import select_rows
from capscope.models.gridtd import GridTD

VARIANTS = ["features", "projected"]


def gridtd(**changes: object) -> GridTD:
    torch.manual_seed(0)
    config = {
        "vocabulary_size": 11,
        "feature_size": 7,
        "embedding": 4,
        "hidden": 5,
        "attention": 3,
        **changes,
    }
    model = build("gridtd", **config).eval()
    assert isinstance(model, GridTD)
    return model


def batch(cells: int = 6) -> tuple[Features, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = Features(torch.randn(3, cells, 7, generator=generator))
    return features, torch.randint(0, 11, (3, 5), generator=generator)


@pytest.mark.parametrize("global_from", VARIANTS)
def test_steps_equal_the_teacher_forced_pass(global_from: str) -> None:
    model = gridtd(global_from=global_from)
    features, word_ids = batch()
    hidden = model.hidden(features, word_ids)
    expected = model.readout(hidden.values).log_softmax(-1)
    memory = model.encode(features)
    state = model.start(memory)
    for t in range(word_ids.shape[1]):
        step = model.step(word_ids[:, t : t + 1], state, memory)
        state = step.state
        torch.testing.assert_close(step.log_probs[:, 0], expected[:, t])
        torch.testing.assert_close(step.attention[:, 0], hidden.attention[:, t])


def test_rows_of_an_image_are_independent_and_can_be_reordered() -> None:
    model = gridtd()
    features, word_ids = batch()
    memory = model.encode(features)
    beams = model.step(word_ids[:, :4], model.start(memory, rows=4), memory)
    for row in range(4):
        alone = model.step(word_ids[:, row : row + 1], model.start(memory), memory)
        torch.testing.assert_close(beams.log_probs[:, row], alone.log_probs[:, 0])
    order = torch.tensor([[2, 2], [0, 3], [1, 0]])
    chosen = select_rows(beams.state, order)
    for name, tensor in chosen.items():
        assert torch.equal(tensor[1, 1], beams.state[name][1, 3])
        assert tensor.shape[:2] == (3, 2)


def test_selected_logits_equal_rows_of_all_logits() -> None:
    model = gridtd()
    features, word_ids = batch()
    values = model.hidden(features, word_ids).values
    expected = model.readout(values).gather(2, word_ids.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(model.readout(values, word_ids), expected)


@pytest.mark.parametrize("global_from", VARIANTS)
def test_padded_regions_change_nothing(global_from: str) -> None:
    model = gridtd(global_from=global_from)
    features, word_ids = batch()
    padding = torch.full((3, 2, 7), 9.0)
    padded = Features(
        torch.cat([features.cells, padding], 1), valid=(torch.arange(8) < 6).expand(3, 8)
    )
    plain = model.hidden(features, word_ids)
    found = model.hidden(padded, word_ids)
    torch.testing.assert_close(found.values, plain.values)
    torch.testing.assert_close(found.attention[..., :6], plain.attention)
    assert not found.attention[..., 6:].any()


def test_under_parity_padded_regions_take_part() -> None:
    model = gridtd(parity=True, attention=6, global_from="projected")
    features, word_ids = batch()
    valid = (torch.arange(6) < 4).expand(3, 6)
    plain = model.hidden(features, word_ids)
    assert torch.equal(model.hidden(features._replace(valid=valid), word_ids).values, plain.values)


def test_parity_broadcasts_a_scalar_and_needs_the_published_width() -> None:
    right, parity = gridtd(attention=6), gridtd(attention=6, parity=True)
    features, word_ids = batch()
    parity.load_state_dict(right.state_dict())
    first = right.hidden(features, word_ids).attention
    assert (first - parity.hidden(features, word_ids).attention).abs().max() > 1e-4
    with pytest.raises(CapscopeError, match=r"5 visual features.*width \(6\)"):
        parity.encode(batch(cells=5)[0])


def test_dropout_works_in_training_only() -> None:
    model = gridtd()
    features, word_ids = batch()
    assert torch.equal(
        model.hidden(features, word_ids).values, model.hidden(features, word_ids).values
    )
    model.train()
    assert (model.hidden(features, word_ids).values == 0).float().mean() > 0.2


def test_all_parameters_learn() -> None:
    model = gridtd().train()
    features, word_ids = batch()
    model.readout(model.hidden(features, word_ids).values).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_checkpoint_of_something_else_is_refused() -> None:
    with pytest.raises(CapscopeError, match=r"no checkpoint of gridtd.*img_projector\.weight"):
        from_original("gridtd", {"fc.weight": torch.zeros(2, 2)})


def test_an_unknown_source_of_the_global_feature_is_refused() -> None:
    with pytest.raises(CapscopeError, match=r"'cells'; allowed: features, projected"):
        gridtd(global_from="cells")
