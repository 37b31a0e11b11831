from __future__ import annotations

import base64
import gzip
import json

import pulumi
import pytest

from node_bootstrap.assignment import Assignment
from node_bootstrap.jsondata import from_json

BUCKET = "moe-serving-unit-123456789012"


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pulumi_aws")


@pytest.fixture
def account(two_nodes):
    return two_nodes[0]


@pytest.fixture
def exported(two_nodes):
    return two_nodes[1]


def assignment_of(account, node: str) -> Assignment:
    made = account.one("s3/bucketObjectv2:BucketObjectv2", f"{node}-assignment")
    assert made.inputs["key"] == f"nodes/{node}/assignment.json"
    return from_json(Assignment, made.inputs["content"])


def test_every_node_has_its_own_of_each(account):
    for kind in (
        "ec2/networkInterface:NetworkInterface",
        "ec2/launchTemplate:LaunchTemplate",
        "ec2/instance:Instance",
        "iam/role:Role",
        "iam/instanceProfile:InstanceProfile",
    ):
        assert len(account.of(kind)) == 2, kind


def test_the_instance_takes_everything_from_its_template(account):
    made = account.one("ec2/instance:Instance", "serve-0-0").inputs
    assert set(made) == {"launchTemplate", "tags"}
    assert made["launchTemplate"]["version"] == "1"


def test_the_templates_interface_is_the_one_made_beforehand(account):
    made = account.one("ec2/launchTemplate:LaunchTemplate", "serve-0-0").inputs
    (interface,) = made["networkInterfaces"]
    assert interface["networkInterfaceId"] == "serve-0-0-address-id"
    assert interface["deleteOnTermination"] == "false"
    assert not {"subnetId", "securityGroups"} & set(interface)


def test_metadata_wants_tokens_and_disks_are_encrypted(account):
    made = account.one("ec2/launchTemplate:LaunchTemplate", "serve-0-0").inputs
    assert made["metadataOptions"]["httpTokens"] == "required"
    assert made["metadataOptions"]["httpPutResponseHopLimit"] == 1
    (disk,) = made["blockDeviceMappings"]
    assert (disk["deviceName"], disk["ebs"]["encrypted"]) == ("/dev/xvda", "true")
    assert made["instanceInitiatedShutdownBehavior"] == "terminate"


def test_user_data_names_bucket_and_node_and_holds_no_address(account):
    made = account.one("ec2/launchTemplate:LaunchTemplate", "serve-0-1").inputs
    text = gzip.decompress(base64.b64decode(made["userData"])).decode()
    assert text.startswith("#cloud-config")
    assert BUCKET in text
    assert "serve-0-1" in text
    assert "10.42.0." not in text


def test_assignments_have_the_addresses_that_aws_gave(account):
    primary, headless = assignment_of(account, "serve-0-0"), assignment_of(account, "serve-0-1")
    assert headless.primary.address == primary.me.address
    assert {primary.me.address, headless.me.address} == {"10.42.0.11", "10.42.0.12"}
    assert primary.bucket == BUCKET
    assert primary.me.address in headless.argv


def test_the_deployment_names_what_the_nodes_must_report(account):
    content = json.loads(account.one("BucketObjectv2", "deployment").inputs["content"])
    told = assignment_of(account, "serve-0-1")
    assert content["nodes"]["serve-0-1"] == {
        "instance_id": "serve-0-1-id",
        "private_ip": told.me.address,
        "revision": told.revision,
        "archive_sha256": told.archive.sha256,
    }
    assert content["groups"]["serve-0"]["nodes"] == ["serve-0-0", "serve-0-1"]


def test_the_world_reaches_nothing_and_the_allowed_reach_the_api(account):
    rules = {m.name: m.inputs for m in account.of("SecurityGroupIngressRule")}
    assert not [name for name, rule in rules.items() if rule.get("cidrIpv4") == "0.0.0.0/0"]
    access = rules["access-from-198.18.0.0-15"]
    assert (access["fromPort"], access["toPort"], access["ipProtocol"]) == (8000, 8000, "tcp")


def test_only_primaries_can_be_reached_from_outside(account):
    groups = {m.name: m.inputs["securityGroups"] for m in account.of(":NetworkInterface")}
    assert groups["serve-0-0-address"] == ["members-id", "access-id"]
    assert groups["serve-0-1-address"] == ["members-id"]


def test_members_reach_one_another_on_everything_both_ways(account):
    for kind in ("SecurityGroupIngressRule", "SecurityGroupEgressRule"):
        (rule,) = [
            made.inputs
            for made in account.of(kind)
            if made.inputs.get("referencedSecurityGroupId") == made.inputs["securityGroupId"]
        ]
        assert rule["ipProtocol"] == "-1"
        assert "fromPort" not in rule


def test_no_way_to_the_internet(account):
    kinds = {made.kind.split(":")[-1] for made in account.made}
    assert not {"InternetGateway", "NatGateway", "Eip", "Route"} & kinds
    assert account.one("ec2/subnet:Subnet", "nodes").inputs["mapPublicIpOnLaunch"] is False


def test_the_zone_is_one_that_offers_the_type(account):
    assert account.one("ec2/subnet:Subnet", "nodes").inputs["availabilityZone"] == "us-east-1a"


def test_a_named_zone_is_taken_as_it_is(run_program, config):
    account, _ = run_program(config | {"moe-serving:network": {"zone": "us-east-1f"}})
    assert account.one("ec2/subnet:Subnet", "nodes").inputs["availabilityZone"] == "us-east-1f"


