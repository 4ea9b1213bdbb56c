"""LRP of DIFNet's decoder, and the rules alone, against the values of the original program."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from difnet_captioners import LRP, captioner, close, features, load
from image_networks import Golden
from torch import Tensor, nn

from capscope.relevance import alpha_beta_reference as reference
from capscope.relevance.alpha_beta import (
    AlphaBeta,
    AttentionPass,
    Matrix,
    Rows,
    add,
    by_head,
    clone,
)
from capscope.relevance.recursion_difnet import DIFNetLRP, DualFlowRelevance

EXACT = AlphaBeta(carried=torch.float64)
IDENTITIES = {"layer_norm", "lnorm", "dropout", "softmax", "relu"}
RULES = "lrp_rules_and_stats.npz"


def explained(golden: Golden, rules: AlphaBeta = EXACT, **options: bool) -> DualFlowRelevance:
    lrp = DIFNetLRP(captioner(golden), rules, **options)
    return lrp.explain(features(golden), golden["in/caption"], to_inputs=False)


@pytest.mark.parametrize("name", LRP)
def test_relevance_of_the_decoder_is_the_originals_in_double_precision(name: str) -> None:
    golden = load(name)
    model, found = captioner(golden), explained(golden)
    log_probs = model.readout(model.hidden(features(golden), golden["in/caption"]).values)
    torch.testing.assert_close(log_probs.log_softmax(-1), golden["lrp/logp"], rtol=0, atol=2e-5)
    assert torch.equal(found.ids, golden["lrp/top1_ids"])
    close(found.encoded[0], golden["lrp64/enc_out"], 1e-6)
    close(found.embedded[0], golden["lrp64/emb_out"], 1e-6)
    total = found.encoded.sum((2, 3)) + found.embedded.sum((2, 3))
    torch.testing.assert_close(total, torch.ones_like(total))
    for t in range(total.shape[1]):
        assert not found.embedded[0, t, t + 1 :].any()


@pytest.mark.parametrize("name", LRP)
def test_relevance_is_near_the_originals_single_precision_at_every_layer(name: str) -> None:
    golden = load(name)
    found = explained(golden, AlphaBeta())
    expected: dict[str, Tensor] = {
        "lrp/inp_lrp": found.encoded[0].sum(-1),
        "lrp/out_lrp": found.embedded[0].abs().sum(-1),
        "lrp/enc_out": found.encoded[0],
        "lrp/emb_out": found.embedded[0],
        "lrp/layer_R_enc": torch.stack([one[0] for one in found.layers], 1),
        "lrp/layer_R_tokens": torch.stack([one[0] for one in found.words], 1),
        "lrp/layer_R_in": torch.stack([one[0] for one in (*found.words[1:], found.last)], 1),
    }
    for key, value in expected.items():
        for t, (ours, theirs) in enumerate(zip(value, golden[key], strict=True)):
            close(ours, theirs, 5e-2, f"{key} of word {t}")


@pytest.mark.parametrize("name", LRP)
def test_alpha_2_and_the_rescaled_variant_are_the_originals(name: str) -> None:
    golden = load(name)
    t = golden.meta["trace_position"]
    found = explained(golden, AlphaBeta(2.0, carried=torch.float64))
    close(found.encoded[0, t], golden["lrp_alpha2/enc_out"], 5e-2)
    close(found.embedded[0, t], golden["lrp_alpha2/emb_out"], 5e-2)
    if "lrp_altdec/enc_out" in golden:
        close(explained(golden, rescaled=True).encoded[0], golden["lrp_altdec/enc_out"], 5e-2)


@pytest.mark.parametrize("name", LRP)
def test_relevance_below_the_base_encoder_is_that_of_the_originals_unused_rule(name: str) -> None:
    """Published for base alone; of difnet it is what arrives at the encoder's output."""
    golden = load(name)
    t, expected = golden.meta["trace_position"], golden["lrp_enc/emb_inp"]
    lrp = DIFNetLRP(captioner(golden), EXACT)
    found = lrp.explain(features(golden), golden["in/caption"], to_inputs=False)
    if "w/embed_pixel.1.weight" in golden:
        close(found.encoded[0, t], expected, 5e-2)
        return
    rows = Rows.all(1, expected.shape[0])
    cells, _ = lrp.below_encoder(lrp.encode(features(golden)), found.encoded[:, t], rows)
    close(cells[0].detach(), expected, 5e-2)


