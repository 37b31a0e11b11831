"""Differences, names, settings, spellings: no account needed."""

from __future__ import annotations

import pytest
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.provider import config, diff, naming, outputs, requests, schema, shapes, wire
from rehearsal.provider.ec2_instance_state import runs_version
from rehearsal.provider.functions import FUNCTIONS, invoke
from rehearsal.provider.registry import RESOURCES

RULES = diff.Rules(
    computed=frozenset({"zone"}), sets=frozenset({"groups"}), policies=frozenset({"policy"})
)


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": diff.Kind.UPDATE}),
        ({}, {"a": 1}, {"a": diff.Kind.ADD}),
        ({"a": 1}, {}, {"a": diff.Kind.DELETE}),
        ({"zone": "x"}, {}, {}),
        ({"zone": "x"}, {"zone": "y"}, {"zone": diff.Kind.UPDATE}),
        ({"tags": {"A": "1"}}, {"tags": {"A": "2"}}, {"tags.A": diff.Kind.UPDATE}),
        ({"tags": {"a:b": "1"}}, {"tags": {}}, {'tags["a:b"]': diff.Kind.DELETE}),
        ({"n": [{"i": 0}]}, {"n": [{"i": 1}]}, {"n[0].i": diff.Kind.UPDATE}),
        ({"n": [1]}, {"n": [1, 2]}, {"n[1]": diff.Kind.ADD}),
        ({"groups": ["a", "b"]}, {"groups": ["b", "a"]}, {}),
        ({"list": ["a", "b"]}, {"list": ["c", "b"]}, {"list[0]": diff.Kind.UPDATE}),
        ({"empty": []}, {}, {}),
        ({"a": 1}, {"a": wire.UNKNOWN}, {"a": diff.Kind.UPDATE}),
        ({"__defaults": ["a"]}, {"__defaults": []}, {}),
    ],
)  # fmt: skip
def test_differences_are_told_by_path(old, new, paths):
    assert diff.changes(old, new, RULES) == paths


def test_policies_differ_by_what_they_say_not_by_how():
    one = '{"Statement": [{"Action": ["a"], "Effect": "Allow"}]}'
    assert diff.same_json(one, '{"Statement":{"Effect":"Allow","Action":"a"}}')
    assert not diff.same_json(one, one.replace("Allow", "Deny"))
    assert not diff.same_json(one, wire.UNKNOWN)
    assert not diff.same_json(one, "no JSON")


@pytest.mark.parametrize(
    ("path", "forced"),
    [
        ("launchTemplate.id", True),
        ("launchTemplate.version", False),
        ("launchTemplate", True),
        ("nics[3].index", True),
        ("tags.nics", False),
    ],
)
def test_a_path_replaces_where_its_property_does(path, forced):
    assert requests.forces(path, frozenset({"launchTemplate.id", "nics"})) is forced


@given(st.text(alphabet="abcDEF-", min_size=1, max_size=200), st.binary(min_size=1))
def test_automatic_names_fit_and_depend_on_nothing_but_name_and_seed(name, seed):
    scheme = naming.Naming(max_length=63, lower_case=True)
    made = scheme.automatic(name, seed)
    assert made == scheme.automatic(name, seed)
    assert scheme.fits(made)
    assert made.startswith(name.lower()[:55])


def test_names_of_a_prefix_never_meet():
    names = [naming.unique_name("p-") for _ in range(500)]
    assert len(set(names)) == 500
    assert {len(name) for name in names} == {28}


def test_what_aws_adds_or_spells_otherwise_is_no_difference():
    wanted = {"deviceIndex": 0, "deleteOnTermination": "false", "groups": ["a"]}
    found = {"deviceIndex": 0, "deleteOnTermination": False, "groups": ["a"], "mac": "0a"}
    assert outputs.settled("nic", wanted, found) == wanted
    assert outputs.settled("nic", wanted, found, cut=False) == {**wanted, "mac": "0a"}
    assert outputs.settled("tags", {"a": "1"}, {"a": "1", "b": "2"}) == {"a": "1", "b": "2"}
    assert outputs.settled("nic", {"x": "1"}, {"x": "2"}) == {"x": "2"}


def test_whole_numbers_and_secrets_arrive_plain():
    marked = {"a": wire.secret({"b": 1.0}), "c": [2.5]}
    assert wire.from_struct(wire.to_struct(marked)) == {"a": {"b": 1}, "c": [2.5]}
    assert wire.has_unknown({"a": [{"b": wire.UNKNOWN}]})


