"""Steps of a GPU node on what its tools answer; the node itself is in tests of the gate."""

from __future__ import annotations

import dataclasses
import json

import pytest

from node_bootstrap.assignment import Backend, Component, Hardware, Software
from node_bootstrap.places import Places
from node_bootstrap.steps import host, library
from node_bootstrap.steps.base import StepError, run_step
from node_bootstrap.steps.container import ImageStep
from node_bootstrap.steps.fabric import EfaStep, GdrcopyStep
from node_bootstrap.steps.host import HostStep
from node_bootstrap.steps.library import LibraryStep, able, agree, decided, in_effect
from tests.node_bootstrap.steps.tools import Tools, marks

PARTS = (
    Component("NVIDIA driver", ">= 580", "host", "ami"),
    Component("nvidia-fabricmanager", "= driver", "host", "ami"),
    Component("DeepEP", "874779c9", "image", "git"),
)
SOFTWARE = Software("container", "/opt/vllm/bin/python", {}, "vllm/vllm-openai:v0.33.0-efa", PARTS)
GPU = Hardware("10.0.0.1", 192, 1843.2, gpu_count=8, driver_min="580", efa_devices=2, local_disks=2)
BACKEND = Backend("deepep_v2", "deep_ep")


def imported(**found) -> Tools:
    return Tools({"/usr/bin/docker run": "noise\nIMPORTED " + json.dumps(found)})


def library_step(tmp_path, run, backend=BACKEND, **changes) -> LibraryStep:
    step = LibraryStep(backend, SOFTWARE, Places(tmp_path), "boot-1", run=run)
    return dataclasses.replace(step, **changes)


RIGHT = {"file": "/x/deep_ep/__init__.py", "version": "2.0", "names": ["Buffer", "ElasticBuffer"]}


def test_the_right_library_is_imported_once_a_boot_and_then_remembered(tmp_path):
    tools = imported(**RIGHT)
    step = library_step(tmp_path, tools)
    reports = [run_step(step, marks()) for _ in range(2)]
    assert [r.outcome for r in reports] == ["NOCHANGE", "NOCHANGE"]
    assert reports[0].detail == "deepep_v2 with /x/deep_ep/__init__.py"
    assert len(tools.ran) == 1


def test_a_stock_library_that_shadows_the_right_one_keeps_vllm_from_starting(tmp_path):
    tools = imported(file="/y/deep_ep/__init__.py", version="1.2.1", names=["Buffer"])
    report = run_step(library_step(tmp_path, tools), marks())
    assert report.outcome == "FAILED"
    assert "/y/deep_ep/__init__.py (version 1.2.1) has no ElasticBuffer" in report.detail
    assert "allow_fallback" in report.detail


@pytest.mark.parametrize(
    "run",
    [
        imported(error="ImportError: libnvshmem_host.so.3: cannot open shared object file"),
        Tools({}),
        Tools({"/usr/bin/docker run": "Segmentation fault"}),
    ],
    ids=["broken", "no docker", "says nothing"],
)
def test_where_it_may_the_node_falls_back_and_says_why(tmp_path, run):
    backend = Backend("deepep_v2", "deep_ep", "allgather_reducescatter")
    report = run_step(library_step(tmp_path, run, backend), marks())
    assert report.outcome == "CHANGED"
    assert report.detail.startswith("allgather_reducescatter instead of deepep_v2: deep_ep")
    known = decided(Places(tmp_path))
    assert known is not None
    assert (known.planned, known.in_effect) == ("deepep_v2", "allgather_reducescatter")
    argv = ("vllm", "serve", "m", "--all2all-backend", "deepep_v2", "--port", "1")
    assert in_effect(argv, {}, known)[0][4] == "allgather_reducescatter"
    env = {"VLLM_ALL2ALL_BACKEND": "deepep_v2"}
    assert in_effect(("vllm",), env, known)[1]["VLLM_ALL2ALL_BACKEND"] == "allgather_reducescatter"


def test_what_the_group_agreed_on_stands_beside_what_this_node_can_run(tmp_path):
    backend, places = Backend("deepep_v2", "deep_ep", "allgather_reducescatter"), Places(tmp_path)
    run_step(library_step(tmp_path, imported(**RIGHT), backend), marks())
    assert agree(places, "allgather_reducescatter", "n1: no deep_ep")
    known, own = decided(places), able(places)
    assert known is not None
    assert own is not None
    assert (known.in_effect, known.why) == ("allgather_reducescatter", "n1: no deep_ep")
    assert own.in_effect == "deepep_v2"
    assert not agree(places, "allgather_reducescatter", "n1: no deep_ep")
    assert agree(places, "", "")
    assert decided(places) == own


def test_the_next_boot_tries_the_planned_backend_again(tmp_path):
    backend = Backend("deepep_v2", "deep_ep", "allgather_reducescatter")
    run_step(library_step(tmp_path, Tools({}), backend), marks())
    later = library_step(tmp_path, imported(**RIGHT), backend, boot_id="boot-2")
    run_step(later, marks())
    known = decided(Places(tmp_path))
    assert known is not None
    assert known.in_effect == "deepep_v2"