@pytest.mark.parametrize("name", LRP)
def test_the_loop_over_words_gives_the_same(name: str) -> None:
    golden = load(name)
    model = deepcopy(captioner(golden)).double()
    encoded, embedded = reference.explain_by_loop(
        model, features(golden, torch.float64), golden["in/caption"]
    )
    close(encoded[0], golden["lrp64/enc_out"], 1e-6)
    close(embedded[0], golden["lrp64/emb_out"], 1e-6)


@pytest.mark.parametrize("name", LRP)
def test_every_part_of_the_last_layer_passes_on_what_the_original_passes_on(name: str) -> None:
    golden = load(name)
    t, inputs = golden.meta["trace_position"], golden["in/caption"]
    lrp = DIFNetLRP(captioner(golden), EXACT)
    with torch.no_grad():
        passes = lrp.decode(lrp.encode(features(golden)), inputs)
        layer, count = passes[-1], inputs.shape[1]
        rows, below = Rows.own(count), Rows.before(count)
        cells = Rows.all(count, golden["in/grid"].shape[1])

        def check(key: str, found: Tensor, where: Rows = rows) -> Tensor:
            name = f"trace/decoder.{key}"
            close(where.dense(found)[0, t], golden[name][0], 5e-2, name)
            return found

        def heads(key: str, found: Tensor) -> None:
            """The trace is of the matrix product's rule, before its relevance is halved."""
            expected = golden[f"trace/decoder.{key}"][0].transpose(0, 1).flatten(1)
            close(2 * found[0, t], expected, 5e-2, key)

        seed = torch.nn.functional.one_hot(golden["lrp/top1_ids"][0, t], golden.meta["V"])
        assert torch.equal(golden["trace/decoder.fc/in"][0, t], seed.float())
        r = check("fc/out0", lrp.seed(layer.y, golden["lrp/top1_ids"]))
        part = f"layers.{len(passes) - 1}"
        feed = layer.feed
        own, found = add((feed.x, feed.outer.y), check(f"{part}.pwff/in", r), rows)
        check(f"{part}.pwff.add1/out0", own)
        check(f"{part}.pwff.add1/out1", found)
        inner = check(f"{part}.pwff.fc2/out0", feed.outer.back(found, rows))
        check(f"{part}.pwff.fc1/out0", feed.inner.back(inner, rows))
        r = check(f"{part}.pwff.clone1/out0", feed.back(r, rows))
        for place, block, x, after, read in (
            ("enc_att", layer.cross, layer.middle, 2, cells),
            ("self_att", layer.own, layer.x, 1, below),
        ):
            skipped, arrived = add((x, block.y), r, rows)
            check(f"{part}.add{after}/out0", skipped)
            check(f"{part}.{place}/in", check(f"{part}.add{after}/out1", arrived))
            own, found = add((block.x, block.output.y), arrived, rows)
            check(f"{part}.{place}.add/out0", own)
            check(f"{part}.{place}.add/out1", found)
            sums = check(f"{part}.{place}.attention.fc_o/out0", block.output.back(found, rows))
            attended = block.attention.back(sums, rows)
            check(f"{part}.{place}.attention.fc_q/in", attended.query)
            heads(f"{part}.{place}.attention.matmul1/out1", attended.keys)
            heads(f"{part}.{place}.attention.matmul2/out1", attended.values)
            weights, query = (
                attended.weights[0, :, t],
                by_head(attended.query, block.attention.heads),
            )
            for module, factor in (("matmul2/out0", 2), ("softmax/in", 1), ("matmul1/in", 1)):
                key = f"trace/decoder.{part}.{place}.attention.{module}"
                close(factor * weights, golden[key][0, :, t], 5e-2, key)
            key = f"trace/decoder.{part}.{place}.attention.matmul1/out0"
            close(2 * query[0, :, t], golden[key][0, :, t], 5e-2, key)
            check(f"{part}.{place}.attention.fc_q/out0", block.query.back(attended.query, rows))
            for one, fed in (("keys", "k"), ("values", "v")):
                listed = read.listed(getattr(attended, one))
                check(f"{part}.{place}.attention.fc_{fed}/in", listed, read)
                back = getattr(block, one).back(listed, read)
                check(f"{part}.{place}.attention.fc_{fed}/out0", back, read)
            query, _ = block.back(arrived, rows, read)
            check(f"{part}.{place}/out0", query)
            if place == "enc_att":
                r = check(f"{part}.clone2/out0", clone(x, skipped + query, rows))
        r, _, encoder = layer.back(lrp.seed(layer.y, golden["lrp/top1_ids"]), rows)
        check(f"{part}/out0", r, below)
        check(f"{part}/out1", cells.listed(encoder), cells)