def test_a_named_image_brings_its_own_root_device(run_program, config):
    account, _ = run_program(config | {"moe-serving:ami": "ami-00000000000000001"})
    made = account.one("ec2/launchTemplate:LaunchTemplate", "serve-0-0").inputs
    assert made["imageId"] == "ami-00000000000000001"
    assert made["blockDeviceMappings"][0]["deviceName"] == "/dev/sda1"


def test_the_bucket_is_closed_encrypted_and_goes_with_its_content(account):
    bucket = account.one("s3/bucket:Bucket", "bucket").inputs
    assert (bucket["bucket"], bucket["forceDestroy"]) == (BUCKET, True)
    (closed,) = account.of("BucketPublicAccessBlock")
    flags = [v for k, v in closed.inputs.items() if k != "bucket"]
    assert flags == [True] * 4
    assert account.of("BucketServerSideEncryptionConfiguration")
    assert account.of("BucketPolicy")


def test_the_model_is_uploaded_with_its_digests(account):
    made = account.one("BucketObjectv2", "model/model.safetensors").inputs
    assert made["key"] == "models/tiny/model.safetensors"
    weights = {file.path: file.sha256 for file in assignment_of(account, "serve-0-0").weights.files}
    assert weights["model.safetensors"] == made["sourceHash"]


def test_secrets_are_random_secure_strings_in_no_assignment(account):
    values = {m.inputs["name"]: m.inputs for m in account.of("ssm/parameter:Parameter")}
    assert set(values) == {"/moe-serving/unit/agent-token", "/moe-serving/unit/api-key"}
    objects = [str(made.inputs) for made in account.of("BucketObjectv2")]
    for parameter in values.values():
        assert parameter["type"] == "SecureString"
        value = parameter["value"]["value"]
        assert len(value) >= 40
        assert not [content for content in objects if value in content]


def test_secret_values_are_marked_as_secrets_for_the_state(account):
    for made in account.of("ssm/parameter:Parameter"):
        assert made.inputs["value"][pulumi.runtime.rpc._special_sig_key] == (
            pulumi.runtime.rpc._special_secret_sig
        )


def test_roles_lie_under_the_stacks_path(account):
    identities = account.of("iam/role:Role") + account.of("instanceProfile:InstanceProfile")
    paths = {made.inputs["path"] for made in identities}
    assert paths == {"/moe-serving/unit/"}


def test_outputs_are_ready_to_use(exported):
    assert exported["endpoint"] == "http://10.42.0.11:8000/v1"
    assert exported["groups"]["serve-0"] == {
        "primary_address": "10.42.0.11",
        "headless_addresses": ["10.42.0.12"],
        "metrics_address": "http://10.42.0.11:8000/metrics",
        "all2all_backend": "allgather_reducescatter",
    }
    assert exported["record"] == f"s3://{BUCKET}/record.json"
    assert exported["connect"]["serve-0-1"] == (
        "aws ssm start-session --target serve-0-1-id --region us-east-1"
    )
    assert exported["connect"]["endpoint"] == (
        "aws ssm start-session --target serve-0-0-id --region us-east-1 "
        "--document-name AWS-StartPortForwardingSession "
        """--parameters '{"portNumber": ["8000"], "localPortNumber": ["8000"]}'"""
    )
    assert exported["hourly_cost"]["instances_usd"] > 0


def test_wrong_settings_end_the_run_before_anything_is_made(run_program, config):
    config["moe-serving:groups"]["serve"]["nodes"] = 0
    with pytest.raises(pulumi.RunError, match=r"groups\.serve\.nodes: 0 is not allowed"):
        run_program(config)


def test_an_unknown_model_folder_ends_the_run_before_anything_is_made(run_program, config):
    config["moe-serving:model"]["source"] = "no/such/folder"
    with pytest.raises(pulumi.RunError, match="there is no folder"):
        run_program(config)


def test_what_is_not_built_yet_ends_the_run_with_all_of_it(run_program, config):
    config["moe-serving:vllm"] = {"runtime": "container"}
    config["moe-serving:endpoint"]["exposure"] = "public"
    with pytest.raises(pulumi.RunError, match="2 faults") as ended:
        run_program(config)
    assert "containers on CPU nodes (groups.serve): not built yet" in str(ended.value)
    assert "a public endpoint without a certificate of ACM: not built yet" in str(ended.value)


@pytest.mark.parametrize("ttl", ["4h", "8h"])
def test_a_ttl_reaches_every_node_and_user_data_has_the_net_but_not_the_number(
    run_program, config, ttl
):
    config["moe-serving:ttl"] = ttl
    made, _ = run_program(config)
    for node in ("serve-0-0", "serve-0-1"):
        end = assignment_of(made, node).ttl
        assert end is not None
        assert end.seconds == float(ttl[0]) * 3600
        template = made.one("ec2/launchTemplate:LaunchTemplate", node).inputs
        text = gzip.decompress(base64.b64decode(template["userData"])).decode()
        assert "moe-unassigned.timer" in text
        assert ttl not in text.replace("OnBootSec=1h", "")


def test_an_error_of_the_checks_ends_the_run_before_anything_is_made(run_program, config):
    config["moe-serving:groups"]["serve"]["kv_cache_memory_bytes"] = 1 << 40
    with pytest.raises(pulumi.RunError, match=r"The plan has 1 error.*\n.*HOST_MEMORY_EXCEEDED"):
        run_program(config)
