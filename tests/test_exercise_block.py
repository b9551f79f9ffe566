"""The exercises of notebook 05: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import math

import pytest
import torch
from answers import assert_diagnosed, assert_passes, named

from rmat_tutorial import (
    HybridBlock,
    RMATConfig,
    attention,
    chunked_attention,
    full_attention,
    hybrid_attention,
    memory_attention,
)
from rmat_tutorial.block import stream
from rmat_tutorial.exercises import EXERCISES
from rmat_tutorial.measuring import influence, leaks

FUSE, STREAM, LEAK = "05.fuse", "05.stream", "05.leak"


pytestmark = pytest.mark.usefixtures("own_home")


# Fuse ------------------------------------------------------------------------------------------------------------


def fuse_by_broadcasting(outputs, mix):
    return (outputs * mix.softmax(0).view(-1, 1, 1, 1, 1)).sum(dim=0)


def fuse_by_loop(outputs, mix):
    shares = torch.softmax(mix, -1)
    fused = torch.zeros_like(outputs[0])
    for share, output in zip(shares, outputs, strict=True):
        fused = fused + share * output
    return fused


def fuse_by_matmul(outputs, mix):
    return (mix.softmax(0) @ outputs.flatten(1)).view(outputs.shape[1:])


def fuse_by_hand(outputs, mix):
    powers = torch.exp(mix - mix.max())
    return torch.tensordot(powers, outputs, 1) / powers.sum()


def fuse_by_moving_the_axis(outputs, mix):
    return outputs.movedim(0, -1) @ torch.softmax(mix, 0)


def fuse_overwriting(outputs, mix):
    shares = torch.softmax(mix, dim=0)
    shares[0] = shares[0] * 1  # right, but softmax needs its result on the way back
    return torch.einsum("p,pbhld->bhld", shares, outputs)


def fuse_raw(outputs, mix):
    return torch.tensordot(mix, outputs, 1)


def fuse_wrong_axis(outputs, mix):
    return (outputs * mix[:, None].softmax(-1)[..., None, None, None]).sum(0)


def fuse_mean(outputs, mix):
    return sum(outputs) / len(outputs)


def fuse_mean_of_weighted(outputs, mix):
    return (outputs.movedim(0, -1) * mix.softmax(0)).mean(-1)


def fuse_unnormalised(outputs, mix):
    return sum(torch.exp(number) * output for number, output in zip(mix, outputs, strict=True))


def fuse_sigmoid(outputs, mix):
    return torch.tensordot(1 / (1 + torch.exp(-mix)), outputs, 1)


def fuse_divided(outputs, mix):
    return torch.tensordot(mix, outputs, 1) / mix.sum()


def fuse_twice(outputs, mix):
    return fuse_by_matmul(outputs, mix.softmax(0))


def fuse_minus(outputs, mix):
    return torch.tensordot(torch.nn.functional.softmin(mix, 0), outputs, 1)


def fuse_reversed(outputs, mix):
    return fuse_by_loop(outputs.flip(0), mix)


def fuse_hard(outputs, mix):
    return outputs.index_select(0, mix.argmax()[None])[0]


def fuse_not_summed(outputs, mix):
    return torch.einsum("p,pbhld->pbhld", mix.softmax(0), outputs)


def fuse_along_the_width(outputs, mix):
    return (torch.softmax(mix, dim=0) * outputs).sum(dim=0)


def fuse_along_the_batch(outputs, mix):
    return outputs.mul(mix.softmax(0).view(-1, 1, 1, 1)).sum(0)


def fuse_along_the_heads(outputs, mix):
    return outputs.mul(mix.softmax(0).view(len(mix), 1, 1)).sum(0)


def fuse_along_the_tokens(outputs, mix):
    return outputs.mul(mix.softmax(0).unsqueeze(1)).sum(0)


def fuse_overwrites(outputs, mix):
    for share, output in zip(mix.softmax(0), outputs, strict=True):
        fused = share * output
    return fused


def fuse_by_absolute_values(outputs, mix):
    return torch.tensordot(mix.abs() / mix.norm(), outputs, 1)


def fuse_detached(outputs, mix):
    return fuse_by_loop(outputs, mix.detach())


def fuse_in_place(outputs, mix):
    outputs *= mix.softmax(0)[:, None, None, None, None]
    return outputs.sum(0)


def fuse_three_paths(outputs, mix):
    shares = mix.softmax(0)
    return shares[0] * outputs[0] + shares[1] * outputs[1] + shares[2] * outputs[2]


# Stream ----------------------------------------------------------------------------------------------------------


def stream_by_index(read, x, state, L):
    out = torch.zeros_like(x)
    for start in range(0, x.shape[1], L):
        y, state = read(x[:, start : start + L], state)
        out = torch.cat([out[:, :start], y, out[:, start + y.shape[1] :]], dim=1)
    return out


def stream_by_recursion(read, x, state, L):
    y, state = read(x[:, :L], state)
    return y if x.shape[1] <= L else torch.cat([y, stream_by_recursion(read, x[:, L:], state, L)], 1)


def stream_while(read, x, state, L):
    parts, position = [], 0
    while position < x.size(1):
        part, state = read(x.narrow(1, position, min(L, x.size(1) - position)), state)
        parts.append(part)
        position += L
    return torch.hstack(parts)


def stream_with_padding(read, x, state, L):
    short = -x.shape[1] % L
    padded = torch.nn.functional.pad(x, (0, 0, 0, short))
    parts = []
    for part in padded.unflatten(1, (-1, L)).unbind(1):
        y, state = read(part, state)
        parts.append(y)
    return torch.cat(parts, 1)[:, : x.shape[1]]


def stream_forgets(read, x, state, L):
    return torch.hstack([read(part, state)[0] for part in x.split(L, 1)])


def stream_hands_on_once(read, x, state, L):
    parts, new = [], None
    for number, part in enumerate(x.split(L, 1)):
        y, after = read(part, state if number == 0 else new)
        new = after if number == 0 else new
        parts.append(y)
    return torch.cat(parts, 1)


def stream_drops_the_rest(read, x, state, L):
    parts = []
    for number in range(x.shape[1] // L):
        y, state = read(x[:, number * L : (number + 1) * L], state)
        parts.append(y)
    return torch.cat(parts, 1)


def stream_chunks(read, x, state, L):
    return in_pieces(read, x.chunk(L, 1), state)


def stream_evenly(read, x, state, L):
    return in_pieces(read, x.tensor_split(math.ceil(x.shape[1] / L), 1), state)


def stream_token_by_token(read, x, state, L):
    return in_pieces(read, [token[:, None] for token in x.unbind(1)], state)


def stream_last_only(read, x, state, L):
    for part in x.split(L, 1):
        y, state = read(part, state)
    return y


def stream_returns_early(read, x, state, L):
    for part in x.split(L, 1):
        y, state = read(part, state)
        return y


def stream_joins_batch(read, x, state, L):
    return in_pieces(read, x.split(L, 1), state, dim=0)


def stream_joins_width(read, x, state, L):
    return in_pieces(read, x.split(L, 1), state, dim=2)


def stream_joins_backwards(read, x, state, L):
    parts = []
    for part in x.split(L, 1):
        y, state = read(part, state)
        parts.insert(0, y)
    return torch.cat(parts, 1)


def stream_reads_backwards(read, x, state, L):
    parts = []
    for part in reversed(x.split(L, 1)):
        y, state = read(part, state)
        parts.insert(0, y)
    return torch.cat(parts, 1)


def stream_returns_state(read, x, state, L):
    for part in x.split(L, 1):
        state = read(part, state)[1]
    return state


def stream_without_the_last(read, x, state, L):
    parts = []
    for start in range(0, x.shape[1] - L, L):
        y, state = read(x[:, start : start + L], state)
        parts.append(y)
    return torch.cat(parts, 1)


def stream_swaps_results(read, x, state, L):
    parts = []
    for part in x.split(L, 1):
        state, y = read(part, state)
        parts.append(y)
    return torch.hstack(parts)


def stream_begins_with_zeros(read, x, state, L):
    return in_pieces(read, x.split(L, 1), 0 * state)


def stream_zeros_each_time(read, x, state, L):
    return torch.hstack([read(part, state.new_zeros(state.shape))[0] for part in x.split(L, 1)])


def stream_first_row_for_all(read, x, state, L):
    return in_pieces(read, x.split(L, 1), state[:1].expand_as(state))


def stream_at_once(read, x, state, L):
    return read(x, state)[0]


def stream_resets_often(read, x, state, L):
    first, parts = state, []
    for number, part in enumerate(x.split(L, 1)):
        y, state = read(part, first if number == 2 else state)
        parts.append(y)
    return torch.cat(parts, 1)


def stream_doubles(read, x, state, L):
    y = in_pieces(read, x.split(L, 1), state)
    return y + y


def stream_detached(read, x, state, L):
    parts = []
    for part in x.split(L, 1):
        y, state = read(part, state)
        state = state.detach()
        parts.append(y)
    return torch.cat(parts, 1)


def stream_list(read, x, state, L):
    return list(x.split(L, 1))


def in_pieces(read, pieces, state, dim=1):
    parts = []
    for part in pieces:
        if part.shape[1]:
            y, state = read(part, state)
            parts.append(y)
    return torch.cat(parts, dim)


# Find the leak ---------------------------------------------------------------------------------------------------


def leak_by_influence(read, x):
    return influence(read, x).triu(1) > 0


def leak_by_jacobian(read, x):
    slopes = torch.autograd.functional.jacobian(read, x)  # (T, d, T, d)
    return (slopes != 0).any(3).any(1).triu(1)


def leak_by_vmapped_jacobian(read, x):
    return torch.func.jacrev(read)(x).abs().amax(dim=(1, 3)).gt(0) & torch.ones(len(x), len(x)).triu(1).bool()


def leak_by_moving(read, x):
    before, T = read(x), len(x)
    found = torch.zeros(T, T, dtype=torch.bool)
    for j in range(T):
        for number in range(x.shape[1]):
            other = x.clone()
            other[j, number] += 1
            found[:j, j] |= (read(other)[:j] != before[:j]).any(1)
    return found


def leak_by_exchange(read, x):
    """Random vectors in place of input j: all its numbers move at once."""
    generator = torch.Generator().manual_seed(1)
    before, T = read(x), len(x)
    found = torch.zeros(T, T, dtype=torch.bool)
    for j in range(1, T):
        other = x.clone()
        other[j] = torch.randn(x.shape[1], generator=generator).to(x)
        for i in range(j):
            found[i, j] = not torch.equal(read(other)[i], before[i])
    return found


def leak_by_loops(read, x):
    x = x.detach().requires_grad_()
    found = torch.zeros(len(x), len(x), dtype=torch.bool)
    for i, output in enumerate(read(x)):
        for number in output:
            gradient, = torch.autograd.grad(number, x, retain_graph=True)
            found[i] |= gradient.abs().sum(1) > 0
    return torch.triu(found, diagonal=1)


def leak_by_shape(read, x):
    return torch.full((len(x), len(x)), read(x).shape != x.shape)


def leak_by_nan(read, x):
    found = torch.zeros(len(x), len(x), dtype=torch.bool)
    for j in range(len(x)):
        other = x.clone()
        other[j] = math.nan
        found[:, j] = read(other).isnan().any(1)
    return found.triu(1)


def leak_by_sums(read, x):
    x = x.detach().requires_grad_()
    rows = [torch.autograd.grad(output.sum(), x, retain_graph=True)[0].abs().sum(1) > 0 for output in read(x)]
    return torch.stack(rows).triu(1)


def leak_first_number(read, x):
    x = x.detach().requires_grad_()
    rows = [torch.autograd.grad(output[0], x, retain_graph=True)[0].norm(dim=1) > 0 for output in read(x)]
    return torch.stack(rows).triu(1)


def leak_first_input_number(read, x):
    before, found = read(x), torch.zeros(len(x), len(x), dtype=torch.bool)
    for j in range(len(x)):
        other = x.clone()
        other[j, 0] += 1
        found[:j, j] = (read(other)[:j] != before[:j]).any(1)
    return found


def leak_strong_ones(read, x):
    return influence(read, x).triu(1) > 0.1


def leak_loosely_compared(read, x):
    before, found = read(x), torch.zeros(len(x), len(x), dtype=torch.bool)
    for j in range(len(x)):
        for number in range(x.shape[1]):
            other = x.clone()
            other[j, number] += 1
            found[:, j] |= ((read(other) - before).abs() > 0.01).any(1)
    return found.triu(1)


def leak_moved_too_little(read, x):
    before, found = read(x), torch.zeros(len(x), len(x), dtype=torch.bool)
    for j in range(len(x)):
        for number in range(x.shape[1]):
            other = x.clone()
            other[j, number] += 1e-6
            found[:, j] |= (read(other) != before).any(1)
    return found.triu(1)


def leak_moves_all_numbers_alike(read, x):
    before, found = read(x), torch.zeros(len(x), len(x), dtype=torch.bool)
    for j in range(len(x)):
        other = x.clone()
        other[j] += 1
        found[:, j] = (read(other) != before).any(1)
    return found.triu(1)


def leak_moves_alike_and_little(read, x):
    before, found = read(x), torch.zeros(len(x), len(x), dtype=torch.bool)
    for j in range(len(x)):
        found[:j, j] = (read(x + 0.125 * (torch.arange(len(x)) == j)[:, None]) - before)[:j].abs().amax(1) > 0.05
    return found


def leak_all_numbers(read, x):
    slopes = torch.autograd.functional.jacobian(read, x).abs().amax(3)  # (T, d, T)
    return slopes.prod(1).triu(1) > 0


def leak_of_all_outputs(read, x):
    x = x.clone().requires_grad_()
    read(x).sum().backward()
    return (x.grad.norm(dim=1) > 0).expand(len(x), -1).triu(1)


def leak_transposed(read, x):
    return leak_by_influence(read, x).mT.contiguous()


def leak_past(read, x):
    return influence(read, x).tril(-1).bool()


def leak_everything(read, x):
    return influence(read, x) != 0


def leak_with_diagonal(read, x):
    return influence(read, x).triu() > 0


def leak_next_only(read, x):
    found = torch.zeros(len(x), len(x), dtype=torch.bool)
    for i in range(len(x) - 1):
        found[i, i + 1] = influence(read, x)[i, i + 1] > 0
    return found


def leak_last_input(read, x):
    found, other = torch.zeros(len(x), len(x), dtype=torch.bool), x.clone()
    other[-1] = other[-1].cos()
    found[:, -1] = (read(other) != read(x)).any(1)
    found[-1, -1] = False
    return found


def leak_moves_pile_up(read, x):
    before, other = read(x), x.clone()
    found = torch.zeros(len(x), len(x), dtype=torch.bool)
    for j in range(len(x)):
        other[j] += 1
        found[:, j] = (read(other) != before).any(1)
    return found.triu(1)


def leak_inverted(read, x):
    return (influence(read, x) == 0) & torch.ones(len(x), len(x)).triu(1).bool()


def leak_lengths(read, x):
    return influence(read, x).triu(1)


def leak_rows(read, x):
    return leak_by_influence(read, x).any(1)


def leak_as_numbers(read, x):
    return leak_by_influence(read, x).to(x)


def leak_one_row_short(read, x):
    found = leak_by_influence(read, x)
    found[0] = False
    return found


def leak_one_too_many(read, x):
    found = leak_by_influence(read, x)
    found[0, -1] = len(x) > 1
    return found


RIGHT = [
    (FUSE, fuse_by_broadcasting),
    (FUSE, fuse_by_loop),
    (FUSE, fuse_by_matmul),
    (FUSE, fuse_by_hand),
    (FUSE, fuse_by_moving_the_axis),
    (FUSE, attention.fuse),
    (STREAM, stream_by_index),
    (STREAM, stream_by_recursion),
    (STREAM, stream_while),
    (STREAM, stream_with_padding),
    (STREAM, stream),
    (LEAK, leak_by_influence),
    (LEAK, leak_by_jacobian),
    (LEAK, leak_by_vmapped_jacobian),
    (LEAK, leak_by_moving),
    (LEAK, leak_by_exchange),
    (LEAK, leak_by_loops),
    (LEAK, leaks),
]

# In each group, those that no known mistake covers come last: the symptoms must tell.
WRONG = [
    (FUSE, fuse_overwriting, "With inputs that require gradients: Your function raised RuntimeError"),
    (FUSE, fuse_raw, "You weighed the paths with mix itself"),
    (FUSE, fuse_wrong_axis, "its softmax ran over an axis of size 1"),
    (FUSE, fuse_mean, "You took the mean of the paths"),
    (FUSE, fuse_mean_of_weighted, "You divided by the number of paths as well"),
    (FUSE, fuse_unnormalised, "did not divide by the sum"),
    (FUSE, fuse_sigmoid, "You used a sigmoid"),
    (FUSE, fuse_divided, "You divided mix by its sum, without exp"),
    (FUSE, fuse_twice, "You applied the softmax twice"),
    (FUSE, fuse_minus, "The sign of mix is flipped"),
    (FUSE, fuse_reversed, "The paths are in the reverse order"),
    (FUSE, fuse_hard, "You took the path with the largest mix alone"),
    (FUSE, fuse_not_summed, "The weighted paths are not added up"),
    (FUSE, fuse_along_the_width, "λ met the axis d_h of outputs"),
    (FUSE, fuse_along_the_tokens, "λ met the axis L of outputs"),
    (FUSE, fuse_along_the_heads, "λ met the axis H of outputs"),
    (FUSE, fuse_along_the_batch, "λ met the axis B of outputs"),
    (FUSE, fuse_overwrites, "the loop overwrites what it found before"),
    (FUSE, fuse_by_absolute_values, "λ are shares: none is negative, and they sum to 1"),
    (FUSE, fuse_detached, "no gradient reaches mix"),
    (FUSE, fuse_in_place, "changes its input outputs in place"),
    (FUSE, fuse_three_paths, "raised IndexError"),
    (STREAM, stream_forgets, "The state is not handed on"),
    (STREAM, stream_hands_on_once, "handed on once only"),
    (STREAM, stream_drops_the_rest, "The last tokens are missing"),
    (STREAM, stream_without_the_last, "The last segment is never read"),
    (STREAM, stream_swaps_results, "in the wrong order: first come the outputs"),
    (STREAM, stream_begins_with_zeros, "your stream begins with zeros"),
    (STREAM, stream_zeros_each_time, "Every segment is read with a state of zeros"),
    (STREAM, stream_chunks, "You cut x into L pieces"),
    (STREAM, stream_evenly, "Your pieces are of about equal length"),
    (STREAM, stream_token_by_token, "You read token by token"),
    (STREAM, stream_last_only, "the last segment only"),
    (STREAM, stream_returns_early, "the first segment only"),
    (STREAM, stream_joins_batch, "joined along the batch"),
    (STREAM, stream_joins_width, "joined along the width"),
    (STREAM, stream_joins_backwards, "joined in the reverse order"),
    (STREAM, stream_reads_backwards, "from the last to the first"),
    (STREAM, stream_returns_state, "You return the states"),
    (STREAM, stream_at_once, "read takes one segment (B, 1 to L = 2, d), got (1, 5, 2)"),
    (STREAM, stream_resets_often, "The first segment is right. From token 4 on, in segment 2"),
    (STREAM, stream_first_row_for_all, "in the first segment, is wrong: it is read with the state that you are given"),
    (STREAM, stream_doubles, "Your result is 2 times the right one"),
    (STREAM, stream_detached, "some step on the way is detached"),
    (STREAM, stream_list, "returned a list; it must return a torch tensor"),
    (LEAK, leak_by_shape, "You found no leak anywhere"),
    (LEAK, leak_by_nan, "0 × NaN is NaN"),
    (LEAK, leak_moves_pile_up, "start from the same x each time"),
    (LEAK, leak_by_sums, "You added up an output's numbers"),
    (LEAK, leak_first_number, "the first number of each output only"),
    (LEAK, leak_first_input_number, "the first number of each input only"),
    (LEAK, leak_strong_ones, "You left out weak leaks"),
    (LEAK, leak_loosely_compared, "You left out weak leaks"),
    (LEAK, leak_moved_too_little, "an input is moved so little"),
    (LEAK, leak_moves_all_numbers_alike, "You add the same to all numbers of an input"),
    (LEAK, leak_all_numbers, "One is enough: any, not all"),
    (LEAK, leak_of_all_outputs, "the gradient is that of all outputs together"),
    (LEAK, leak_transposed, "Your matrix is transposed"),
    (LEAK, leak_past, "You mark the past"),
    (LEAK, leak_everything, "the past and its own among them"),
    (LEAK, leak_with_diagonal, "You mark the diagonal as well"),
    (LEAK, leak_next_only, "the next input only"),
    (LEAK, leak_last_input, "You moved the last input only"),
    (LEAK, leak_inverted, "True and false are swapped"),
    (LEAK, leak_lengths, "Asked is whether: compare with 0"),
    (LEAK, leak_rows, "The shape is wrong: expected (T, T)"),
    (LEAK, leak_as_numbers, "their dtype is torch.float32; it must be torch.bool"),
    (LEAK, leak_one_row_short, "You miss a leak: output 0 moves with input"),
    (LEAK, leak_moves_alike_and_little, "It feels the difference of two numbers of the input"),
    (LEAK, leak_one_too_many, "but output 0 does not move with input"),
]


def fuse_overwriting(outputs, mix):
    shares = torch.softmax(mix, dim=0)
    shares[0] = shares[0] * 1  # right, but softmax needs its result on the way back
    return torch.einsum("p,pbhld->bhld", shares, outputs)


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=named)
def test_right_answers_pass(exercise, answer, capsys):
    assert_passes(exercise, answer, capsys)


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG, ids=named)
def test_wrong_answers_are_diagnosed(exercise, answer, words, capsys):
    assert_diagnosed(exercise, answer, words, capsys)


# The references --------------------------------------------------------------------------------------------------


def test_the_reference_fuses_as_the_package_does():
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 2, 2, 6, 4, dtype=torch.float64)
    k_mem, v_mem = torch.randn(2, 2, 2, 5, 4, dtype=torch.float64)
    mix = torch.randn(3, dtype=torch.float64)
    outputs = torch.stack([full_attention(q, k, v), chunked_attention(q, k, v, 4), memory_attention(q, k_mem, v_mem)])
    expected = hybrid_attention(q, k, v, q, k_mem, v_mem, mix.softmax(0), chunk_size=4)
    assert torch.allclose(EXERCISES[FUSE].reference(outputs, mix), expected, atol=1e-12)


def test_the_stand_in_of_the_stream_reads_and_writes_as_the_reference_says():
    for case in EXERCISES[STREAM].cases():
        read, x, state, length = case.inputs
        out = EXERCISES[STREAM].reference(*case.inputs)
        first, after = read(x[:, :length], state)
        assert torch.allclose(first.double(), out[:, :length], atol=1e-5)
        assert torch.equal(after[:, :-1], state[:, 1:])
        assert torch.allclose(after[:, -1], first.mean(1), atol=1e-6)


def test_the_stand_in_of_the_stream_refuses_what_is_no_segment():
    read, x, state, length = EXERCISES[STREAM].example.inputs
    for wrong in (x, x[:, :0], x[0]):
        with pytest.raises(ValueError, match=r"read takes one segment \(B, 1 to L = 2, d\), got"):
            read(wrong, state)
    with pytest.raises(ValueError, match="state must be"):
        read(x[:, :length], state[..., :1])


def test_the_reference_finds_the_leaks_that_gradients_find():
    for case in EXERCISES[LEAK].cases():
        read, x = case.inputs
        assert torch.equal(EXERCISES[LEAK].reference(read, x) == 1, influence(read, x).triu(1) > 0)
        past = influence(read, x).tril()
        assert (past.diagonal() > 0).all()


def test_leaks_of_an_output_cancel_in_its_sum():
    for case in EXERCISES[LEAK].cases():
        read, x = case.inputs
        if x.shape[1] > 1:
            x = x.clone().requires_grad_()
            for i, output in enumerate(read(x)):
                gradient, = torch.autograd.grad(output.sum(), x, retain_graph=True)
                assert gradient[i + 1 :].abs().sum() == 0


def test_some_leaks_do_not_show_when_all_numbers_of_an_input_are_moved_alike():
    """As in a block: LayerNorm subtracts the mean."""
    for case in EXERCISES[LEAK].cases():
        read, x = case.inputs
        wired = int(EXERCISES[LEAK].reference(read, x).sum())
        if wired and x.shape[1] > 1:
            assert leak_moves_all_numbers_alike(read, x).sum() < wired
            if wired > 1:
                assert leak_moves_all_numbers_alike(read, x).any()


def test_a_block_is_read_by_right_answers_as_by_the_package():
    torch.manual_seed(1)
    block = HybridBlock(RMATConfig(d_model=8, n_heads=2, segment_len=4, chunk_size=2, memory_slots=3, write_slots=2))
    block.double()
    x, bank = torch.randn(2, 10, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    expected = []
    state = bank
    for piece in (x[:, :4], x[:, 4:8], x[:, 8:]):
        y, state = block(piece, state)
        expected.append(y)
    for answer in (stream_by_index, stream_by_recursion, stream_while, stream):
        assert torch.equal(answer(block, x, bank, 4), torch.cat(expected, 1))
