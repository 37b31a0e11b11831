"""The metadata service's answers: version 2 only, as EC2 gives them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.machine import imds

ADDRESS = "10.42.1.11"
TOKENS = imds.Tokens(b"k" * 32)
TREE = {
    "meta-data": {
        "instance-id": "i-1",
        "placement": {"region": "us-east-1"},
        "iam": {"security-credentials": {"node": lambda: '{"Code": "Success"}'}},
    },
    "user-data": b"\x1f\x8b\x00",
}


def get(path: str, *, token: str | None = None, tree=TREE) -> imds.Answer:
    valid = TOKENS.issue(ADDRESS, 60, time.time()) if token is None else token
    return imds.answer_get(path, {imds.TOKEN_HEADER: valid}, ADDRESS, TOKENS, tree)


def put(path: str = imds.TOKEN_PATH, **headers: str) -> imds.Answer:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return imds.answer_put(path, spelled, ADDRESS, TOKENS)


def test_a_leaf_is_its_text():
    assert get("/latest/meta-data/instance-id") == imds.Answer(200, b"i-1")


def test_a_folder_lists_its_names_and_marks_folders_with_a_slash():
    assert get("/latest/meta-data/").body == b"instance-id\nplacement/\niam/"


def test_user_data_comes_byte_for_byte():
    assert get("/latest/user-data").body == b"\x1f\x8b\x00"


def test_credentials_are_made_at_the_request_and_listed_by_role():
    assert get("/latest/meta-data/iam/security-credentials/").body == b"node"
    assert b"Success" in get("/latest/meta-data/iam/security-credentials/node").body


@pytest.mark.parametrize("version", ["2021-03-23", "2009-04-04", "latest"])
def test_dated_versions_have_the_same_tree(version):
    assert get(f"/{version}/meta-data/placement/region").body == b"us-east-1"


@pytest.mark.parametrize(
    "path",
    ["/latest/meta-data/public-keys/", "/2030-01-01/meta-data/", "/latest/meta-data/instance-id/x"],
)
def test_what_an_instance_has_not_is_404(path):
    assert get(path).status == 404


def test_without_a_token_there_is_nothing():
    assert get("/latest/meta-data/", token="").status == 401


def test_an_address_without_an_instance_gets_nothing():
    assert get("/latest/meta-data/", tree=None).status == 404


def test_a_token_is_valid_until_its_time_is_over():
    token = TOKENS.issue(ADDRESS, 60, now_s=1000)
    assert TOKENS.valid(token, ADDRESS, now_s=1059)
    assert not TOKENS.valid(token, ADDRESS, now_s=1060)


def test_a_token_is_of_no_use_to_another_instance():
    assert not TOKENS.valid(TOKENS.issue(ADDRESS, 60, 1000), "10.42.1.12", 1001)


def test_a_token_outlives_the_process_that_made_it():
    assert imds.Tokens(b"k" * 32).valid(TOKENS.issue(ADDRESS, 60, 1000), ADDRESS, 1001)


@given(st.text())
def test_no_made_up_token_is_valid(token):
    assert not TOKENS.valid(token, ADDRESS, 1000)


def test_a_token_is_put_with_its_time_to_live():
    answer = put(X_aws_ec2_metadata_token_ttl_seconds="21600")
    assert answer.status == 200
    assert answer.headers == ((imds.TTL_HEADER, "21600"),)
    assert TOKENS.valid(answer.body.decode(), ADDRESS, time.time())


@pytest.mark.parametrize("ttl", ["", "0", "21601", "-5", "x", "²"])
def test_a_time_to_live_out_of_range_is_refused(ttl):
    headers = {imds.TTL_HEADER: ttl}
    assert imds.answer_put(imds.TOKEN_PATH, headers, ADDRESS, TOKENS).status == 400


def test_a_request_through_a_proxy_gets_no_token():
    headers = {imds.TTL_HEADER: "60", "X-Forwarded-For": "10.0.0.1"}
    assert imds.answer_put(imds.TOKEN_PATH, headers, ADDRESS, TOKENS).status == 403


def test_nothing_else_can_be_put():
    assert put("/latest/meta-data/instance-id").status == 404
