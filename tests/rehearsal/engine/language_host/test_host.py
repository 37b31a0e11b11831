"""The language host over gRPC, as the engine calls it, with real child processes."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import (
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
)

from rehearsal.engine.language_host.children import Children
from rehearsal.engine.language_host.host import (
    PythonHost,
    install_commands,
    outcome,
    program_of,
    required_packages,
)

VENV = Path(sys.executable).parent.parent
EXECUTOR = """
import json, os, sys
if "__FAIL__" in open(sys.argv[-1] + "/__main__.py").read():
    print("it broke", file=sys.stderr)
    sys.exit(int(os.environ.get("TEST_STATUS", "1")))
exec(open(sys.argv[-1] + "/__main__.py").read())
print(json.dumps({"argv": sys.argv[1:], "config": json.loads(os.environ["PULUMI_CONFIG"]),
                  "secret": json.loads(os.environ["PULUMI_CONFIG_SECRET_KEYS"]),
                  "venv": os.environ["VIRTUAL_ENV"], "cwd": os.getcwd()}))
"""


class Engine(engine_pb2_grpc.EngineServicer):
    """The engine's end: keeps the log."""

    def __init__(self):
        self.logged: list[str] = []
        self.spoken_to = threading.Event()

    def Log(self, request, context):  # noqa: ARG002, N802 - the protocol's name
        self.logged.append(request.message)
        self.spoken_to.set()
        return empty_pb2.Empty()


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def host(engine, tmp_path):
    executor = tmp_path / "executor.py"
    executor.write_text(EXECUTOR)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    address = f"127.0.0.1:{port}"
    servicer = PythonHost(executor, "3.274.1", address, Children())
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(servicer, server)
    server.start()
    with grpc.insecure_channel(address) as channel:
        yield language_pb2_grpc.LanguageRuntimeStub(channel)
    server.stop(0).wait()


def info(folder: Path, **options: str) -> language_pb2.ProgramInfo:
    given = struct_pb2.Struct()
    json_format.ParseDict(options, given)
    return language_pb2.ProgramInfo(
        root_directory=str(folder),
        program_directory=str(folder / "infra"),
        entry_point=".",
        options=given,
    )


def program(folder: Path, text: str) -> language_pb2.RunRequest:
    (folder / "infra").mkdir()
    (folder / "infra" / "__main__.py").write_text(text)
    return language_pb2.RunRequest(
        project="moe-serving",
        stack="dev",
        pwd=str(folder / "infra"),
        monitor_address="127.0.0.1:1",
        config={"moe-serving:who": "you"},
        configSecretKeys=["moe-serving:key"],
        dryRun=True,
        parallel=4,
        organization="organization",
        info=info(folder, virtualenv=str(VENV)),
    )


def test_run_gives_the_program_its_addresses_and_configuration(host, engine, tmp_path):
    result = host.Run(program(tmp_path, ""))
    assert (result.error, result.bail) == ("", False)
    (said,) = [json.loads(line) for line in engine.logged]
    flags = dict(zip(said["argv"][:-1:2], said["argv"][1:-1:2], strict=True))
    assert flags["--monitor"] == "127.0.0.1:1"
    assert flags["--engine"].startswith("127.0.0.1:")
    assert (flags["--project"], flags["--stack"]) == ("moe-serving", "dev")
    assert (flags["--dry_run"], flags["--parallel"]) == ("true", "4")
    assert said["config"] == {"moe-serving:who": "you"}
    assert said["secret"] == ["moe-serving:key"]


def test_run_uses_the_virtual_environment_and_the_given_folder(host, engine, tmp_path):
    host.Run(program(tmp_path, ""))
    said = json.loads(engine.logged[-1])
    assert said["venv"] == str(VENV)
    assert said["cwd"] == str(tmp_path / "infra")


def test_what_a_program_prints_reaches_the_engines_log(host, engine, tmp_path):
    host.Run(program(tmp_path, "print('plan: 2 nodes')\nprint('note', file=sys.stderr)"))
    assert "plan: 2 nodes\n" in engine.logged
    assert "note\n" in engine.logged


def test_a_failed_program_is_an_error_that_names_its_exit_status(host, engine, tmp_path):
    result = host.Run(program(tmp_path, "__FAIL__"))
    assert "exit status 1" in result.error
    assert "it broke\n" in engine.logged


