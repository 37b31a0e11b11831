"""The provider itself: settings, functions, what it refuses, and its process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2

from rehearsal.provider import install
from rehearsal.provider.install import wheel_version
from rehearsal.provider.wire import from_struct, to_struct


def test_an_unknown_resource_is_refused_by_name(engine):
    answer = engine.check("aws:rds/cluster:Cluster", {})
    assert answer.failures[0].reason == "this provider has no resource aws:rds/cluster:Cluster"


def test_an_unknown_function_is_refused_by_name(engine):
    answer = engine.invoke("aws:rds/getCluster:getCluster")
    assert (
        answer.failures[0].reason == "this provider has no function aws:rds/getCluster:getCluster"
    )


def test_an_unknown_argument_of_a_function_is_refused_by_name(engine):
    answer = engine.invoke("aws:ssm/getParameter:getParameter", name="/a", nmae="/b")
    assert [f.property for f in answer.failures] == ["nmae"]


def test_all_misspelt_properties_are_told_at_once(engine):
    answer = engine.check("aws:ec2/vpc:Vpc", {"cidrBlok": "10.0.0.0/16", "tagz": {}})
    assert {f.property for f in answer.failures} == {"cidrBlok", "tagz"}


def test_a_property_that_is_not_supported_is_refused_rather_than_ignored(engine):
    inputs = {"subnetId": "subnet-1", "ipv4PrefixCount": 1}
    answer = engine.check("aws:ec2/networkInterface:NetworkInterface", inputs)
    assert [f.property for f in answer.failures] == ["ipv4PrefixCount"]


def test_a_setting_that_is_not_supported_is_refused(bare):
    news = to_struct({"region": "us-east-1", "httpProxy": "http://p", "regionn": "x"})
    answer = bare.stub.CheckConfig(provider_pb2.CheckRequest(news=news))
    assert {f.property for f in answer.failures} == {"httpProxy", "regionn"}


def test_another_region_replaces_all_that_a_provider_made(bare):
    request = provider_pb2.DiffRequest(
        olds=to_struct({"region": "a", "accessKey": "1"}),
        news=to_struct({"region": "b", "accessKey": "2"}),
    )
    answer = bare.stub.DiffConfig(request)
    assert list(answer.diffs) == ["accessKey", "region"]
    assert list(answer.replaces) == ["region"]


def test_an_endpoint_that_does_not_answer_fails_at_once_and_is_named(bare, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    endpoints = '[{"sts": "http://127.0.0.1:9"}]'
    with pytest.raises(grpc.RpcError, match=r"GetCallerIdentity.*127\.0\.0\.1:9"):
        bare.configure(region="us-east-1", endpoints=endpoints, maxRetries="1")


def test_an_account_that_is_not_allowed_is_refused(bare):
    with pytest.raises(grpc.RpcError, match="123456789012 is not one"):
        bare.configure(region="us-east-1", allowedAccountIds='["000000000000"]')


def test_a_resource_may_live_in_another_region(engine, clients):
    del clients
    made = engine.create("aws:ec2/vpc:Vpc", {"cidrBlock": "10.0.0.0/16", "region": "eu-west-1"})
    assert made.state["region"] == "eu-west-1"
    assert ":eu-west-1:" in made.state["arn"]
    assert engine.read(made).id == made.id
    engine.delete(made)


def test_look_ups_answer_with_pulumis_names(engine, clients):
    clients("ssm").put_parameter(Name="/f/open", Value="v", Type="String")
    clients("ssm").put_parameter(Name="/f/hidden", Value="h", Type="SecureString")
    assert (
        from_struct(
            getattr(engine.invoke("aws:index/getCallerIdentity:getCallerIdentity"), "return")
        )["accountId"]
        == "123456789012"
    )
    zones = from_struct(
        getattr(engine.invoke("aws:index/getAvailabilityZones:getAvailabilityZones"), "return")
    )
    assert zones["names"][0] == "us-west-2a"
    token = "aws:ssm/getParameter:getParameter"
    opened = from_struct(getattr(engine.invoke(token, name="/f/open"), "return"))
    assert (opened["value"], opened["insecureValue"]) == ("v", "v")
    hidden = getattr(engine.invoke(token, name="/f/hidden"), "return")
    assert "value" in hidden["value"], "marked as a secret"
    assert "insecureValue" not in hidden
    kind = from_struct(
        getattr(
            engine.invoke("aws:ec2/getInstanceType:getInstanceType", instanceType="p5.48xlarge"),
            "return",
        )
    )
    assert (kind["maximumNetworkCards"], kind["efaMaximumInterfaces"]) == (32, 32)
    assert kind["gpuses"][0]["count"] == 8


def test_a_parameter_that_does_not_exist_is_named(engine):
    with pytest.raises(grpc.RpcError, match=r"getParameter.*ParameterNotFound.*/no/such"):
        engine.invoke("aws:ssm/getParameter:getParameter", name="/no/such")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return install(tmp_path_factory.mktemp("home"), Path(sys.executable))


def start(plugin, **more):
    program = plugin / "pulumi-resource-aws"
    process = subprocess.Popen([program, "127.0.0.1:1"], stdout=subprocess.PIPE, text=True, **more)
    assert process.stdout
    assert int(process.stdout.readline()) > 0
    return process


def test_the_plugin_has_the_version_that_the_wheel_asks_for(plugin):
    assert plugin.name == f"resource-aws-v{wheel_version()}"
    assert (plugin / "pulumi-resource-aws").stat().st_mode & stat.S_IXUSR
    assert plugin.parent.name == "plugins"


def test_the_plugin_ends_on_interrupt(plugin):
    process = start(plugin)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert time.monotonic() - before < 4, "the engine would wait 5 s and then kill"


def test_the_plugin_ends_when_the_engine_was_killed(plugin):
    """A shell stands for the engine: it starts the plugin, tells its pid, and is killed."""
    program = plugin / "pulumi-resource-aws"
    script = '"$0" 127.0.0.1:1 >&3 & echo $!; wait'
    read, write = os.pipe()
    shell = subprocess.Popen(
        ["bash", "-c", script.replace(">&3", f">&{write}"), str(program)],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[write],
    )
    os.close(write)
    assert shell.stdout
    pid = int(shell.stdout.readline())
    assert os.read(read, 16), "it serves"
    shell.kill()
    shell.wait()
    until = time.monotonic() + 15
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.1)
    os.close(read)