def test_a_library_that_could_be_brought_is_used(tmp_path):
    tools = imported(error="ModuleNotFoundError: No module named 'deep_ep'")

    def bring(_: float) -> None:
        tools.answers["/usr/bin/docker run"] = "IMPORTED " + json.dumps(RIGHT)

    report = run_step(library_step(tmp_path, tools, bring=bring), marks())
    assert (report.outcome, report.detail) == ("CHANGED", "deepep_v2 with /x/deep_ep/__init__.py")


def test_the_same_import_in_this_python_is_told_as_it_is():
    software = dataclasses.replace(SOFTWARE, runtime="venv", python=__import__("sys").executable)
    found = library.read(
        library.query(software, Backend("x", "yaml"), {}), library.parse, library.run_fact
    )
    assert isinstance(found, library.Imported)
    assert found.file.endswith("yaml/__init__.py")
    assert found.version


MODULE = "filename: /lib/modules/x/efa.ko\nversion: 3.3.0\nvermagic: 6.8.0 SMP\n"
FI = "provider: efa\n    fabric: efa\n    domain: rdmap{}s0-rdm\n    version: 204.0\n"


def efa_step(tmp_path, installed: str, devices: int) -> EfaStep:
    note = tmp_path / "opt/amazon/efa_installed_packages"
    note.parent.mkdir(parents=True)
    note.write_text(f"# EFA installer version: {installed}\n")
    found = "".join(FI.format(n) for n in range(devices)) or "fi_getinfo: -61"
    tools = Tools({"modinfo efa": MODULE, "/opt/amazon/efa/bin/fi_info": found})
    part = Component("EFA driver (installer)", "1.50.0", "host", "https://x/i.tar.gz")
    return EfaStep(part, 2, Places(tmp_path), tools)


@pytest.mark.parametrize(
    ("installed", "devices", "done", "says"),
    [
        ("1.50.0", 2, True, "installer 1.50.0, module 3.3.0, 2 devices"),
        ("1.51.0", 2, True, "installer 1.51.0"),
        ("1.47.0", 2, False, "EFA installer 1.47.0, needed 1.50.0"),
        ("1.50.0", 1, False, "fi_info lists 1 EFA devices, planned are 2"),
        ("1.50.0", 0, False, "fi_info lists 0 EFA devices"),
    ],
)
def test_efa_is_there_with_its_version_and_all_devices(tmp_path, installed, devices, done, says):
    check = efa_step(tmp_path, installed, devices).check()
    assert check.done is done
    assert says in check.detail


def test_a_module_that_is_installed_but_not_loaded_is_not_enough(tmp_path):
    tools = Tools({"modinfo gdrdrv": MODULE.replace("3.3.0", "2.5").replace("efa", "gdrdrv")})
    part = Component("GDRCopy", "2.5.2", "host", "https://x/gdrcopy@c91ad9f")
    step = GdrcopyStep(part, Places(tmp_path), tools)
    assert "/dev/gdrdrv is missing" in step.check().detail
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/gdrdrv").touch()
    assert step.check().done


def test_a_builder_has_efa_installed_without_a_device(tmp_path):
    step = dataclasses.replace(efa_step(tmp_path, "1.50.0", 0), builder=True)
    assert step.check().detail == "installer 1.50.0, module 3.3.0"
    assert step.check().done


def test_a_builder_has_gdrcopys_module_installed_but_not_loaded(tmp_path):
    tools = Tools({"modinfo gdrdrv": MODULE.replace("3.3.0", "2.5").replace("efa", "gdrdrv")})
    part = Component("GDRCopy", "2.5.2", "host", "https://x/g.tar.gz")
    step = GdrcopyStep(part, Places(tmp_path), tools, builder=True)
    assert (step.check().done, step.check().detail) == (True, "gdrdrv 2.5 is installed")


def test_an_image_that_is_there_is_told_with_its_digest(tmp_path):
    answer = json.dumps([{"Id": "sha256:1", "RepoDigests": ["vllm/vllm-openai@sha256:2"]}])
    step = ImageStep(SOFTWARE, Places(tmp_path), Tools({"/usr/bin/docker image": answer}))
    assert step.check().detail.endswith("is vllm/vllm-openai@sha256:2")


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        (Tools({"/usr/bin/docker image": "[]\nNo such image: x"}), "-efa: is not on the node"),
        (Tools({"/usr/bin/docker image": "[{"}), "docker's answer is not understood: [{"),
        (Tools({}), "docker: No such file or directory"),
    ],
    ids=["absent", "cut off", "no docker"],
)
def test_an_image_that_docker_does_not_name_is_not_there(tmp_path, tools, says):
    check = ImageStep(SOFTWARE, Places(tmp_path), tools).check()
    assert (check.done, says in check.detail) == (False, True)


DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build\n"


CLOCK = """Reference ID    : A9FEA97B (169.254.169.123)
System time     : {} seconds slow of NTP time
Leap status     : {}
"""
PAGES = "HugePages_Total: {}\nHugePages_Free: 17\nHugepagesize: 2048 kB\n"