def test_a_failure_that_was_shown_already_is_not_told_twice(host, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_STATUS", "32")
    result = host.Run(program(tmp_path, "__FAIL__"))
    assert (result.error, result.bail) == ("", True)


def test_a_missing_virtual_environment_is_an_error_with_the_cure(host, tmp_path):
    request = program(tmp_path, "")
    request.info.CopyFrom(info(tmp_path, virtualenv="nowhere"))
    result = host.Run(request)
    assert str(tmp_path / "nowhere") in result.error
    assert "make venv" in result.error


def test_cancel_ends_a_running_program(host, engine, tmp_path):
    request = program(tmp_path, "import time\nprint('runs', flush=True)\ntime.sleep(300)")
    running = host.Run.future(request)
    assert engine.spoken_to.wait(120)
    started = time.monotonic()
    host.Cancel(empty_pb2.Empty())
    result = running.result(timeout=20)
    assert result.bail
    assert time.monotonic() - started < 10


def test_nothing_is_run_for_a_program_that_is_none(host, engine, tmp_path):
    request = program(tmp_path, "raise SystemExit(1)")
    request.info.entry_point = "__pulumi_noop__"
    assert host.Run(request).error == ""
    assert engine.logged == []


def test_about_names_the_programs_python(host, tmp_path):
    (tmp_path / "infra").mkdir()
    answer = host.About(language_pb2.AboutRequest(info=info(tmp_path, virtualenv=str(VENV))))
    assert answer.version == ".".join(map(str, sys.version_info[:3]))
    assert answer.executable == str(VENV / "bin" / "python")


def test_the_required_plugins_are_those_of_the_installed_packages(host, tmp_path):
    (tmp_path / "infra").mkdir()
    asked = language_pb2.GetRequiredPackagesRequest(info=info(tmp_path, virtualenv=str(VENV)))
    (aws,) = [found for found in host.GetRequiredPackages(asked).packages if found.name == "aws"]
    assert aws.kind == "resource"
    assert aws.version.startswith("v7.")


def test_the_dependencies_are_listed_with_their_versions(host, tmp_path):
    (tmp_path / "infra").mkdir()
    asked = language_pb2.GetProgramDependenciesRequest(info=info(tmp_path, virtualenv=str(VENV)))
    found = {item.name: item.version for item in host.GetProgramDependencies(asked).dependencies}
    assert found["pulumi"].startswith("3.")


def test_a_plugins_output_and_exit_status_are_passed_on(host, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("import os, sys\nprint(os.environ['GIVEN'], sys.argv[1])\nsys.exit(3)\n")
    request = language_pb2.RunPluginRequest(
        pwd=str(tmp_path),
        program=str(plugin),
        args=["127.0.0.1:2"],
        env=["GIVEN=a=b"],
        kind="resource",
        info=language_pb2.ProgramInfo(root_directory=str(tmp_path)),
    )
    answers = list(host.RunPlugin(request))
    assert b"".join(answer.stdout for answer in answers) == b"a=b 127.0.0.1:2\n"
    assert answers[-1].exitcode == 3


def test_install_shows_its_output_and_fails_with_the_command(host, tmp_path):
    (tmp_path / "requirements.txt").write_text("not a requirement\n")
    request = language_pb2.InstallDependenciesRequest(
        directory=str(tmp_path), info=info(tmp_path, virtualenv=str(VENV))
    )
    shown = []
    with pytest.raises(grpc.RpcError) as failure:
        shown.extend(host.InstallDependencies(request))
    assert "pip install" in failure.value.details()


def test_install_makes_the_virtual_environment_before_it_fills_it(tmp_path):
    (tmp_path / "requirements.txt").touch()
    commands = install_commands(info(tmp_path, virtualenv=".venv"), tmp_path)
    assert commands[0] == ["python3", "-m", "venv", str(tmp_path / ".venv")]
    assert commands[1][0] == str(tmp_path / ".venv" / "bin" / "python")


def test_a_package_without_a_plugin_asks_for_none():
    assert required_packages([{"name": "command", "resource": False}]) == []


def test_an_entry_point_is_looked_up_in_the_programs_folder(tmp_path):
    named = info(tmp_path)
    named.entry_point = "serve.py"
    assert program_of(named) == str(tmp_path / "infra" / "serve.py")


def test_a_program_ended_by_a_signal_is_named_so():
    assert "signal 9" in outcome(-9, cancelled=False).error
    assert not outcome(-9, cancelled=False).bail
