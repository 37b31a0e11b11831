from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3
import pytest

from infra.preflight.model import Place, hub, split, token

COMMIT = "0a" * 20


@pytest.fixture(scope="module")
def s3(admin):
    client = admin.client("s3")
    client.create_bucket(Bucket="near")
    client.create_bucket(
        Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"}
    )
    for key in ("m/config.json", "m/model-00001.safetensors", "none/readme.md", "e/config.json"):
        client.put_object(Bucket="near", Key=key, Body=b"x" * 2048)
    client.put_object(Bucket="near", Key="e/model.safetensors", Body=b"")
    return client


def states(results) -> list[str]:
    return [result.state for result in results]


def test_a_bucket_in_the_stacks_region_passes(results_of, asked, s3):
    results = results_of("BUCKET_REGION", asked(model_source="s3://near/m"))
    assert states(results) == ["PASS", "PASS"]


def test_a_bucket_in_another_region_fails(results_of, asked, s3):
    first, _ = results_of("BUCKET_REGION", asked(model_source="s3://far/m"))
    assert first.state == "FAIL"
    assert "far is in eu-west-2, the stack in us-east-1" in first.message


def test_a_stack_that_is_up_in_another_region_fails(results_of, asked, s3, endpoint):
    s3.create_bucket(Bucket="moe-serving-moved-123456789012")
    keys = (endpoint.access_key_id, endpoint.secret_access_key)
    session = boto3.Session(*keys, region_name="eu-west-2")
    (result,) = results_of("BUCKET_REGION", asked(stack="moved"), session)
    assert result.state == "FAIL"
    assert "is in us-east-1 already, aws:region is eu-west-2" in result.message


def test_a_models_folder_passes(result_of, asked, s3):
    result = result_of("MODEL", asked(model_source="s3://near/m/"))
    assert result.state == "PASS"
    assert "2 objects" in result.message


LACKING = {
    "s3://near/none": "no config.json and no files of weights",
    "s3://near/m/model": "no config.json",
    "s3://near/e": "model.safetensors is empty",
    "s3://absent/m": "there is no bucket absent",
}


@pytest.mark.parametrize("source", LACKING)
def test_what_is_no_model_fails(result_of, asked, s3, source):
    result = result_of("MODEL", asked(model_source=source))
    assert result.state == "FAIL"
    assert LACKING[source] in result.message


def test_sources_are_split_into_bucket_and_prefix():
    assert split("s3://b/p/q") == split("s3://b/p/q/") == ("b", "p/q/")
    assert split("s3://b") == ("b", "")


@pytest.fixture
def hugging_face():
    """A Hub that answers HEAD with one status; returns its address and what was asked.

    needs: 401 to whoever doesn't show this token.
    """
    servers = []

    def start(status: int, needs: str = ""):
        paths: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                paths.append(self.path)
                shown = self.headers.get("Authorization")
                self.send_response(401 if needs and shown != f"Bearer {needs}" else status)
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()

            def log_message(self, format, *args):  # noqa: A002 - the base class's name
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", paths

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def place(base: str, **more) -> Place:
    return Place(base=base, **more)


@pytest.mark.parametrize(
    ("status", "state"),
    [(200, "PASS"), (401, "FAIL"), (403, "FAIL"), (404, "FAIL"), (503, "SKIPPED")],
)
def test_what_hugging_face_gives_to_everybody_counts(hugging_face, status, state):
    base, paths = hugging_face(status)
    assert hub("org/m", COMMIT, place(base)).state == state
    assert paths == [f"/org/m/resolve/{COMMIT}/config.json"]


def test_a_branch_fails_with_its_commit_of_today(hugging_face):
    verdict = hub("org/m", "main", place(hugging_face(200)[0]))
    assert verdict.state == "FAIL"
    assert verdict.remedy == f"set model.revision to {COMMIT}"


def test_a_gated_model_fails_without_a_token_of_the_stack(hugging_face):
    verdict = hub("org/m", COMMIT, place(hugging_face(401)[0], token="hf_here"))
    assert verdict.state == "FAIL"
    assert "--secret moe-serving:huggingface_token" in verdict.remedy


def test_a_gated_model_is_tried_with_this_machines_token(hugging_face):
    base, _ = hugging_face(200, needs="hf_good")
    of_stack = {"stack_has_token": True}
    assert hub("org/m", COMMIT, place(base, token="hf_good", **of_stack)).state == "PASS"
    assert hub("org/m", COMMIT, place(base, token="hf_bad", **of_stack)).state == "FAIL"
    untried = hub("org/m", COMMIT, place(base, **of_stack))
    assert untried.state == "PASS"
    assert "not tried from here" in untried.message


def test_where_hugging_face_can_not_be_reached_it_is_skipped():
    assert hub("org/m", None, place("http://127.0.0.1:9", timeout=2)).state == "SKIPPED"


def test_a_token_is_looked_for_where_hugging_faces_tools_do(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert token() == ""
    (tmp_path / "token").write_text("hf_x\n")
    assert token() == "hf_x"