def test_settings_arrive_as_json_strings():
    raw = {
        "region": "eu-west-1",
        "defaultTags": '{"tags": {"a": "b"}}',
        "endpoints": '[{"ec2": "http://127.0.0.1:1"}]',
        "skipCredentialsValidation": "true",
        "version": "7.51.1",
    }
    parsed = config.parse(config.decode(raw), {})
    assert parsed.region == "eu-west-1"
    assert parsed.default_tags == {"a": "b"}
    assert parsed.endpoints == {"ec2": "http://127.0.0.1:1"}
    assert not parsed.check_account


def test_the_region_may_come_from_the_environment_and_must_come_from_somewhere():
    assert config.parse({}, {"AWS_REGION": "us-east-2"}).region == "us-east-2"
    with pytest.raises(config.ConfigError, match="aws:region"):
        config.parse({}, {})


def test_keys_are_not_in_the_text_of_a_configuration():
    parsed = config.parse({"region": "r", "secretKey": "s3cr3t", "token": "t0ken"}, {})
    assert "s3cr3t" not in repr(parsed)
    assert "t0ken" not in repr(parsed)


@pytest.mark.parametrize(
    ("wanted", "running", "runs"),
    [
        ("3", "3", True),
        ("4", "3", False),
        ("$Latest", "4", True),
        ("$Default", "4", False),
        (None, "3", True),
        (wire.UNKNOWN, "3", False),
    ],
)
def test_a_version_is_compared_with_the_one_that_runs(wanted, running, runs):
    state = {"launchTemplate": {"id": "lt-1", "version": running}}
    assert runs_version(wanted, state, lambda _: (running, "3", "4")) is runs


def test_a_property_that_the_api_lacks_is_an_error_not_a_loss():
    model = Session().get_service_model("ec2").operation_model("CreateLaunchTemplate")
    with pytest.raises(shapes.NoSuchFieldError, match="madeUp"):
        shapes.to_api({"launchTemplateData": {"madeUp": 1}}, model.input_shape)


@pytest.mark.parametrize("token", RESOURCES)
def test_a_resource_speaks_of_properties_that_pulumi_aws_has(token):
    resource, shape = RESOURCES[token], schema.of(token)
    named = (
        resource.computed
        | resource.sets
        | resource.policies
        | resource.not_imported
        | resource.unsupported
        | resource.updatable
        | resource.defaults.keys()
        | {path.split(".")[0] for path in resource.force_new}
    )
    assert not named - shape.inputs.keys()


@pytest.mark.parametrize("token", RESOURCES)
def test_every_input_is_replaced_updated_refused_or_a_tag(token):
    resource, shape = RESOURCES[token], schema.of(token)
    forced = {path.split(".")[0] for path in resource.force_new}
    placed = forced | resource.updatable | resource.unsupported | {"tags", "region"}
    left = shape.inputs.keys() - placed
    # what is left can be given once; changing it is refused by name
    request = requests.refuse_unchangeable
    for key in left:
        change = requests.change_of(resource, {key: "1"}, {key: "2"}, {})
        with pytest.raises(requests.ProviderError, match=key):
            request(resource, change, "it")


def test_shapes_written_at_installation_are_those_of_the_wheel(tmp_path):
    file = tmp_path / "shapes.json"
    schema.dump(list(RESOURCES), file)
    loaded = schema.load(file)
    for token in RESOURCES:
        assert loaded[token] == schema.of(token)
    assert {"region", "defaultTags", "endpoints"} <= loaded[schema.PROVIDER].inputs.keys()


def test_a_policy_document_is_written_as_the_real_provider_writes_it():
    statement = {
        "actions": ["s3:GetObject"],
        "resources": ["arn:a", "arn:b"],
        "principals": [{"type": "AWS", "identifiers": ["arn:r"]}],
        "conditions": [{"test": "Bool", "variable": "v", "values": ["true"]}],
    }
    token = "aws:iam/getPolicyDocument:getPolicyDocument"
    answer = invoke(token, {"statements": [statement]}, call=None)  # pyright: ignore[reportArgumentType] - asks nobody
    assert answer["minifiedJson"] == (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject",'
        '"Resource":["arn:a","arn:b"],"Principal":{"AWS":"arn:r"},'
        '"Condition":{"Bool":{"v":"true"}}}]}'
    )
    assert token in FUNCTIONS
