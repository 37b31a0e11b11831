"""The vLLM runtime: what decides it, what a node must see, and what it says where it can't be "
"built."""

import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal.image import vllm


def test_every_entry_of_the_lock_is_pinned_with_a_hash():
    torch, rest = vllm.split_lock(vllm.LOCK.read_text())
    entries = (torch + rest).replace("\\\n", "").splitlines()
    assert len(entries) > 100
    for entry in entries:
        requirement, digest = entry.split()
        assert "==" in requirement
        assert digest.startswith("--hash=sha256:")


def test_the_lock_is_split_into_torch_and_all_others():
    torch, rest = vllm.split_lock(
        "# head\na==1 \\\n    --hash=sha256:aa\ntorch==2 \\\n    --hash=sha256:bb\nb==3\n"
    )
    assert torch == "torch==2 \\\n    --hash=sha256:bb\n"
    assert rest == "a==1 \\\n    --hash=sha256:aa\nb==3\n"


def test_the_lock_names_no_address():
    assert "://" not in vllm.LOCK.read_text()


def test_the_plugin_is_part_of_what_decides_the_runtime():
    names = {path.name for path in vllm.plugin_sources()}
    assert {"pyproject.toml", "__init__.py", "collectives.py", "experts.py"} <= names


def runtime_of(folder: Path, home: str) -> Path:
    (folder / "pyvenv.cfg").write_text(f"home = {home}\nversion = 3.11.7\n")
    return folder


def test_a_node_sees_the_runtime_and_its_interpreter(tmp_path):
    runtime = runtime_of(tmp_path, "/opt/pythons/3.11/bin")
    assert vllm.binds(runtime) == [
        (runtime, "/opt/vllm"),
        (Path("/opt/pythons/3.11"), "/opt/pythons/3.11"),
    ]


def test_without_a_compiler_the_error_says_what_to_install(tmp_path, monkeypatch):
    base = vllm.interpreter()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(vllm.RuntimeBuildError, match=r"gcc and nm .*apt-get install gcc binutils"):
        vllm.build(tmp_path / "runtime", base)


def test_without_the_right_python_the_error_says_which(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(vllm.RuntimeBuildError, match=r"needs CPython 3\.11"):
        vllm.interpreter()


def test_the_base_interpreter_is_found_from_inside_a_virtual_environment():
    found = vllm.interpreter()
    assert found.prefix == Path(sys.base_prefix) or found.version.startswith("3.11.")
    in_venv = f"import sys; sys.exit(sys.prefix != {str(found.prefix)!r})"
    assert subprocess.run([str(found.executable), "-c", in_venv], check=False).returncode == 0


@pytest.mark.skipif(
    not Path("/usr/bin/python3.11").exists(), reason="the system has no Python 3.11"
)
def test_an_interpreter_of_the_system_is_copied_since_nodes_have_their_own_there(tmp_path):
    system = vllm._ask("/usr/bin/python3.11")
    assert system is not None
    assert system.of_the_system
    copied = vllm.copy_interpreter(system, tmp_path / "base")
    assert copied.prefix == tmp_path / "base"
    run = [str(copied.executable), "-c", "import ctypes, ssl, multiprocessing; print(ssl.__file__)"]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert printed.startswith(str(tmp_path))


def test_a_shared_interpreter_of_the_system_is_refused(tmp_path):
    shared = vllm.Interpreter(
        Path("/usr/local/bin/python3.11"), Path("/usr/local"), "3.11.9", shared_library=True
    )
    with pytest.raises(vllm.RuntimeBuildError, match="shared libpython under /usr/local"):
        vllm.copy_interpreter(shared, tmp_path / "base")


def test_a_failed_step_shows_the_end_of_its_output():
    with pytest.raises(vllm.RuntimeBuildError, match=r"(?s)exit status 3.*no such wheel"):
        vllm._run([sys.executable, "-c", "import sys; print('no such wheel'); sys.exit(3)"])


@pytest.mark.e2e
def test_the_runtime_works_at_its_place_on_a_node():
    runtime = vllm.ensure()
    (source, target), (base, base_target) = vllm.binds(runtime)
    assert target == vllm.ON_NODES
    assert str(base) == base_target
    script = (
        'mount -t tmpfs none /opt && mkdir /opt/vllm && mount --bind "$1" /opt/vllm && '
        "mount -o remount,bind,ro /opt/vllm && exec /opt/vllm/bin/python -c "
        "'import nixl, vllm, vllm_cpu_ep, vllm_router, torch; print(vllm.__file__, "
        "torch.__version__)'"
    )
    argv = ["unshare", "--mount", "sh", "-ec", script, "sh", str(source)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout.split()[-2].startswith("/opt/vllm/lib/python3.11/site-packages/vllm")


@pytest.mark.e2e
def test_the_model_info_cache_knows_the_architecture():
    cached = list((vllm.model_info_cache(vllm.ensure()) / "modelinfos").iterdir())
    assert [path.name for path in cached] == [
        "vllm-model_executor-models-qwen3_moe-Qwen3MoeForCausalLM.json"
    ]
