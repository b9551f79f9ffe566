"""The checks of the exercises: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import ast
import math
from pathlib import Path

import nbformat
import pytest
import torch
from answers import assert_diagnosed, assert_passes, named, otherwise
from nbclient import NotebookClient

from rmat_tutorial import exercises, progress
from rmat_tutorial.exercises import EXERCISES, check, symptoms
from rmat_tutorial.exercises.attempt import Attempt
from rmat_tutorial.exercises.diagnosis import diagnose

SCORES, CAUSAL, HEADS = "01.scaled_scores", "01.causal_mask", "01.split_heads"
FUNCTIONS = [exercise for exercise in EXERCISES.values() if exercise.inputs]  # a question has an answer and no inputs


pytestmark = pytest.mark.usefixtures("own_home")


# Answers to the first exercise, as a learner writes them ---------------------------------------------------------


def scores_by_matmul(q, k):
    return torch.matmul(q, k.transpose(2, 3)) / math.sqrt(q.size(-1))


def scores_by_einsum(q, k):
    return torch.einsum("bhqc,bhkc->bhqk", q * q.shape[-1] ** -0.5, k)


def scores_by_loops(q, k):
    B, H, L, width = q.shape
    scores = q.new_zeros(B, H, L, k.shape[2])
    for b in range(B):
        for h in range(H):
            for i in range(L):
                for j in range(k.shape[2]):
                    scores[b, h, i, j] = (q[b, h, i] * k[b, h, j]).sum() / width**0.5
    return scores


def scores_by_broadcasting(q, k):
    root = q.shape[-1] ** 0.25
    return ((q / root).unsqueeze(3) * (k / root).unsqueeze(2)).sum(-1)


def scores_by_bmm(q, k):
    flat = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).permute(0, 2, 1))
    return flat.unflatten(0, q.shape[:2]).div(torch.tensor(q.shape[-1]).sqrt())


def scores_unscaled(q, k):
    return torch.einsum("bhic,bhjc->bhij", q, k)


def scores_mean(q, k):
    return (q[:, :, :, None] * k[:, :, None]).mean(-1)


def scores_times_root(q, k):
    return torch.matmul(q, k.mT) * math.sqrt(q.shape[3])


def scores_full_width(q, k):
    d_model = q.shape[1] * q.shape[3]
    return torch.matmul(q, k.mT) / math.sqrt(d_model)


def scores_root_of_length(q, k):
    return torch.matmul(q, k.mT) / math.sqrt(q.size(2))


def scores_swapped(q, k):
    return torch.einsum("bhic,bhjc->bhji", q, k) / math.sqrt(q.shape[-1])


def scores_viewed(q, k):
    B, H, S, width = k.shape
    return q @ k.view(B, H, width, S) / math.sqrt(width)


def scores_softmaxed(q, k):
    return torch.softmax(scores_by_matmul(q, k), dim=-1)


def scores_cosine(q, k):
    return torch.nn.functional.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)


def scores_over_heads(q, k):
    return q @ k.mT / q.shape[1]


def scores_third(q, k):
    return scores_by_matmul(q, k) / 3


def scores_first_batch(q, k):
    return q[:1] @ k.mT / q.shape[-1] ** 0.5


def scores_reversed_keys(q, k):
    return scores_by_matmul(q, k.flip(2))


def scores_summed_heads(q, k):
    return torch.einsum("bhic,bhjc->bij", q, k) / math.sqrt(q.shape[-1])


def scores_untransposed(q, k):
    scores = q @ k
    return scores / math.sqrt(q.shape[-1])


def scores_without_return(q, k):
    scores_by_matmul(q, k)


def scores_list(q, k):
    return scores_by_matmul(q, k).tolist()


def scores_double(q, k):
    return scores_by_matmul(q.double(), k.double())


def scores_single(q, k):
    return scores_by_matmul(q.float(), k.float())


def scores_in_place(q, k):
    q /= math.sqrt(q.shape[-1])
    return q @ k.mT


def scores_detached(q, k):
    return scores_by_matmul(q, k.detach())


def scores_by_item(q, k):
    return torch.tensor(scores_by_matmul(q, k).tolist(), dtype=q.dtype)


def scores_squeezed(q, k):
    return scores_by_matmul(q, k).squeeze()


def scores_one_argument(q):
    return q


def scores_with_square_shift(q, k):
    return scores_by_matmul(q, k) + torch.zeros(q.shape[2])


# Answers to the second -------------------------------------------------------------------------------------------


def causal_filled(scores):
    L = scores.shape[-1]
    hidden = torch.arange(L)[None, :] > torch.arange(L)[:, None]
    return scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)


def causal_lowest(scores):
    seen = torch.ones_like(scores).tril().bool()
    return torch.where(seen, scores, torch.finfo(scores.dtype).min).softmax(-1)


def causal_added(scores):
    L = scores.shape[-1]
    return torch.softmax(scores + torch.full((L, L), -1e9, dtype=scores.dtype).triu(1), -1)


def causal_by_hand(scores):
    powers = scores.exp().tril()
    return powers / powers.sum(-1, keepdim=True)


def causal_by_rows(scores):
    L = scores.shape[-1]
    rows = [torch.nn.functional.pad(scores[..., i, : i + 1].softmax(-1), (0, L - 1 - i)) for i in range(L)]
    return torch.stack(rows, dim=-2)


def causal_renormalised(scores):
    weights = scores.softmax(-1).tril()
    return weights / weights.sum(dim=-1, keepdim=True)


def causal_log_space(scores):
    seen = torch.ones_like(scores).tril()
    return (scores + seen.log()).log_softmax(-1).exp()


def causal_unmasked(scores):
    powers = scores.exp()
    return powers / powers.sum(-1, keepdim=True)


def causal_transposed(scores):
    L = scores.shape[-1]
    hidden = torch.arange(L)[None, :] < torch.arange(L)[:, None]
    return scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)


def causal_inverted(scores):
    seen = torch.ones(scores.shape[-1], scores.shape[-1]).tril()
    return scores.masked_fill(seen == 1, float("-inf")).softmax(-1)


def causal_hides_itself(scores):
    L = scores.shape[-1]
    return torch.softmax(scores + torch.full((L, L), float("-inf")).triu(0), -1)


def causal_hides_itself_softly(scores):
    hidden = torch.ones_like(scores).triu()
    return torch.softmax(scores - 1e9 * hidden, -1)


def causal_hides_itself_barely(scores):
    hidden = torch.ones_like(scores).triu()
    return torch.softmax(scores - 500 * hidden, -1)


def causal_one_ahead(scores):
    L = scores.shape[-1]
    return scores.masked_fill(torch.ones(L, L).triu(2) == 1, float("-inf")).softmax(-1)


def causal_masked_afterwards(scores):
    return torch.softmax(scores, -1) * torch.ones_like(scores).tril()


def causal_zeroed_before(scores):
    return (scores * torch.ones_like(scores).tril()).softmax(-1)


def causal_over_queries(scores):
    seen = torch.ones_like(scores).tril()
    return scores.masked_fill(seen == 0, float("-inf")).softmax(2)


def causal_over_heads(scores):
    seen = torch.ones_like(scores).tril()
    return scores.masked_fill(seen == 0, float("-inf")).softmax(1)


def causal_without_softmax(scores):
    seen = torch.ones_like(scores).tril()
    return scores.masked_fill(seen == 0, float("-inf"))


def causal_zero_times_infinity(scores):
    seen = torch.ones_like(scores).tril()
    return (scores + (1 - seen) * float("-inf")).softmax(-1)


def causal_mask_of_ones(scores):
    return (scores + torch.ones_like(scores).tril()).softmax(-1)


def causal_weak(scores):
    seen = torch.ones_like(scores).tril()
    return scores.masked_fill(seen == 0, -20).softmax(-1)


def causal_divided_by_largest(scores):
    powers = scores.exp().tril()
    return powers / powers.amax(-1, keepdim=True)


def causal_heads_as_length(scores):
    H = scores.shape[1]
    hidden = torch.ones(H, H).triu(1) == 1
    return scores.masked_fill(hidden, float("-inf")).softmax(-1)


def causal_in_place(scores):
    scores.masked_fill_(torch.ones_like(scores).triu(1) == 1, float("-inf"))
    return scores.softmax(-1)


def causal_half_detached(scores):
    powers = scores.exp().tril()
    return powers / powers.sum(-1, keepdim=True).detach()


def causal_uniform(scores):
    seen = torch.ones_like(scores).tril()
    return seen / seen.sum(-1, keepdim=True)


# Answers to the third --------------------------------------------------------------------------------------------


def heads_by_view(x, n_heads):
    B, L, d = x.shape
    return x.view(B, L, n_heads, d // n_heads).transpose(1, 2)


def heads_by_chunks(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


def heads_by_loops(x, n_heads):
    B, L, d = x.shape
    width = d // n_heads
    heads = torch.zeros(B, n_heads, L, width, dtype=x.dtype)
    for h in range(n_heads):
        heads[:, h] = x[:, :, h * width : (h + 1) * width]
    return heads


def heads_by_selection(x, n_heads):
    width = x.shape[-1] // n_heads
    select = torch.eye(x.shape[-1], dtype=x.dtype).unflatten(0, (n_heads, width))
    return torch.einsum("bld,hcd->bhlc", x, select)


def heads_by_transpose_first(x, n_heads):
    return x.mT.unflatten(1, (n_heads, -1)).mT.contiguous()


def heads_viewed(x, n_heads):
    B, L, d = x.shape
    return x.view(B, n_heads, L, d // n_heads)


def heads_interleaved(x, n_heads):
    return torch.stack([x[..., h::n_heads] for h in range(n_heads)], dim=1)


def heads_not_moved(x, n_heads):
    return x.unflatten(-1, (n_heads, -1))


def heads_swapped_at_end(x, n_heads):
    return x.mT.unflatten(1, (n_heads, -1))


def heads_as_width(x, n_heads):
    return torch.stack(x.split(n_heads, dim=-1), dim=1)


def heads_and_batch_swapped(x, n_heads):
    return x.unflatten(-1, (n_heads, -1)).permute(2, 1, 0, 3)


def heads_first(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1))


def heads_last(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1), dim=-1)


def heads_cut_after_transpose(x, n_heads):
    B, L, d = x.shape
    return x.mT.contiguous().view(B, n_heads, L, d // n_heads)


def heads_reversed(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1)[::-1], dim=1)


def heads_first_head_everywhere(x, n_heads):
    return torch.stack([x.chunk(n_heads, dim=-1)[0]] * n_heads, dim=1)


def heads_doubled_and_shifted(x, n_heads):
    return heads_by_view(x, n_heads) + 0.5


def heads_halved(x, n_heads):
    return heads_by_view(x, n_heads) / 2


def heads_flat(x, n_heads):
    return heads_by_view(x, n_heads).flatten(0, 1)


def heads_from_numbers(x, n_heads):
    return torch.tensor(heads_by_view(x, n_heads).tolist(), dtype=x.dtype)


def heads_by_two(x, n_heads):
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


RIGHT = [
    (SCORES, scores_by_matmul),
    (SCORES, scores_by_einsum),
    (SCORES, scores_by_loops),
    (SCORES, scores_by_broadcasting),
    (SCORES, scores_by_bmm),
    (CAUSAL, causal_filled),
    (CAUSAL, causal_lowest),
    (CAUSAL, causal_added),
    (CAUSAL, causal_by_hand),
    (CAUSAL, causal_by_rows),
    (CAUSAL, causal_renormalised),
    (CAUSAL, causal_log_space),
    (HEADS, heads_by_view),
    (HEADS, heads_by_chunks),
    (HEADS, heads_by_loops),
    (HEADS, heads_by_selection),
    (HEADS, heads_by_transpose_first),
]

# In each group, those that no known mistake covers come last: the symptoms must tell.
WRONG = [
    (SCORES, scores_unscaled, "not divided by √d_h"),
    (SCORES, scores_mean, "divided by d_h instead of √d_h"),
    (SCORES, scores_times_root, "multiplied by √d_h"),
    (SCORES, scores_full_width, "√d, the width of the whole model"),
    (SCORES, scores_root_of_length, "√L, the number of queries"),
    (SCORES, scores_swapped, "Queries and keys are swapped"),
    (SCORES, scores_viewed, "view or reshape where a transpose is needed"),
    (SCORES, scores_softmaxed, "already applied the softmax"),
    (SCORES, scores_cosine, "cosine"),
    (SCORES, scores_over_heads, "Your result is √d_h/H times the right one"),
    (SCORES, scores_third, "Your result is 0.3333 times the right one"),
    (SCORES, scores_first_batch, "It is right only when B = 1."),
    (SCORES, scores_reversed_keys, "in the wrong places"),
    (SCORES, scores_summed_heads, "expected (B, H, L, S) = (1, 1, 2, 3), got (1, 2, 3). Yours reads (B, L, S)."),
    (SCORES, scores_untransposed, "In your line: scores = q @ k"),
    (SCORES, scores_untransposed, "the last axis of a has 4 numbers, the second to last axis of b has 3"),
    (SCORES, scores_without_return, "returned None. Is the return line missing?"),
    (SCORES, scores_list, "returned a list; it must return a torch tensor"),
    (SCORES, scores_double, "dtype is torch.float64 where the input has torch.float32"),
    (SCORES, scores_single, "It is wrong only when the input is float64."),
    (SCORES, scores_in_place, "changes its input q in place"),
    (SCORES, scores_detached, "no gradient reaches k"),
    (SCORES, scores_by_item, "no gradient reaches the inputs"),
    (SCORES, scores_squeezed, "The number of axes changes with the sizes"),
    (SCORES, scores_one_argument, "takes 1 positional argument but 2 were given"),
    (SCORES, scores_with_square_shift, "raised RuntimeError: The size of tensor a (3) must match"),
    (CAUSAL, causal_unmasked, "Nothing is masked"),
    (CAUSAL, causal_transposed, "hides the past instead of the future"),
    (CAUSAL, causal_inverted, "Your mask is inverted"),
    (CAUSAL, causal_hides_itself, "The diagonal is hidden: a token must see itself"),
    (CAUSAL, causal_hides_itself_softly, "The diagonal is hidden: a token must see itself"),
    (CAUSAL, causal_one_ahead, "one token ahead"),
    (CAUSAL, causal_masked_afterwards, "masked after the softmax"),
    (CAUSAL, causal_zeroed_before, "setting its scores to 0. But exp(0) = 1"),
    (CAUSAL, causal_over_queries, "over the queries (dim=-2)"),
    (CAUSAL, causal_over_heads, "over the heads (dim=1)"),
    (CAUSAL, causal_without_softmax, "the softmax is missing"),
    (CAUSAL, causal_zero_times_infinity, "0 by −inf, and that is NaN"),
    (CAUSAL, causal_mask_of_ones, "mask of 0 and 1"),
    (CAUSAL, causal_hides_itself_barely, "The diagonal is hidden: a token must see itself"),
    (CAUSAL, causal_weak, "a score such as −10 only makes the weight small"),
    (CAUSAL, causal_divided_by_largest, "Each row must sum to 1"),
    (CAUSAL, causal_heads_as_length, "It is right only when H = L."),
    (CAUSAL, causal_in_place, "changes its input scores in place"),
    (CAUSAL, causal_half_detached, "the gradient that reaches scores is not"),
    (CAUSAL, causal_uniform, "It is right only when L = 1."),
    (HEADS, heads_viewed, "without moving the head axis"),
    (HEADS, heads_interleaved, "interleaved"),
    (HEADS, heads_not_moved, "still behind the tokens"),
    (HEADS, heads_swapped_at_end, "last two axes are swapped"),
    (HEADS, heads_as_width, "n_heads as the width"),
    (HEADS, heads_and_batch_swapped, "swapped the heads with the batch"),
    (HEADS, heads_first, "before the batch"),
    (HEADS, heads_last, "heads are the last axis"),
    (HEADS, heads_cut_after_transpose, "transposed x and then cut it"),
    (HEADS, heads_reversed, "result[0, 0, 0, 0] holds x[0, 0, 2]; it must hold x[0, 0, 0]."),
    (HEADS, heads_first_head_everywhere, "result[0, 1, 0, 0] holds x[0, 0, 0]; it must hold x[0, 0, 2]."),
    (HEADS, heads_doubled_and_shifted, "result[0, 0, 0, 0] is 1.5, which is no number of x"),
    (HEADS, heads_halved, "Your result is 0.5 times the right one"),
    (HEADS, heads_flat, "Yours reads (B·H, L, d_h)."),
    (HEADS, heads_from_numbers, "no gradient reaches the inputs"),
    (HEADS, heads_by_two, "In your line: return x.unflatten(-1, (2, -1)).transpose(1, 2)"),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=named)
def test_right_answers_pass(exercise, answer, capsys):
    assert_passes(exercise, answer, capsys)


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG, ids=named)
def test_wrong_answers_are_diagnosed(exercise, answer, words, capsys):
    assert_diagnosed(exercise, answer, words, capsys)


def test_known_mistakes_are_told_apart():
    for exercise in FUNCTIONS:
        assert len(exercise.mistakes) >= 8
        for mistake in exercise.mistakes:
            assert diagnose(exercise, mistake.answer).diagnosis == mistake.diagnosis


def test_a_failure_shows_the_numbers_of_the_smallest_input(capsys):
    check(SCORES, scores_unscaled, otherwise)
    numbers = capsys.readouterr().out.split("\n\n")[1]
    assert numbers == (
        "Smallest input that shows it: B = 1, H = 1, L = 2, S = 3, d_h = 4\n"
        "q (1, 1, 2, 4)\n"
        "  q[0, 0] =  1   0   2  -1\n"
        "             0   3   1   2\n"
        "k (1, 1, 3, 4)\n"
        "  k[0, 0] =  2   1   0   4\n"
        "             1   1   3   1\n"
        "            -2   0   1   5\n"
        "expected (1, 1, 2, 3)\n"
        "  expected[0, 0] =   -1     3  -2.5\n"
        "                    5.5     4   5.5\n"
        "got (1, 1, 2, 3)\n"
        "  got[0, 0] = -2   6  -5\n"
        "              11   8  11\n"
    )


def test_of_a_large_input_the_part_that_differs_is_shown(capsys):
    check(SCORES, lambda q, k: scores_by_matmul(q, k[:, :1]), otherwise)
    text = capsys.readouterr().out
    assert "It is right only when H = 1." in text
    assert "got[0, 1] = " in text
    assert "got[0, 0] = " not in text


def test_a_notebook_may_switch_gradients_off():
    with torch.no_grad():
        assert check(SCORES, scores_by_matmul, otherwise) is scores_by_matmul
        assert check(SCORES, scores_detached, otherwise) is otherwise


def stub(*inputs):
    raise NotImplementedError("not attempted yet")


@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_untouched_stub_is_not_attempted_and_not_recorded(exercise, capsys):
    assert check(exercise, stub, otherwise) is otherwise
    assert capsys.readouterr().out.startswith(f"{exercise}: not attempted yet. ")
    assert progress.exercises() == {}


def test_an_operation_that_torch_lacks_is_an_error_not_a_stub(capsys):
    check(SCORES, lambda q, k: q.bool() @ k.bool().mT, otherwise)
    assert "raised NotImplementedError" in capsys.readouterr().out
    assert progress.exercises() == {SCORES: False}


def test_the_function_of_the_course_is_not_taken_for_an_answer(capsys):
    assert check(SCORES, scores_by_matmul, scores_by_matmul) is scores_by_matmul
    assert capsys.readouterr().out.startswith(f"{SCORES}: not attempted yet. ")
    assert progress.exercises() == {}


def test_what_an_answer_prints_comes_once(capsys):
    def chatty(q, k):
        print("shape of q:", tuple(q.shape))
        return scores_by_matmul(q, k)

    assert check(SCORES, chatty, otherwise) is chatty
    assert capsys.readouterr().out.count("shape of q:") == 1


def test_what_cannot_be_checked_raises():
    with pytest.raises(ValueError, match=r"'01\.scaled_score' is unknown; did you mean '01\.scaled_scores'\?"):
        check("01.scaled_score", scores_by_matmul, otherwise)
    with pytest.raises(ValueError, match=r"'xyz' is unknown; known: '.*'01\.scaled_scores', '01\.causal_mask', "):
        check("xyz", scores_by_matmul, otherwise)
    with pytest.raises(TypeError, match=r"exercise must be a name .* got function"):
        check(scores_by_matmul, scores_by_matmul, otherwise)
    with pytest.raises(TypeError, match="answer must be a function, got Tensor: pass it without calling it"):
        check(SCORES, torch.zeros(1), otherwise)
    with pytest.raises(TypeError, match="otherwise must be a function, got NoneType"):
        check(SCORES, scores_by_matmul, None)


def test_inputs_cannot_be_answered_by_accident():
    for exercise in FUNCTIONS:
        cases = exercise.cases()
        sizes = [list(case.sizes.values()) for case in cases]
        assert sum(len(set(s)) == len(s) and 1 not in s for s in sizes) >= 3
        least = exercise.fit(dict.fromkeys(exercise.example.sizes, 1))  # An even width cannot be 1.
        for axis in least:
            small = exercise.fit(dict.fromkeys(least, 6) | {axis: 1})  # In a bank of one slot, one is written.
            forced = [name for name in least if small[name] == least[name]]
            assert any([name for name in least if case.sizes[name] == least[name]] == forced for case in cases)
        for case in cases:
            expected = exercise.reference(*case.inputs)
            assert expected.shape == tuple(case.sizes[axis] for axis in exercise.output)
            assert expected.unique().numel() > 1 or not exercise.output or 1 in case.sizes.values()


def test_cases_are_the_same_each_time_and_leave_torch_random_state_alone():
    before = torch.random.get_rng_state()
    for exercise in EXERCISES.values():
        for one, other in zip(exercise.cases(), exercise.cases(), strict=True):
            assert one.sizes == other.sizes
            for first, second in zip(one.inputs, other.inputs, strict=True):
                if not isinstance(first, torch.Tensor | int | float):
                    assert repr(first) == repr(second) and " at 0x" not in repr(first)
                else:
                    assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))
        assert diagnose(exercise, stub) is not None
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_checks_import_nothing_that_they_check():
    folder = Path(exercises.__file__).parent
    own = {file.stem for file in folder.glob("*.py")}
    outside = {"progress"}
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("rmat_tutorial") for alias in node.names), file
            if isinstance(node, ast.ImportFrom):
                assert not (node.level == 0 and node.module.startswith("rmat_tutorial")), file
                names = [node.module] if node.module else [alias.name for alias in node.names]
                assert node.level != 1 or set(names) <= own, file
                assert node.level != 2 or set(names) <= outside, file
                assert node.level <= 2, file


CELLS = (
    "from rmat_tutorial.exercises import check",
    "def untouched(q, k):\n    raise NotImplementedError('not attempted yet')\n\n"
    "scores = check('01.scaled_scores', untouched, print)",
    "def hopeful(q, k):\n    scores = q @ k  # <b>\n    return scores\n\n"
    "scores = check('01.scaled_scores', hopeful, print)",
    "scores = check('01.scaled_scores', lambda q, k: q @ k.mT / q.shape[-1] ** 0.5, print)",
)


def run_cells(home: Path) -> list[list[dict]]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(home)}}).execute()
    return [[output["data"] for output in cell["outputs"]] for cell in notebook.cells]


def test_a_notebook_shows_one_display_with_html_and_the_same_words_as_text(tmp_path):
    outputs = run_cells(tmp_path)
    assert [len(cell) for cell in outputs] == [0, 1, 1, 1]
    (stubbed,), (failed,), (passed,) = outputs[1:]
    for data, colour, words in (
        (stubbed, "#777777", "01.scaled_scores: not attempted yet."),
        (failed, "#D55E00", "01.scaled_scores: not right yet."),
        (passed, "#009E73", "01.scaled_scores: OK."),
    ):
        assert set(data) == {"text/plain", "text/html"}
        assert colour in data["text/html"]
        assert f"<b>{words}</b>" in data["text/html"]
        assert data["text/plain"].startswith(words)
    assert "In your line: scores = q @ k  # <b>\n" in failed["text/plain"]
    assert "In your line: scores = q @ k  # &lt;b&gt;<br>" in failed["text/html"]
    assert "expected[0, 0] =   -1     3  -2.5\n" in failed["text/html"]
    assert outputs == run_cells(tmp_path)


def test_where_all_is_zero_any_factor_would_do():
    case = EXERCISES[SCORES].example
    wanted = torch.zeros(2, 3)
    assert symptoms._factor([Attempt(case, wanted.clone())], [wanted]) is None
    assert symptoms._factor([Attempt(case, wanted + 1)], [wanted]) is None
