"""Each finding of the doctor is driven into FAIL by something that happens to people, and names its fix."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import jupyter_client.kernelspec
import jupyter_core.paths
import psutil
import pytest
import torch

from rmat_tutorial import checkpoints, doctor
from rmat_tutorial.doctor import Finding, as_text, diagnose, main, pins


def missing(*modules):
    def break_it(monkeypatch, tmp_path):
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)

    return break_it


def versions(**installed):
    """Other versions of some packages; None is a package that is not installed."""

    def break_it(monkeypatch, tmp_path):
        original = metadata.version

        def version(package):
            if package not in installed:
                return original(package)
            if installed[package] is None:
                raise metadata.PackageNotFoundError(package)
            return installed[package]

        monkeypatch.setattr(metadata, "version", version)

    return break_it


def raising(target, name, error):
    def break_it(monkeypatch, tmp_path):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(target, name, fail)

    return break_it


def old_python(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (4, 0))


def wrong_products(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda self, other: self + other)


def no_lab_extension(monkeypatch, tmp_path):
    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *parts: [str(tmp_path.joinpath(*parts))])


def kernel_of_another_environment(monkeypatch, tmp_path):
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = ["/opt/old/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "old", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))


def only_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(doctor.ROOT)])


def another_copy_installed(monkeypatch, tmp_path):
    installed = tmp_path / "rmat_tutorial-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: rmat_tutorial\nVersion: 0.1.0\n")
    (installed / "direct_url.json").write_text(json.dumps({"url": "file:///elsewhere/course"}))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


def home_below_a_file(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RMAT_HOME", str(tmp_path / "file" / "home"))


def package_without_its_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)


def full_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=200_000_000))


def no_data(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "data", lambda: tmp_path)


def data_not_downloaded(monkeypatch, tmp_path):
    (tmp_path / "recall.safetensors").write_text("version 1\noid sha256:00\nsize 400000\n")
    no_data(monkeypatch, tmp_path)


TROUBLES = [
    ("Python", old_python, "too old", "new environment with Python 3.11"),
    ("torch", missing("torch"), "torch is missing", "pip install -r requirements.txt"),
    ("torch", raising(torch, "arange", RuntimeError("no kernel image")), "no kernel image", "requirements.txt"),
    ("torch", wrong_products, "wrong", "pip install -r requirements.txt"),
    ("Jupyter", missing("jupyterlab.labapp"), "jupyterlab.labapp is missing", "pip install -r requirements.txt"),
    ("widget managers", versions(jupyterlab_widgets="1.1.1"), "do not belong together", "requirements.txt"),
    ("widget managers", versions(widgetsnbextension=None), "widgetsnbextension is not", "requirements.txt"),
    ("widget managers", no_lab_extension, "does not find", "--force-reinstall --no-deps jupyterlab_widgets"),
    ("kernel", kernel_of_another_environment, "/opt/old/bin/python", "jupyter kernelspec remove python3"),
    ("kernel", missing("jupyter_client.kernelspec"), "is missing", "pip install -r requirements.txt"),
    (
        "kernel",
        raising(
            jupyter_client.kernelspec.KernelSpecManager,
            "get_kernel_spec",
            jupyter_client.kernelspec.NoSuchKernel("python3"),
        ),
        "no kernel called python3",
        "--force-reinstall --no-deps ipykernel",
    ),
    ("rmat_tutorial", only_a_clone, "not installed", "pip install --no-deps -e ."),
    ("rmat_tutorial", another_copy_installed, "file:///elsewhere/course", "pip install --no-deps -e ."),
    ("home folder", home_below_a_file, "home", "RMAT_HOME"),
    ("notebooks folder", package_without_its_repository, "notebooks is not writable", "folder of your own"),
    ("free memory", full_memory, "0.2 GB", "close other programs"),
    ("free memory", missing("psutil"), "psutil is missing", "pip install -r requirements.txt"),
    ("pinned versions", package_without_its_repository, "requirements.txt", "in a clone"),
    *((f"package {package}", versions(**{package: None}), "is not installed", f"pip install {package}==")
      for package in pins()),
    ("package torch", versions(torch="2.11.0+cu126"), "2.11.0+cu126", f"torch=={pins()['torch']}"),
    *((f"model {name}", no_data, f"no checkpoint '{name}'", "git checkout -- data")
      for name in doctor.SHIPPED_MODELS),
    ("model recall", data_not_downloaded, "readable checkpoint", "git checkout -- data"),
    ("model text", missing("rmat_tutorial.model"), "is missing", "pip install -r requirements.txt"),
]


def test_this_environment_is_healthy():
    assert [finding for finding in diagnose() if not finding.ok] == []


@pytest.mark.parametrize(
    ("name", "break_it", "detail", "fix"), TROUBLES, ids=[f"{name}-{detail}" for name, _, detail, _ in TROUBLES]
)
def test_trouble_is_found_and_its_fix_named(monkeypatch, tmp_path, name, break_it, detail, fix):
    break_it(monkeypatch, tmp_path)
    finding = next(finding for finding in diagnose() if finding.name == name)
    assert not finding.ok
    assert detail in finding.detail
    assert fix in finding.fix
    assert "\n" not in as_text([finding])


def test_every_finding_has_a_trouble_above():
    assert {finding.name for finding in diagnose()} == {name for name, *_ in TROUBLES}


def test_a_build_label_is_no_other_version(monkeypatch, tmp_path):
    versions(torch=pins()["torch"] + "+cu130")(monkeypatch, tmp_path)
    assert next(finding for finding in diagnose() if finding.name == "package torch").ok


def test_healthy_details_name_no_folder():
    details = " ".join(finding.detail for finding in diagnose() if finding.ok)
    assert str(doctor.ROOT) not in details
    assert str(Path.home()) not in details


def test_colab_keeps_its_own_torch_and_jupyter(monkeypatch, tmp_path):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    versions(torch="2.11.0+cu126", jupyterlab=None, ipywidgets="7.7.1")(monkeypatch, tmp_path)
    findings = {finding.name: finding for finding in diagnose()}
    assert {name for name in findings if name.startswith("package")} == {
        "package safetensors", "package sympy", "package networkx"
    }
    assert not {"Jupyter", "widget managers", "kernel"} & set(findings)
    assert findings["torch"].ok


def test_lines_are_aligned_and_only_failures_carry_a_fix():
    good, bad = as_text([Finding("torch", True, "fine"), Finding("free memory", False, "none", "more")]).splitlines()
    assert good == "OK    torch        fine"
    assert bad == "FAIL  free memory  none -> more"


@pytest.mark.parametrize("healthy", [True, False])
def test_status_and_report(monkeypatch, capsys, healthy):
    finding = Finding("torch", healthy, "2.13.0", "" if healthy else "install it")
    monkeypatch.setattr(doctor, "diagnose", lambda: [finding])
    assert main(as_json=False) == (0 if healthy else 1)
    assert capsys.readouterr().out.splitlines()[-1] == ("all 1 checks passed" if healthy else "1 of 1 checks failed")
    assert main(as_json=True) == (0 if healthy else 1)
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is healthy
    assert report["findings"] == [{"name": "torch", "ok": healthy, "detail": "2.13.0", "fix": finding.fix}]


def run_without_torch(code):
    code = f"import sys; sys.modules['torch'] = None\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def command_without_torch(*arguments):
    return run_without_torch(
        f"import runpy; sys.argv = ['', *{arguments}]; runpy.run_module('rmat_tutorial', run_name='__main__')"
    )


def test_the_command_works_where_torch_is_missing():
    run = command_without_torch("doctor", "--json")
    assert run.returncode == 1
    assert run.stderr == ""
    assert {"name": "torch", "ok": False} in [
        {key: finding[key] for key in ("name", "ok")} for finding in json.loads(run.stdout)["findings"]
    ]


def test_a_missing_torch_leads_to_the_doctor():
    for run in (command_without_torch("evaluate", "recall"), run_without_torch("from rmat_tutorial import RMAT")):
        assert run.returncode == 1
        assert run.stderr.splitlines()[-1].endswith("python -m rmat_tutorial doctor")
