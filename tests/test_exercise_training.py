"""The exercises of notebook 07: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import json

import numpy as np
import pytest
import torch
from answers import assert_diagnosed, assert_passes, named, otherwise
from strategies import make_model, random_tokens
from torch.nn.functional import cross_entropy

from rmat_tutorial import backprop
from rmat_tutorial.exercises import check
from rmat_tutorial.exercises.causes import CAUSES
from rmat_tutorial.folders import data
from rmat_tutorial.pictures.diagnose import MOST_LOSS, POOLED, shares
from rmat_tutorial.training import FRESH, SMOOTHING, Curriculum, TrainSettings

LONGEST, TRUNCATED, DIAGNOSE = "07.curriculum", "07.truncated", "07.diagnose"

pytestmark = pytest.mark.usefixtures("own_home")


# A curriculum ----------------------------------------------------------------------------------------------------


def longest_by_the_package(longest, mean, loss, threshold, most):
    return tuple(Curriculum(longest, mean).after(loss, TrainSettings(grow_below=threshold, max_segments=most)))


def longest_by_the_rule(longest, mean, loss, threshold, most):
    mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
    if mean < threshold and longest < most:
        return min(2 * longest, most), FRESH
    return longest, mean


def longest_step_towards(longest, mean, loss, threshold, most):
    mean += 0.05 * (loss - mean)
    grows = longest != most and not mean > threshold
    return [longest + min(longest, most - longest) * grows, [mean, 3][grows]]


def longest_as_a_tensor(longest, mean, loss, threshold, most):
    mean = torch.tensor([mean, loss]) @ torch.tensor([0.95, 0.05])
    grows = mean < threshold and longest < most
    return torch.stack([torch.tensor(2.0 * longest).clamp(max=most), torch.tensor(3.0)]) if grows else torch.stack(
        [torch.tensor(float(longest)), mean])


def longest_of_tensors(longest, mean, loss, threshold, most):
    mean = torch.lerp(torch.tensor(mean), torch.tensor(loss), 0.05)
    if longest == most or mean > threshold:
        return longest, mean
    return (most, 3.0) if 2 * longest > most else (2 * longest, 3.0)


def longest_keeps_the_mean(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    if mean < threshold:
        longest = min(2 * longest, most)
    return longest, mean


def longest_mean_to_zero(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    if mean < threshold and longest < most:
        longest, mean = min(2 * longest, most), 0
    return longest, mean


def longest_mean_to_loss(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (min(2 * longest, most), loss) if mean < threshold and longest < most else (longest, mean)


def longest_by_one(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (longest + 1, 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_at_once(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (most, 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_beyond(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (longest * 2, 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_without_end(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (longest * 2, 3.0) if mean < threshold else (longest, mean)


def longest_not_the_most(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (longest * 2, 3.0) if mean < threshold and longest * 2 <= most else (longest, mean)


def longest_anew_at_the_most(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (min(longest * 2, most), 3.0) if mean < threshold else (longest, mean)


def longest_always_anew(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return min(longest * 2, most) if mean < threshold else longest, 3.0


def longest_by_the_loss(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (min(longest * 2, most), 3.0) if loss < threshold and longest < most else (longest, mean)


def longest_by_the_old_mean(longest, mean, loss, threshold, most):
    if mean < threshold and longest < most:
        return min(longest * 2, most), 3.0
    return longest, 0.95 * mean + 0.05 * loss


def longest_by_both(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    grows = threshold > mean and threshold > loss and longest < most
    return (min(longest * 2, most), 3.0) if grows else (longest, mean)


def longest_above(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (min(longest * 2, most), 3.0) if mean > threshold and longest < most else (longest, mean)


def longest_swapped_weights(longest, mean, loss, threshold, most):
    mean = 0.05 * mean + 0.95 * loss
    return (min(longest * 2, most), 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_plain_mean(longest, mean, loss, threshold, most):
    mean = sum([mean, loss]) / 2
    return (min(longest * 2, most), 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_added_loss(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + loss
    return (min(longest * 2, most), 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_rising_mean(longest, mean, loss, threshold, most):
    mean = mean + 0.05 * loss
    return (min(longest * 2, most), 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_same_mean(longest, mean, loss, threshold, most):
    return (min(longest * 2, most), 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_never(longest, mean, loss, threshold, most):
    return longest, 0.95 * mean + 0.05 * loss


def longest_mean_first(longest, mean, loss, threshold, most):
    return longest_by_the_rule(longest, mean, loss, threshold, most)[::-1]


def longest_shrinks(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    if mean >= threshold:
        return max(1, longest // 2), mean
    return (min(2 * longest, most), 3.0) if longest < most else (most, mean)


def longest_alone(longest, mean, loss, threshold, most):
    return longest_by_the_rule(longest, mean, loss, threshold, most)[0]


def longest_three(longest, mean, loss, threshold, most):
    return *longest_by_the_rule(longest, mean, loss, threshold, most), loss


def longest_without_return(longest, mean, loss, threshold, most):
    longest_by_the_rule(longest, mean, loss, threshold, most)


def longest_looks_back_ten(longest, mean, loss, threshold, most):
    mean = 0.9 * mean + 0.1 * loss
    return (min(2 * longest, most), 3.0) if mean < threshold and longest < most else (longest, mean)


def longest_triples(longest, mean, loss, threshold, most):
    mean = 0.95 * mean + 0.05 * loss
    return (min(3 * longest, most), 3.0) if mean < threshold and longest < most else (longest, mean)


# Truncated back-propagation --------------------------------------------------------------------------------------


def cut_by_slices(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        loss = 0
        for piece in pieces[start : start + k]:
            share, state = read(piece, state)
            loss = loss + share
        loss.backward()
        state = state.detach()


def cut_by_counting(read, pieces, state, k):
    losses = []
    for i, piece in enumerate(pieces, start=1):
        loss, state = read(piece, state)
        losses.append(loss)
        if i % k == 0 or i == len(pieces):
            torch.stack(losses).sum().backward()
            losses.clear()
            state = state.detach()
    return state


def cut_before(read, pieces, state, k):
    total = 0.0
    for i, piece in enumerate(pieces):
        if i > 0 and i % k == 0:
            total.backward()
            total, state = 0.0, state.detach()
        loss, state = read(piece, state)
        total += loss
    total.backward()


def cut_recursively(read, pieces, state, k):
    def one_group(group, state):
        losses = []
        for piece in group:
            loss, state = read(piece, state)
            losses.append(loss)
        sum(losses).backward()
        return state.detach()

    if pieces:
        cut_recursively(read, pieces[k:], one_group(pieces[:k], state), k)


def cut_with_retained_graphs(read, pieces, state, k):
    for i, piece in enumerate(pieces):
        if i % k == 0 and i:
            state = state.detach()
        loss, state = read(piece, state)
        loss.backward(retain_graph=(i + 1) % k > 0)


def cut_never(read, pieces, state, k):
    total = 0
    for piece in pieces:
        loss, state = read(piece, state)
        total += loss
    total.backward()


def cut_never_with_retained_graphs(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        losses = []
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            losses.append(loss)
        sum(losses).backward(retain_graph=True)


def cut_thrown_away(read, pieces, state, k):
    total = 0
    for i, piece in enumerate(pieces):
        loss, state = read(piece, state)
        total += loss
        if (i + 1) % k == 0:
            state.detach()
    total.backward()


def cut_thrown_away_with_backward(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        total = 0
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            total += loss
        total.backward()
        state.detach()


def cut_everywhere(read, pieces, state, k):
    for piece in pieces:
        loss, state = read(piece, state)
        loss.backward()
        state = state.detach()


def cut_everywhere_within_groups(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        total = 0
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            state = state.detach()
            total += loss
        total.backward()


def cut_everywhere_backward_at_the_end(read, pieces, state, k):
    losses = []
    for piece in pieces:
        loss, state = read(piece, state)
        state = state.detach()
        losses.append(loss)
    sum(losses).backward()


def cut_backward_at_the_end(read, pieces, state, k):
    losses = []
    for i, piece in enumerate(pieces, start=1):
        loss, state = read(piece, state)
        losses.append(loss)
        if i % k == 0:
            state = state.detach()
    torch.stack(losses).sum().backward()


def cut_without_the_rest(read, pieces, state, k):
    total = 0
    for i, piece in enumerate(pieces, start=1):
        loss, state = read(piece, state)
        total += loss
        if i % k == 0:
            total.backward()
            total, state = 0, state.detach()


def cut_one_late(read, pieces, state, k):
    total = 0
    for i, piece in enumerate(pieces):
        loss, state = read(piece, state)
        total += loss
        if i % k == 0:
            total.backward()
            total, state = 0, state.detach()
    if total:
        total.backward()


def cut_one_late_without_the_rest(read, pieces, state, k):
    total = 0
    for i, piece in enumerate(pieces):
        loss, state = read(piece, state)
        total += loss
        if i % k == 0:
            total.backward()
            total, state = 0, state.detach()


def cut_after_one_more(read, pieces, state, k):
    losses = []
    for i, piece in enumerate(pieces, start=1):
        loss, state = read(piece, state)
        losses.append(loss)
        if len(losses) > k or i == len(pieces):
            sum(losses).backward()
            losses, state = [], state.detach()


def cut_into_k(read, pieces, state, k):
    for numbers in torch.arange(len(pieces)).chunk(k):
        total = 0
        for i in numbers:
            loss, state = read(pieces[i], state)
            total += loss
        total.backward()
        state = state.detach()


def cut_and_skips(read, pieces, state, k):
    for i in range(0, len(pieces), k):
        loss, state = read(pieces[i], state)
        loss.backward()
        state = state.detach()


def cut_and_stops(read, pieces, state, k):
    total = 0
    for piece in pieces[:k]:
        loss, state = read(piece, state)
        total += loss
    total.backward()


def cut_of_the_last_group(read, pieces, state, k):
    for i, piece in enumerate(pieces):
        if i % k == 0:
            total = 0
            state = state.detach() if i else state
        loss, state = read(piece, state)
        total += loss
    total.backward()


def cut_last_loss(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
        loss.backward()
        state = state.detach()


def cut_mean_of_groups(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        losses = []
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            losses.append(loss)
        torch.stack(losses).mean().backward()
        state = state.detach()


def cut_over_k(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        total = 0
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            total += loss / k
        total.backward()
        state = state.detach()


def cut_over_n(read, pieces, state, k):
    def weighted(piece, state):
        loss, state = read(piece, state)
        return loss / len(pieces), state

    cut_by_slices(weighted, pieces, state, k)


def cut_counts_again(read, pieces, state, k):
    total = 0
    for i, piece in enumerate(pieces, start=1):
        loss, state = read(piece, state)
        total = total + loss
        if i % k == 0 or i == len(pieces):
            total.backward(retain_graph=True)
            state = state.detach()


def cut_counts_again_and_breaks(read, pieces, state, k):
    total = 0
    for i, piece in enumerate(pieces, start=1):
        loss, state = read(piece, state)
        total = total + loss
        if i % k == 0 or i == len(pieces):
            total.backward()
            state = state.detach()


def cut_starts_again(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        own, total = state, 0
        for piece in pieces[start : start + k]:
            loss, own = read(piece, own)
            total += loss
        total.backward()


def cut_before_the_first(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        state, total = state.detach(), 0
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            total += loss
        total.backward()


def cut_without_backward(read, pieces, state, k):
    losses = []
    for piece in pieces:
        loss, state = read(piece, state)
        losses.append(loss)
    return sum(losses)


def cut_backwards(read, pieces, state, k):
    cut_by_slices(read, list(reversed(pieces)), state, k)


def cut_loss_detached(read, pieces, state, k):
    total = 0
    for piece in pieces:
        loss, state = read(piece, state)
        total += loss.detach()
    total.backward()


def cut_loss_as_number(read, pieces, state, k):
    total = 0
    for piece in pieces:
        loss, state = read(piece, state)
        total += loss.item()
    torch.tensor(total).backward()


def cut_results_swapped(read, pieces, state, k):
    for piece in pieces:
        state, _ = read(piece, state)


def cut_without_gradients(read, pieces, state, k):
    with torch.no_grad():
        cut_by_slices(read, pieces, state, k)


def cut_one_bank_only(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        total = 0
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            total += loss
        total.backward(retain_graph=True)
        state.slow = state.slow.detach()


def cut_gradients_zeroed(read, pieces, state, k):
    for start in range(0, len(pieces), k):
        total = 0
        read.weights.grad = None
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            total += loss
        total.backward()
        state = state.detach()


def cut_twice_the_loss(read, pieces, state, k):
    def weighted(piece, state):
        loss, state = read(piece, state)
        return 2 * loss, state

    cut_by_slices(weighted, pieces, state, k)


def cut_and_keeps_the_graphs(read, pieces, state, k):
    graphs = []
    for start in range(0, len(pieces), k):
        total = 0
        for piece in pieces[start : start + k]:
            loss, state = read(piece, state)
            total += loss
        total.backward(retain_graph=True)
        graphs.append(total)
        state = state.detach()


# What is wrong with each run -------------------------------------------------------------------------------------


def causes_by_letter():
    return {"A": "shut", "B": "healthy", "C": "rate", "D": "slow", "E": "lengths", "F": "cut"}


def causes_from_behind():
    return dict(reversed(causes_by_letter().items()))


def causes_and(**other):
    return causes_by_letter() | other


def causes_swapped():
    return causes_and(A="cut", F="shut")


def causes_open():
    return causes_and(F="open")


def causes_slow_and_long():
    return causes_and(D="lengths", E="slow")


def causes_all_healthy():
    return dict.fromkeys("ABCDEF", "healthy")


def causes_as_a_list():
    return list(causes_by_letter().values())


def causes_of_four():
    return {run: cause for run, cause in causes_by_letter().items() if run in "ABCD"}


def causes_of_seven():
    return causes_and(G="open")


def causes_in_words():
    return causes_and(C="learning rate")


def causes_as_lists():
    return causes_and(C=["rate"])


RIGHT = [
    (LONGEST, longest_by_the_package),
    (LONGEST, longest_by_the_rule),
    (LONGEST, longest_step_towards),
    (LONGEST, longest_as_a_tensor),
    (LONGEST, longest_of_tensors),
    (TRUNCATED, cut_by_slices),
    (TRUNCATED, cut_by_counting),
    (TRUNCATED, cut_before),
    (TRUNCATED, cut_recursively),
    (TRUNCATED, cut_with_retained_graphs),
    (TRUNCATED, backprop.truncated),
    (DIAGNOSE, causes_by_letter),
    (DIAGNOSE, causes_from_behind),
]

# In each group, those that no known mistake covers come last: the symptoms must tell.
WRONG = [
    (LONGEST, longest_keeps_the_mean, "You do not begin the mean anew when streams grow"),
    (LONGEST, longest_mean_to_zero, "After growth the mean begins at 0"),
    (LONGEST, longest_mean_to_loss, "After growth the mean begins at this step's loss"),
    (LONGEST, longest_by_one, "Streams grow by one segment"),
    (LONGEST, longest_at_once, "to the most at once"),
    (LONGEST, longest_beyond, "Streams grow beyond the most"),
    (LONGEST, longest_without_end, "Nothing stops the growth"),
    (LONGEST, longest_not_the_most, "do not grow at all, and the longest are never met"),
    (LONGEST, longest_anew_at_the_most, "begins anew at the most as well"),
    (LONGEST, longest_always_anew, "begins anew in each step"),
    (LONGEST, longest_by_the_loss, "You compare this step's loss with the threshold"),
    (LONGEST, longest_by_the_old_mean, "the mean as it was before this step"),
    (LONGEST, longest_by_both, "The mean alone decides"),
    (LONGEST, longest_above, "goes the other way"),
    (LONGEST, longest_swapped_weights, "The weights of the mean are swapped"),
    (LONGEST, longest_plain_mean, "the plain mean"),
    (LONGEST, longest_added_loss, "The new loss is added in full"),
    (LONGEST, longest_rising_mean, "it can only rise"),
    (LONGEST, longest_same_mean, "does not enter the mean"),
    (LONGEST, longest_never, "Streams never grow"),
    (LONGEST, longest_mean_first, "in the wrong order: return longest, mean"),
    (LONGEST, longest_shrinks, "Streams grow shorter"),
    (LONGEST, longest_alone, "Your function returned 4. It must return two numbers: return longest, mean."),
    (LONGEST, longest_three, "Your function returned a tuple. It must return two numbers"),
    (LONGEST, longest_without_return, "returned None. Is the return line missing?"),
    (LONGEST, longest_looks_back_ten, "The mean becomes 0.95 · 0.392 + 0.05 · 4 = 0.5724. That is not below 0.4"),
    (LONGEST, longest_triples, "so streams of 4 grow to 8, and the mean begins anew at 3. Your function returned 10"),
    (TRUNCATED, cut_never, "The state is never cut"),
    (TRUNCATED, cut_never_with_retained_graphs, "The state is never cut"),
    (TRUNCATED, cut_thrown_away, "state.detach() returns a new state and changes none"),
    (TRUNCATED, cut_thrown_away_with_backward, "what is handed on behind it has to be detached"),
    (TRUNCATED, cut_everywhere, "You detach the state after every piece"),
    (TRUNCATED, cut_everywhere_within_groups, "You detach the state after every piece"),
    (TRUNCATED, cut_everywhere_backward_at_the_end, "And call backward there"),
    (TRUNCATED, cut_backward_at_the_end, "backward comes at the end only"),
    (TRUNCATED, cut_without_the_rest, "The last group is missing where k does not divide"),
    (TRUNCATED, cut_one_late, "0 % k is 0"),
    (TRUNCATED, cut_one_late_without_the_rest, "And what comes after the last cut has no backward"),
    (TRUNCATED, cut_after_one_more, "the first group has k + 1 pieces"),
    (TRUNCATED, cut_into_k, "You made k groups"),
    (TRUNCATED, cut_and_skips, "You read every k-th piece only"),
    (TRUNCATED, cut_and_stops, "You read the first group only"),
    (TRUNCATED, cut_of_the_last_group, "Only the last group's gradient is there"),
    (TRUNCATED, cut_last_loss, "Of each group only the last loss"),
    (TRUNCATED, cut_mean_of_groups, "You take the mean of each group's losses"),
    (TRUNCATED, cut_over_k, "You divide each group's losses by k"),
    (TRUNCATED, cut_counts_again, "counted again in each later one"),
    (TRUNCATED, cut_starts_again, "Every group starts from the state before the first piece"),
    (TRUNCATED, cut_before_the_first, "You detach the state before the first piece"),
    (TRUNCATED, cut_without_backward, "backward is never called"),
    (TRUNCATED, cut_backwards, "from the last to the first"),
    (TRUNCATED, cut_counts_again_and_breaks, "an earlier backward has used up a part of this graph"),
    (TRUNCATED, cut_loss_detached, "it was detached, or made of numbers"),
    (TRUNCATED, cut_loss_as_number, "it was detached, or made of numbers"),
    (TRUNCATED, cut_results_swapped, "read takes a piece and a state, got Tensor as the state"),
    (TRUNCATED, cut_without_gradients, "does not lead to the weights"),
    (TRUNCATED, cut_one_bank_only, "The gradients are wrong."),
    (TRUNCATED, cut_gradients_zeroed, "The gradients are wrong."),
    (TRUNCATED, cut_over_n, "You divide by the number of pieces"),
    (TRUNCATED, cut_twice_the_loss, "The gradients are wrong."),
    (TRUNCATED, cut_and_keeps_the_graphs, "backward comes at the end only"),
    (DIAGNOSE, causes_swapped, "A: not 'cut'. Where the gradient is cut"),
    (DIAGNOSE, causes_swapped, "F: not 'shut'. A penalty so heavy shuts the gates in the first few dozen steps; here"),
    (DIAGNOSE, causes_open, "F: not 'open'. Gates that are open for good are a line at 1; here they are far below it."),
    (DIAGNOSE, causes_slow_and_long, "D: not 'lengths'. "),
    (DIAGNOSE, causes_slow_and_long, "E: not 'slow'. "),
    (DIAGNOSE, causes_all_healthy, "E: not 'healthy'. A run that learns ends with most answers right,"),
    (DIAGNOSE, causes_as_a_list, "Your function returned a list. It must return a dict"),
    (DIAGNOSE, causes_of_four, "E, F have no cause yet."),
    (DIAGNOSE, causes_of_seven, "There is no run 'G'. The runs are A, B, C, D, E, F."),
    (DIAGNOSE, causes_in_words, "C: 'learning rate' is none of the causes. They are 'healthy', 'rate',"),
    (DIAGNOSE, causes_as_lists, "C: ['rate'] is none of the causes."),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=named)
def test_right_answers_pass(exercise, answer, capsys):
    assert_passes(exercise, answer, capsys)


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG, ids=named)
def test_wrong_answers_are_diagnosed(exercise, answer, words, capsys):
    assert_diagnosed(exercise, answer, words, capsys)


def test_every_wrong_cause_is_answered_by_what_the_plots_show_and_no_other_run_is_named(capsys):
    for run, right in causes_by_letter().items():
        for wrong in CAUSES.keys() - {right}:
            check(DIAGNOSE, lambda run=run, wrong=wrong: causes_and(**{run: wrong}), otherwise)
            said, asked = capsys.readouterr().out.removeprefix(f"{DIAGNOSE}: not right yet. ").split("\nAsked for: ")
            assert said.startswith(f"{run}: not {wrong!r}. ") and "; here " in said and said.count("\n") == 0
            assert asked.endswith("\n") and asked.count("\n") == 1, "the right answer is not shown"


@pytest.fixture(scope="module")
def runs():
    return json.loads((data() / "diagnose-training.json").read_text(encoding="utf-8"))["runs"]


def test_the_recorded_runs_were_made_with_the_causes_that_the_check_wants(runs):
    defaults = runs["B"]["settings"]
    changed = {run: {name: value for name, value in made["settings"].items() if value != defaults[name]}
               for run, made in runs.items()}
    assert changed == {
        "A": {"gate_penalty": 10.0, "gate_penalty_from": 0}, "B": {}, "C": {"lr": 1.0}, "D": {"lr": 4e-4},
        "E": {"grow_below": None}, "F": {"backprop": "truncated", "backprop_segments": 1},
    }
    assert defaults["lr"] == 4e-3 and defaults["gate_penalty_from"] == 300
    for run, made in runs.items():
        assert made["command"].startswith("python -m rmat_tutorial train recall ")
        assert made["command"].endswith(f" --out diagnose/{run}") and made["versions"] and made["device"]


def test_the_recorded_runs_show_what_the_check_says_of_them(runs):
    share = {run: shares(made) for run, made in runs.items()}
    last = {run: np.nanmean(of[:, -5:], axis=1) for run, of in share.items()}
    gate = {run: np.array(made["gate"]) for run, made in runs.items()}
    loss = {run: np.array(made["loss"]) for run, made in runs.items()}
    before = 300 // POOLED  # the penalty comes, in all runs but A
    guess, chance = np.log(8), 1 / 8
    assert all(of.max() < 0.35 for of in gate.values()), "no gate is near 1"
    assert gate["A"][5:].max() < 0.01 and min(gate[run][:before].min() for run in "BCDEF") > 0.13
    assert gate["F"][-1] < 0.01 and np.ptp(gate["F"][:before]) < 0.02 < np.ptp(gate["B"][:15])
    for run in "ABF":
        assert loss[run][:11].min() < 0.12 and last[run][0] > 0.99 and share[run][0, 10] > 0.97
        assert not np.isnan(share[run][0, 0]) and np.isnan(share[run][1:, 0]).all(), "short streams come first"
    assert last["B"].min() > 0.87
    assert len(last["A"]) == len(last["F"]) == 2 and max(last["A"][1], last["F"][1]) < chance + 0.1
    assert 0.4 < np.nanmax(share["F"][1]) < 0.5, "the bank brings something across, though no write was taught"
    assert loss["C"].max() > 2 * MOST_LOSS and len(last["C"]) == 1 and last["C"][0] < chance + 0.1
    assert len(last["D"]) == 1 and share["D"][0, 10] < 0.2 < 0.75 < last["D"][0] and np.diff(loss["D"]).max() < 0.1
    assert not np.isnan(share["E"]).any() and (np.abs(loss["E"][5:20] - guess) < 0.1).all()
    assert loss["E"][5:].max() < guess + 0.1 and last["E"][1:].min() > 0.35 and last["E"][1:].max() < 0.65


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_loop_of_the_exercise_gives_the_real_model_the_gradient_of_the_package(k):
    model = make_model(gate="hard")
    segment = model.config.segment_len
    stream = random_tokens(2, 5 * segment + 3)
    tokens, targets = stream[:, :-1], stream[:, 1:]

    def read(piece, state):
        logits, state = model(piece[0], state)
        return cross_entropy(logits.flatten(0, 1), piece[1].flatten(), reduction="sum") / targets.numel(), state

    backprop.backpropagate(model, tokens, targets, backprop="truncated", backprop_segments=k)
    wanted = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    pieces = list(zip(tokens.split(segment, dim=1), targets.split(segment, dim=1), strict=True))
    cut_by_slices(read, pieces, model.init_state(2), k)
    got = [parameter.grad for parameter in model.parameters()]
    untaught = [gradient is None for gradient in wanted]
    assert untaught == [gradient is None for gradient in got]
    assert any(untaught) == (k == 1), "cut at every segment, nothing teaches a write"
    for one, other in zip(got, wanted, strict=True):
        assert one is None or torch.allclose(one, other, rtol=1e-8, atol=1e-12)