def test_the_linear_rule_is_the_originals_and_its_twins() -> None:
    golden = load(RULES)
    x, weight, r = (golden[f"rule/linear/{key}"] for key in ("x", "W", "R"))
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": golden["rule/linear/b"]})
    rows = Rows.all(1, x.shape[1])
    for alpha in (1, 2):
        expected = golden[f"rule/linear/R_in_alpha{alpha}"]
        rules = AlphaBeta(alpha, carried=torch.float64)
        found = Matrix(layer, rules)(x.double()).back(r.double(), rows)
        close(found, expected, 1e-5)
        close(reference.linear(x, weight, r, alpha), expected, 1e-5)
    positive = x.abs().double()
    one, other = (
        Matrix(layer, EXACT)(positive, sign).back(r.double(), rows) for sign in (True, False)
    )
    torch.testing.assert_close(one, other)


def test_the_rules_of_sums_and_copies_are_the_originals_and_their_twins() -> None:
    golden = load(RULES)
    a, b, r = (golden[f"rule/add/{key}"] for key in ("a", "b", "R"))
    rows = Rows.all(1, a.shape[1])
    ours, twins = add((a, b), r, rows, "batch"), reference.add(a, b, r)
    for key, found, twin in zip(("Ra", "Rb"), ours, twins, strict=True):
        close(found, golden[f"rule/add/{key}"], 1e-5)
        close(twin, golden[f"rule/add/{key}"], 1e-5)
    x, uses = golden["rule/clone/x"], golden["rule/clone/R"]
    rows = Rows.all(1, x.shape[-1])
    close(
        clone(x.unsqueeze(-1), uses.sum(0).unsqueeze(-1), rows).squeeze(-1),
        golden["rule/clone/R_in"],
        1e-5,
    )
    close(reference.clone(x, *uses), golden["rule/clone/R_in"], 1e-5)


def test_sums_over_a_sample_do_not_depend_on_its_neighbours() -> None:
    golden = load(RULES)
    a, b, r = (golden[f"rule/add/{key}"] for key in ("a", "b", "R"))
    rows = Rows.all(1, a.shape[1])
    together = add((a, b), r, rows)
    for i in range(len(a)):
        alone = reference.add(a[i : i + 1], b[i : i + 1], r[i : i + 1])
        for found, twin in zip(together, alone, strict=True):
            close(found[i : i + 1], twin, 1e-5)


def test_the_rules_of_matrix_products_are_the_originals() -> None:
    golden = load(RULES)
    for kind, (left, right), multiply in (
        ("matmul2", ("A", "V"), torch.matmul),
        ("matmul1", ("Q", "K"), lambda q, k: q @ k.transpose(-2, -1)),
    ):
        factors = [golden[f"rule/{kind}/{key}"] for key in (left, right)]
        found = reference.product(multiply, *factors, golden[f"rule/{kind}/R"])
        for key, one in zip((left, right), found, strict=True):
            close(2 * one, golden[f"rule/{kind}/R{key}_before_half"], 1e-4)


def test_attention_in_closed_form_is_its_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v, r = (
        torch.randn(2, size, 8, generator=generator, dtype=torch.float64) for size in (5, 7, 7, 5)
    )
    forward = AttentionPass(q, k, v, 2, None, torch.float64)
    found = forward.back(r, Rows.all(1, 5))
    heads = [x.unflatten(-1, (2, -1)).transpose(1, 2) for x in (q, k, v, r)]
    weights = (heads[0] @ heads[1].transpose(2, 3) / 4**0.5).softmax(-1)
    to_weights, to_v = reference.product(torch.matmul, weights, heads[2], heads[3])
    to_q, to_k = reference.product(
        lambda a, b: a @ b.transpose(2, 3), heads[0], heads[1], to_weights
    )
    for ours, twin in ((found.query, to_q), (found.keys[:, 0], to_k), (found.values[:, 0], to_v)):
        close(ours, twin.transpose(1, 2).flatten(2), 1e-9)


def test_division_is_the_originals() -> None:
    golden = load(RULES)
    a, b = golden["rule/safe_divide/a"], golden["rule/safe_divide/b"]
    torch.testing.assert_close(reference.divide(a, b), golden["rule/safe_divide/out"])


@pytest.mark.parametrize("name", LRP)
def test_parts_of_the_trace_that_are_not_compared_hold_nothing_of_their_own(name: str) -> None:
    """Normalisation, dropout, softmax, rectifier and masks let relevance pass as it is."""
    golden = load(name)
    for key in golden.keys("trace/"):
        module, _, place = key.rpartition("/")
        if place == "out0" and module.split(".")[-1].rstrip("_12") in IDENTITIES:
            passed, given = golden[f"trace/{key}"], golden[f"trace/{module}/in"]
            assert torch.equal(passed, given), key
