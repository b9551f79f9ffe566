"""The exercises of notebook 08: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import math

import pytest
import torch
from answers import assert_diagnosed, assert_passes, named

from rmat_tutorial import full_attention, hybrid_attention
from rmat_tutorial.exercises import EXERCISES
from rmat_tutorial.kernels import parts

MERGE, BACK = "08.merge", "08.score_gradient"


pytestmark = pytest.mark.usefixtures("own_home")


# Merging ---------------------------------------------------------------------------------------------------------


def shares(log_sums):
    peak = log_sums.max(dim=0).values
    exps = torch.exp(log_sums - peak)
    return exps / exps.sum(dim=0)


def merge_by_hand(outputs, log_sums):
    return torch.einsum("pl,pld->ld", shares(log_sums), outputs)


def merge_by_log_sum_exp(outputs, log_sums):
    return (torch.exp(log_sums - log_sums.logsumexp(0)).unsqueeze(-1) * outputs).sum(0)


def merge_by_accumulators(outputs, log_sums):
    peak = log_sums.amax(0)
    total, acc = torch.zeros_like(peak), torch.zeros_like(outputs[0])
    for output, log_sum in zip(outputs, log_sums, strict=True):
        total = total + torch.exp(log_sum - peak)
        acc = acc + torch.exp(log_sum - peak)[:, None] * output
    return acc / total[:, None]


def merge_running(outputs, log_sums):
    merged, log_sum = outputs[0], log_sums[0].clamp(min=-1e30)
    for output, other in zip(outputs[1:], log_sums[1:], strict=True):
        both = torch.logaddexp(log_sum, other.clamp(min=-1e30))
        merged = merged * (log_sum - both).exp()[:, None] + output * (other - both).exp()[:, None]
        log_sum = both
    return merged


def merge_row_by_row(outputs, log_sums):
    return torch.stack([log_sums[:, i].softmax(0) @ outputs[:, i] for i in range(log_sums.shape[1])])


def merge_mean(outputs, log_sums):
    return sum(outputs) / len(outputs)


def merge_sum(outputs, log_sums):
    return torch.einsum("pld->ld", outputs)


def merge_overflows(outputs, log_sums):
    exps = torch.exp(log_sums)[:, :, None]
    return (exps * outputs).sum(0) / exps.sum(0)


def merge_overflows_in_the_shares(outputs, log_sums):
    exps = log_sums.exp()
    return torch.einsum("pl,pld->ld", exps / exps.sum(0, keepdim=True), outputs)


def merge_unnormalised(outputs, log_sums):
    return torch.einsum("pl,pld->ld", (log_sums - log_sums.max(0).values).exp(), outputs)


def merge_with_exps(outputs, log_sums):
    return torch.einsum("pl,pld->ld", log_sums.exp(), outputs)


def merge_in_proportion(outputs, log_sums):
    return torch.einsum("pl,pld->ld", log_sums / log_sums.sum(0), outputs)


def merge_with_logarithms(outputs, log_sums):
    return (outputs * log_sums.unsqueeze(2)).sum(0)


def merge_largest(outputs, log_sums):
    best = log_sums.argmax(0)
    return torch.stack([outputs[best[i], i] for i in range(len(best))])


def merge_base_two(outputs, log_sums):
    exps = torch.exp2(log_sums - log_sums.amax(0))
    return torch.einsum("pl,pld->ld", exps / exps.sum(0), outputs)


def merge_from_base_two(outputs, log_sums):
    return merge_by_hand(outputs, log_sums * math.log2(math.e))


def merge_upside_down(outputs, log_sums):
    return torch.einsum("pl,pld->ld", torch.softmax(log_sums.neg(), 0), outputs)


def merge_over_rows(outputs, log_sums):
    return torch.einsum("pl,pld->ld", torch.softmax(log_sums, -1), outputs)


def merge_over_everything(outputs, log_sums):
    exps = (log_sums - log_sums.max()).exp()
    return torch.einsum("pl,pld->ld", exps / exps.sum(), outputs)


def merge_divided_again(outputs, log_sums):
    return (torch.softmax(log_sums, 0)[..., None] * outputs).mean(0)


def merge_log_softmax(outputs, log_sums):
    return (torch.log_softmax(log_sums, 0)[..., None] * outputs).sum(0)


def merge_sigmoid(outputs, log_sums):
    return (torch.sigmoid(log_sums)[..., None] * outputs).sum(0)


def merge_twice(outputs, log_sums):
    return merge_by_hand(outputs, shares(log_sums))


def merge_not_normalised_parts(outputs, log_sums):
    return sum(outputs) / torch.exp(log_sums).sum(0).unsqueeze(-1)


def merge_reversed(outputs, log_sums):
    return merge_by_hand(outputs.flip(0), log_sums)


def merge_not_added(outputs, log_sums):
    return outputs * shares(log_sums)[:, :, None]


def merge_last_only(outputs, log_sums):
    for output, share in zip(outputs, shares(log_sums), strict=True):
        result = share[:, None] * output
    return result


def merge_meets_features(outputs, log_sums):
    return sum(output * share for output, share in zip(outputs, shares(log_sums), strict=True))


def merge_from_empty(outputs, log_sums):
    peak = torch.full_like(log_sums[0], -math.inf)
    total, acc = torch.zeros_like(peak), torch.zeros_like(outputs[0])
    for output, log_sum in zip(outputs, log_sums, strict=True):
        new = torch.maximum(peak, log_sum)
        total = total * (peak - new).exp() + (log_sum - new).exp()
        acc = acc * (peak - new).exp()[:, None] + (log_sum - new).exp()[:, None] * output
        peak = new
    return acc / total[:, None]


def merge_pairwise_from_the_first(outputs, log_sums):
    merged, log_sum = outputs[0], log_sums[0]
    for p in range(1, len(outputs)):
        both = torch.stack([log_sum, log_sums[p]]).logsumexp(0)
        merged = (log_sum - both).exp()[:, None] * merged + (log_sums[p] - both).exp()[:, None] * outputs[p]
        log_sum = both
    return merged


def merge_beyond_the_parts(outputs, log_sums):
    return merge_by_hand(outputs, log_sums) + 40.0


def merge_first_two(outputs, log_sums):
    return merge_by_hand(outputs[:2], log_sums[:2].clamp(min=-1e30))


def merge_detached(outputs, log_sums):
    return merge_by_hand(outputs, log_sums).detach()


def merge_without_the_way_to_the_shares(outputs, log_sums):
    return torch.einsum("pl,pld->ld", shares(log_sums).detach(), outputs)


# Back to the scores ----------------------------------------------------------------------------------------------


def back_by_paths(shares, weights, d_out, v):
    d_shares, d_scores = torch.einsum("ld,sd->ls", d_out, v), 0
    for path, weight in zip(shares, weights, strict=True):
        d_scores = d_scores + weight * path * (d_shares - (path * d_shares).sum(-1, keepdim=True))
    return d_scores


def back_by_outputs(shares, weights, d_out, v):
    """D_p from the output of each path."""
    means = torch.einsum("ld,pld->pl", d_out, shares @ v)
    return torch.einsum("p,pls->ls", weights, shares * (d_out @ v.T - means.unsqueeze(-1)))


def back_by_gain_and_pull(shares, weights, d_out, v):
    """As the kernel does it."""
    product = shares * (d_out @ v.T)
    pull = weights[:, None] * product.sum(-1)
    return (product * weights[:, None, None] - shares * pull[..., None]).sum(0)


def back_by_autograd(shares, weights, d_out, v):
    scores = torch.zeros_like(shares[0], requires_grad=True)
    mixed = torch.einsum("p,pls->ls", weights, (shares.log() + scores).softmax(-1))
    return torch.autograd.grad(mixed @ v, scores, d_out)[0]


def dot(d_out, v):
    return torch.einsum("ld,sd->ls", d_out, v)


def back_without_mean(shares, weights, d_out, v):
    return torch.einsum("p,pls,ls->ls", weights, shares, dot(d_out, v))


def back_one_mean(shares, weights, d_out, v):
    out = torch.einsum("p,pls,sd->ld", weights, shares, v)
    mean = (d_out * out).sum(-1, keepdim=True)
    return torch.einsum("p,pls->ls", weights, shares * (dot(d_out, v) - mean))


def back_without_weights(shares, weights, d_out, v):
    return back_by_paths(shares, torch.ones_like(weights), d_out, v)


def back_weighted_twice(shares, weights, d_out, v):
    d_shares = weights[:, None, None] * dot(d_out, v)
    return (weights[:, None, None] * shares * (d_shares - (shares * d_shares).sum(-1, keepdim=True))).sum(0)


def back_mean_unweighted(shares, weights, d_out, v):
    product = shares * dot(d_out, v)
    return (weights[:, None, None] * product - shares * product.sum(-1, keepdim=True)).sum(0)


def back_mean_added(shares, weights, d_out, v):
    product = shares * dot(d_out, v)
    return (weights[:, None, None] * (product + shares * product.sum(-1, keepdim=True))).sum(0)


def back_upside_down(shares, weights, d_out, v):
    product = shares * dot(d_out, v)
    return (weights[:, None, None] * (shares * product.sum(-1, keepdim=True) - product)).sum(0)


def back_shares_forgotten(shares, weights, d_out, v):
    means = (shares * dot(d_out, v)).sum(-1, keepdim=True)
    return (weights[:, None, None] * (dot(d_out, v) - means)).sum(0)


def back_mean_without_share(shares, weights, d_out, v):
    product = shares * dot(d_out, v)
    return (weights[:, None, None] * (product - product.sum(-1, keepdim=True))).sum(0)


def back_mean_of_keys(shares, weights, d_out, v):
    product = shares * dot(d_out, v)
    return (weights[:, None, None] * (product - shares * product.mean(-1, keepdim=True))).sum(0)


def back_sum_of_keys(shares, weights, d_out, v):
    d_shares = dot(d_out, v)
    return (weights[:, None, None] * shares * (d_shares - d_shares.sum(-1)[:, None])).sum(0)


def back_over_queries(shares, weights, d_out, v):
    product = shares * dot(d_out, v)
    return (weights[:, None, None] * (product - shares * product.sum(1, keepdim=True))).sum(0)


def back_meets_keys(shares, weights, d_out, v):
    d_shares = dot(d_out, v)
    means = torch.einsum("pls,ls->pl", shares, d_shares)
    return sum(w * p * (d_shares - mean) for w, p, mean in zip(weights, shares, means, strict=True))


def back_diagonal(shares, weights, d_out, v):
    return torch.einsum("p,pls,ls->ls", weights, shares - shares**2, dot(d_out, v))


def back_scaled(shares, weights, d_out, v):
    return back_by_paths(shares, weights, d_out, v) * d_out.shape[1] ** -0.5


def back_of_shares(shares, weights, d_out, v):
    return dot(d_out, v)


def back_not_added(shares, weights, d_out, v):
    return torch.stack([back_by_paths(p[None], w[None], d_out, v) for p, w in zip(shares, weights, strict=True)])


def back_mean_of_paths(shares, weights, d_out, v):
    return back_not_added(shares, weights, d_out, v).mean(0)


def back_reversed(shares, weights, d_out, v):
    return back_by_paths(shares.flip(0), weights, d_out, v)


def back_transposed(shares, weights, d_out, v):
    return back_by_paths(shares, weights, d_out, v).T


def back_first_path(shares, weights, d_out, v):
    return back_by_paths(shares[:1], weights[:1], d_out, v)


def back_mean_of_the_first_path(shares, weights, d_out, v):
    d_shares = dot(d_out, v)
    return (weights[:, None, None] * shares * (d_shares - (shares[0] * d_shares).sum(-1, keepdim=True))).sum(0)


def back_in_place(shares, weights, d_out, v):
    shares *= weights[:, None, None]
    mean = (shares / weights[:, None, None] * dot(d_out, v)).sum(-1, keepdim=True)
    return (shares * (dot(d_out, v) - mean)).sum(0)


def back_swapped(shares, weights, d_out, v):
    return back_by_paths(shares, weights, v, d_out)


RIGHT = [
    (MERGE, merge_by_hand),
    (MERGE, merge_by_log_sum_exp),
    (MERGE, merge_by_accumulators),
    (MERGE, merge_running),
    (MERGE, merge_row_by_row),
    (MERGE, parts.merge),
    (BACK, back_by_paths),
    (BACK, back_by_outputs),
    (BACK, back_by_gain_and_pull),
    (BACK, back_by_autograd),
    (BACK, parts.score_gradient),
]

# In each group, those that no known mistake covers come last: laws and symptoms must tell.
WRONG = [
    (MERGE, merge_mean, "You took the mean of the parts"),
    (MERGE, merge_sum, "You added the parts up"),
    (MERGE, merge_overflows, "exp of 89 is beyond float32"),
    (MERGE, merge_overflows_in_the_shares, "exp of 89 is beyond float32"),
    (MERGE, merge_unnormalised, "exp of each log-sum-exp, less the largest. These weights do not sum to 1"),
    (MERGE, merge_with_exps, "The normalisation is missing: you weighed with exp of the log-sum-exps"),
    (MERGE, merge_in_proportion, "in proportion to the log-sum-exps themselves"),
    (MERGE, merge_with_logarithms, "You multiplied with the log-sum-exps themselves"),
    (MERGE, merge_largest, "the part with the largest log-sum-exp alone"),
    (MERGE, merge_base_two, "Your weights are powers of two"),
    (MERGE, merge_from_base_two, "from base 2 into natural ones"),
    (MERGE, merge_upside_down, "The sign is flipped"),
    (MERGE, merge_over_rows, "Your softmax runs over the rows"),
    (MERGE, merge_over_everything, "over all parts and rows together"),
    (MERGE, merge_divided_again, "You divided by the number of parts as well"),
    (MERGE, merge_log_softmax, "use softmax, not log_softmax"),
    (MERGE, merge_sigmoid, "You used a sigmoid"),
    (MERGE, merge_twice, "You applied the softmax twice"),
    (MERGE, merge_not_normalised_parts, "as if the parts were not normalised yet"),
    (MERGE, merge_reversed, "The parts are in the reverse order"),
    (MERGE, merge_not_added, "The weighted parts are not added up"),
    (MERGE, merge_last_only, "You return the last part alone"),
    (MERGE, merge_meets_features, "The shares (P, L) met the features"),
    (MERGE, merge_pairwise_from_the_first, "Where the first parts of a row are empty"),
    (MERGE, merge_from_empty, "Your result contains NaN"),
    (MERGE, merge_beyond_the_parts, "lies between the smallest and the largest of the parts that are not empty"),
    (MERGE, merge_first_two, "lies between the smallest and the largest"),
    (MERGE, merge_detached, "no gradient reaches the inputs"),
    (MERGE, merge_without_the_way_to_the_shares, "no gradient reaches log_sums"),
    (BACK, back_without_mean, "D is missing"),
    (BACK, back_one_mean, "All paths share one D"),
    (BACK, back_without_weights, "λ is missing"),
    (BACK, back_weighted_twice, "λ comes in twice"),
    (BACK, back_mean_unweighted, "λ weighs P_p ∘ dP but not P_p ∘ D_p"),
    (BACK, back_mean_added, "The sign of D is flipped"),
    (BACK, back_upside_down, "The sign of the whole is flipped"),
    (BACK, back_shares_forgotten, "P_p is missing in front of the bracket"),
    (BACK, back_mean_without_share, "D_p must be multiplied with P_p as well"),
    (BACK, back_mean_of_keys, "You took the mean over the keys for D_p"),
    (BACK, back_sum_of_keys, "Your D is the sum of dP over the keys"),
    (BACK, back_over_queries, "Your D_p sums over the queries"),
    (BACK, back_meets_keys, "met the keys"),
    (BACK, back_diagonal, "You took P(1 − P)"),
    (BACK, back_scaled, "You divided by √d_h"),
    (BACK, back_of_shares, "This is dP, the gradient of the shares"),
    (BACK, back_not_added, "The paths are not added up"),
    (BACK, back_mean_of_paths, "You took the mean over the paths"),
    (BACK, back_reversed, "The paths are in the reverse order"),
    (BACK, back_transposed, "Your result is transposed"),
    (BACK, back_mean_of_the_first_path, "so the gradient of its scores sums to 0. Your row 0 sums to"),
    (BACK, back_first_path, "The shape is right, the numbers are not."),
    (BACK, back_in_place, "changes its input shares in place"),
    (BACK, back_swapped, "Your function raised RuntimeError"),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=named)
def test_right_answers_pass(exercise, answer, capsys):
    assert_passes(exercise, answer, capsys)


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG, ids=named)
def test_wrong_answers_are_diagnosed(exercise, answer, words, capsys):
    assert_diagnosed(exercise, answer, words, capsys)


def test_the_inputs_have_empty_parts_and_log_sums_beyond_exp():
    kinds = set()
    for case in EXERCISES[MERGE].cases():
        outputs, log_sums = case.inputs
        empty = log_sums == -math.inf
        assert not empty.all(0).any() and not outputs[empty].any()
        kinds |= {"first empty"} if empty[0].any() else set()
        kinds |= {"last empty"} if empty[-1].any() else set()
        kinds |= {"all but the last empty"} if len(empty) > 2 and empty[:-1].all(0).any() else set()
        kinds |= {"none empty"} if not empty.any(0).all() else set()
        kinds |= {"overflow"} if (log_sums > 89).any() else set()
        kinds |= {"underflow"} if (log_sums.amax(0) < -104).any() else set()
    assert kinds == {"first empty", "last empty", "all but the last empty", "none empty", "overflow", "underflow"}


def test_the_shares_are_shares_and_hide_some_keys():
    for case in EXERCISES[BACK].cases():
        shares, weights, *_ = case.inputs
        assert torch.allclose(shares.sum(-1), torch.ones_like(shares[..., 0]), atol=1e-6)
        assert torch.allclose(weights.sum(), torch.ones_like(weights[0]))
    assert any((case.inputs[0] == 0).any() for case in EXERCISES[BACK].cases()[1:])


@pytest.mark.parametrize("borders", [(4,), (1, 2, 9), (11,)])
def test_merged_parts_are_the_whole_of_the_package(borders):
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 12, 4, dtype=torch.float64)
    scores = (q @ k.T / 2).masked_fill(torch.ones(12, 12).triu(1) > 0, -math.inf)
    cut = [*zip((0, *borders), (*borders, 12), strict=True)]
    outputs = torch.stack([torch.nan_to_num(scores[:, a:b].softmax(-1)) @ v[a:b] for a, b in cut])
    log_sums = torch.stack([scores[:, a:b].logsumexp(-1) for a, b in cut])
    whole = full_attention(*(x[None, None] for x in (q, k, v)))[0, 0]
    for merge in (parts.merge, EXERCISES[MERGE].reference):
        assert torch.allclose(merge(outputs, log_sums), whole, atol=1e-12)


@pytest.mark.parametrize("back", [parts.score_gradient, EXERCISES[BACK].reference])
def test_the_gradient_of_the_scores_is_that_of_the_package(back):
    torch.manual_seed(2)
    q, k, v, d_out = torch.randn(4, 9, 4, dtype=torch.float64)
    weights, query, key = torch.tensor([0.7, 0.3]).double(), *torch.meshgrid(*[torch.arange(9)] * 2, indexing="ij")
    seen = torch.stack([key <= query, (key <= query) & (key // 4 == query // 4)])
    shares = (q @ k.T / 2).masked_fill(~seen, -math.inf).softmax(-1)
    q.requires_grad_()
    out = hybrid_attention(*(x[None, None] for x in (q, k, v)), None, None, None, weights, chunk_size=4,
                           paths=("full", "chunk"), backend="eager")
    (expected,) = torch.autograd.grad(out, q, d_out[None, None])
    assert torch.allclose(back(shares, weights, d_out, v) @ k / 2, expected, atol=1e-12)
