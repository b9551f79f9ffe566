"""The backends as torch and the package see them: operators, compiled models, the choice of `auto`, what is missing."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from backend_cases import make_inputs
from interpreter import DEVICE, patch_once, use_tiles
from strategies import PATHS, assert_one_line, gap, make_model, random_tokens, read_in_pieces

from rmat_tutorial import CheckpointError, LanguageModel, hybrid_attention, kernels
from rmat_tutorial.kernels import resolve_backend, suited, triton_launch, triton_ops
from rmat_tutorial.kernels.limits import TOLERANCES
from rmat_tutorial.kernels.triton_ops import fused


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    patch_once(monkeypatch)
    use_tiles(monkeypatch, 8, 8)


def test_the_operators_are_what_they_say():
    """Schema, shapes without data, autograd and tracing, as torch checks them."""
    inputs = [x.float().to(DEVICE).requires_grad_() for x in make_inputs(1, 1, 3, 4, 2, 16, PATHS).values()]
    torch.library.opcheck(torch.ops.rmat_tutorial.hybrid_forward, (*inputs, None, None, 2, True, True))
    plain = [x.detach() for x in inputs]
    out, log_sums = torch.ops.rmat_tutorial.hybrid_forward(*plain, None, None, 2, True, True)
    torch.library.opcheck(
        torch.ops.rmat_tutorial.hybrid_backward, (*plain, None, None, 2, True, True, out, log_sums, out.clone())
    )
    of_rows = [x.detach().expand(2, *x.shape[-3:]).clone().requires_grad_() for x in inputs[:-1]]
    weights = inputs[-1].detach().expand(2, 3).clone().requires_grad_()
    torch.library.opcheck(torch.ops.rmat_tutorial.hybrid_forward, (*of_rows, weights, None, None, 2, True, True))


def logits_and_gradients(model, read):
    tokens = random_tokens(1, 8).to(DEVICE)
    logits = read(tokens).logits
    return [logits.detach(), *torch.autograd.grad(logits.square().mean(), list(model.parameters()))]


def test_a_model_reads_and_learns_the_same():
    results = []
    for backend in ("eager", "triton"):
        model = make_model(backend=backend, dtype=torch.float32, n_layers=1).to(DEVICE)
        results.append(logits_and_gradients(model, model))
    for expected, ours in zip(*results, strict=True):
        assert gap(ours, expected) <= 1e-4 * max(1.0, expected.abs().max().item())


def test_a_model_reads_in_pieces_as_whole():
    model, tokens = make_model(backend="triton", dtype=torch.float32, n_layers=1).to(DEVICE), random_tokens(1, 9)
    with torch.no_grad():
        pieces, _ = read_in_pieces(model, tokens.to(DEVICE), [3, 1, 5])
        assert gap(pieces, model(tokens.to(DEVICE)).logits) < 1e-4


def test_in_autocast_a_model_reads_in_pieces_as_whole():
    """Its cache is in float32, its queries are not."""
    model, tokens = make_model(backend="triton", dtype=torch.float32, n_layers=1).to(DEVICE), random_tokens(1, 9)
    with torch.no_grad(), torch.autocast(DEVICE, torch.float16):
        pieces, _ = read_in_pieces(model, tokens.to(DEVICE), [3, 1, 5])
        assert gap(pieces, model(tokens.to(DEVICE)).logits) < 2e-2


def test_layers_side_by_side_learn_the_same():
    """The rows of a step are of several layers, and λ is another for each."""
    model = make_model(backend="triton", dtype=torch.float32, n_layers=2, segment_len=4).to(DEVICE)
    plain = logits_and_gradients(model, model)
    model.order = "wavefront"
    for expected, ours in zip(plain, logits_and_gradients(model, model), strict=True):
        assert gap(ours, expected) <= 1e-4 * max(1.0, expected.abs().max().item())


def test_a_compiled_model_reads_and_learns_the_same():
    model = make_model(backend="triton", dtype=torch.float32, n_layers=1).to(DEVICE)
    compiled = torch.compile(model, backend="aot_eager")
    for expected, ours in zip(logits_and_gradients(model, model), logits_and_gradients(model, compiled), strict=True):
        assert gap(ours, expected) <= 1e-5 * max(1.0, expected.abs().max().item())


def test_the_attention_compiles_into_one_graph():
    inputs = [x.float().to(DEVICE).requires_grad_() for x in make_inputs(1, 1, 5, 5, 3, 16, PATHS).values()]
    compiled = torch.compile(lambda *x: fused(*x, 2, PATHS) * 2, backend="aot_eager", fullgraph=True)
    gradients = [torch.autograd.grad(attend(*inputs).sum(), inputs)
                 for attend in (compiled, lambda *x: fused(*x, 2, PATHS) * 2)]
    assert all(gap(*pair) < TOLERANCES[torch.float32] for pair in zip(*gradients, strict=True))


def like(device, dtype=torch.bfloat16, shape=(2, 4, 10, 64)):
    """What `auto` looks at of a tensor."""
    return SimpleNamespace(is_cuda=device == "cuda", device=device, dtype=dtype, shape=torch.Size(shape))


@pytest.fixture
def chip(monkeypatch):
    """Sets the compute capability of the CUDA device that is not there, at first 9.0."""
    def be(major, minor):
        properties = SimpleNamespace(major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)

    be(9, 0)
    return be


@pytest.mark.usefixtures("chip")
@pytest.mark.parametrize("q, backend", [
    (like("cpu"), "sdpa"),
    (like("mps"), "sdpa"),
    (like("cuda"), "triton"),
    (like("cuda", torch.float16, (1, 1, 1, 128)), "triton"),
    (like("cuda", torch.float32), "sdpa"),
    (like("cuda", torch.float64), "sdpa"),
    (like("cuda", shape=(2, 4, 10, 130)), "sdpa"),
    (like("cuda", shape=(8192, 8, 10, 64)), "sdpa"),
])
def test_auto_picks_by_device_dtype_and_shape(monkeypatch, q, backend):
    assert suited(q) == backend
    monkeypatch.setattr(kernels, "HAS_TRITON", False)
    assert suited(q) == "sdpa"


@pytest.mark.parametrize("capability, backend", [
    ((7, 0), "sdpa"), ((7, 5), "sdpa"), ((8, 0), "triton"), ((8, 9), "triton"), ((12, 0), "triton"),
])
def test_auto_picks_by_what_the_chip_can_do(chip, capability, backend):
    chip(*capability)
    assert [suited(like("cuda", dtype)) for dtype in (torch.float16, torch.bfloat16)] == [backend] * 2


def test_auto_runs_what_it_picks(monkeypatch):
    inputs = [x.float().to(DEVICE) for x in make_inputs(1, 1, 5, 5, 3, 16, PATHS).values()]
    for backend in ("triton", "sdpa"):
        monkeypatch.setattr(kernels, "suited", lambda q, backend=backend: backend)
        assert torch.equal(*(hybrid_attention(*inputs, chunk_size=2, backend=name) for name in ("auto", backend)))


@pytest.mark.parametrize("changes, fragments", [
    ({"dtype": torch.float64}, ["float64", "float32", "float16", "'sdpa'"]),
    ({"width": 130}, ["d_h", "128", "130", "'sdpa'"]),
])
def test_what_the_kernels_do_not_take(changes, fragments):
    options = {"dtype": torch.float32, "width": 16} | changes
    inputs = make_inputs(1, 1, 3, 3, 2, options["width"], PATHS)
    with pytest.raises(ValueError) as error:
        hybrid_attention(*(x.to(DEVICE, options["dtype"]) for x in inputs.values()), chunk_size=2, backend="triton")
    assert_one_line(str(error.value), "'triton'", *fragments)


@pytest.mark.parametrize("place, name", [(1, "k"), (2, "v"), (3, "q_mem"), (4, "k_mem"), (5, "v_mem")])
def test_the_kernels_refuse_mixed_dtypes(place, name):
    inputs = [x.to(DEVICE, torch.float16) for x in make_inputs(1, 1, 3, 3, 2, 16, PATHS).values()]
    inputs[place] = inputs[place].float()
    with pytest.raises(ValueError) as error:
        fused(*inputs, 2, PATHS)
    assert_one_line(str(error.value), "'triton'", f"{name} ", "float32", "float16")


def test_the_kernels_need_a_gpu_unless_they_are_interpreted(monkeypatch):
    monkeypatch.setattr(triton_ops, "INTERPRETED", False)
    with pytest.raises(ValueError) as error:
        fused(*(x.float() for x in make_inputs(1, 1, 3, 3, 2, 16, PATHS).values()), 2, PATHS)
    assert_one_line(str(error.value), "'triton'", "CUDA", "cpu", "'sdpa'")


def test_the_interpreter_refuses_bfloat16(monkeypatch):
    monkeypatch.setattr(triton_ops, "INTERPRETED", True)
    with pytest.raises(ValueError) as error:
        fused(*(x.bfloat16() for x in make_inputs(1, 1, 3, 3, 2, 16, PATHS).values()), 2, PATHS)
    assert_one_line(str(error.value), "'triton'", "bfloat16", "'sdpa'")


def tried_by(batch, n_queries, n_keys, rope=False):
    """What a launch on such tensors tells the trial of tile sizes."""
    q, k = (torch.zeros(batch, 8, rows, 16) for rows in (n_queries, n_keys))
    tables = [torch.zeros(n_keys, 8)] * 2 if rope else [None] * 2
    call = triton_launch.Call(q, k, k, q, k, k, torch.zeros(3), *tables, 4, True, True)
    given = []

    class Noting:
        def __getitem__(self, grid):
            return lambda **arguments: given.append(tuple(arguments[name] for name in triton_launch.TRIED_BY))

    triton_launch.launch({4: Noting()}, call, lambda meta: 1, {})
    return given[0]


def test_tile_sizes_are_tried_anew_where_others_may_be_best():
    whole = tried_by(16, 2048, 2048)
    assert whole == tried_by(16, 2048, 2048) == tried_by(15, 1900, 1900)
    others = [tried_by(16, 1, 2048), tried_by(16, 2048, 4096), tried_by(1, 2048, 2048), tried_by(16, 2048, 2048, True)]
    assert len({whole, *others}) == 5


def test_without_triton_its_backend_says_what_to_install(monkeypatch, tmp_path):
    make_model(backend="triton").save(tmp_path / "model.safetensors")
    monkeypatch.setattr(kernels, "HAS_TRITON", False)
    for use in (lambda: resolve_backend("triton"), lambda: make_model(backend="triton")):
        with pytest.raises(ImportError) as error:
            use()
        assert_one_line(str(error.value), "'triton'", "pip install triton==", "'sdpa'")
    with pytest.raises(CheckpointError) as error:
        LanguageModel.from_checkpoint(tmp_path / "model.safetensors")
    assert_one_line(str(error.value), "model.safetensors", "pip install triton==")
    assert resolve_backend("auto") and resolve_backend("flex")


def test_the_package_does_not_import_triton():
    code = "import sys, rmat_tutorial as r; r.RMAT(r.RMATConfig()); sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_kernels_compile_for_a_gpu(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-m", "tests.compile_kernels"], cwd=Path(__file__).parents[1],
                         env=environment, capture_output=True, text=True)
    assert run.stdout.split() == ["forward_kernel", "dq_kernel", "dkv_kernel"], run.stderr