def host_step(
    tmp_path,
    *,
    driver="595.91.07",
    fabric="595.91.07",
    params="1",
    clock=("0.000001234", "Normal"),
    pages=5128,
    kernel="7.0.0-1014-aws",
) -> HostStep:
    state = "Id=x\nLoadState=loaded\nActiveState={}\n"
    options = f'EnableStreamMemOPs: {params}\nRegistryDwords: "PeerMappingOverride=1;"\n'
    answers = {
        "cat /proc/driver/nvidia/version": DRIVER.format(driver),
        "cat /proc/driver/nvidia/params": options,
        "nv-fabricmanager": f"Fabric Manager version is : {fabric}\n",
        "chronyc": CLOCK.format(*clock),
        "grep Huge": PAGES.format(pages),
        "uname": kernel,
    }
    show = "systemctl show --property=Id,LoadState,ActiveState,SubState,Result,NRestarts"
    answers[f"{show} nvidia-persistenced"] = state.format("active")
    answers[show] = state.format("inactive")
    step = HostStep(GPU, SOFTWARE, Places(tmp_path), "boot-1", Tools(answers))
    for path, text in step._files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return step


def test_a_builders_host_is_made_ready_though_no_driver_is_loaded(tmp_path, monkeypatch):
    made = dataclasses.replace(host_step(tmp_path), builder=True)
    tools = made.run
    assert isinstance(tools, Tools)
    for command in [c for c in tools.answers if "nvidia" in c]:
        del tools.answers[command]
    scripts = []
    monkeypatch.setattr(host, "install", lambda script, *_: scripts.append(script))
    (options,) = [path for path, _ in made._files() if path.parent.name == "modprobe.d"]
    options.unlink()
    report = run_step(made, marks())
    assert (report.outcome, report.detail) == (
        "CHANGED",
        "settings as planned, no GPU to look at",
    )
    assert (scripts[0].values["START"], scripts[0].values["NEW_OPTIONS"]) == ("no", "yes")
    assert not [c for c in tools.ran if "reboot" in c]


@pytest.mark.parametrize("builder", [True, False])
def test_an_initramfs_that_a_killed_run_did_not_make_is_made_by_the_next(
    tmp_path, monkeypatch, builder
):
    step = dataclasses.replace(host_step(tmp_path, params="0"), builder=builder)
    step.run.answers["systemctl reboot"] = ""
    (options,) = [path for path, _ in step._files() if path.parent.name == "modprobe.d"]
    options.unlink()
    scripts = []

    def killed_at_first(script, *_):
        scripts.append(script.values["NEW_OPTIONS"])
        if len(scripts) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(host, "install", killed_at_first)
    with pytest.raises(KeyboardInterrupt):
        run_step(step, marks())
    run_step(step, marks())
    assert scripts == ["yes", "yes"]


def test_a_host_as_planned_is_left_alone(tmp_path):
    report = run_step(host_step(tmp_path), marks())
    assert (report.outcome, report.detail) == ("NOCHANGE", "driver 595.91.07, settings as planned")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"driver": "570.10", "fabric": "570.10"}, "NVIDIA driver 570.10, needed is 580"),
        ({"fabric": "590.1"}, "fabric manager 590.1, the driver is 595.91.07"),
        ({"params": "0"}, "loaded without EnableStreamMemOPs"),
        ({"clock": ("0.0", "Not synchronised")}, "the clock follows no time source"),
        ({"clock": ("12.4", "Normal")}, "the clock is 12.4 s off 169.254.169.123"),
        ({"pages": 3071}, "3071 huge pages are set apart, EFA takes 5128"),
        ({"kernel": "5.10.245-aws"}, "kernel 5.10.245-aws, EFA moves GPU memory from 5.12 on"),
        ({"kernel": "?"}, "the kernel's release is not understood: ?"),
    ],
)
def test_what_differs_on_the_host_is_told(tmp_path, changes, says):
    assert says in host_step(tmp_path, **changes).check().detail


def test_a_driver_below_the_floor_is_never_worked_around(tmp_path):
    with pytest.raises(StepError, match="choose a newer image"):
        host_step(tmp_path, driver="570.10", fabric="570.10").apply(1e12)


def test_without_efa_an_older_kernel_will_do(tmp_path):
    step = host_step(tmp_path, kernel="5.10.245-aws")
    step = dataclasses.replace(step, hardware=dataclasses.replace(GPU, efa_devices=0))
    assert "kernel" not in step.check().detail


def test_options_that_a_reboot_did_not_bring_are_no_reason_for_another(tmp_path):
    step = host_step(tmp_path, params="0")
    step.run.answers["systemctl reboot"] = ""
    with pytest.raises(StepError, match="the node reboots for them"):
        step._reboot()
    with pytest.raises(StepError, match="still has other options after a reboot"):
        dataclasses.replace(step, boot_id="boot-2")._reboot()
    assert step.run.ran.count("systemctl reboot") == 1
