"""OpenAI's own client against prefill and decode apart: TLS, a key, and what the API promises."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from prefill_decode import CONTEXT, DECODE, PREFILL, PrefillDecode
from rehearsed import MODEL, PROMPTS

pytestmark = pytest.mark.e2e

HELLO: Any = [{"role": "user", "content": "Say something"}]
NOTHING = {"type": "object", "properties": {}}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather_in_oslo", "parameters": NOTHING},
}
LONG: dict[str, Any] = {"temperature": 0, "extra_body": {"ignore_eos": True}}


def open_client(pd: PrefillDecode, ca: Path, key: str = "") -> openai.OpenAI:
    outputs = pd.outputs()
    ca.write_text(outputs["ca_certificate"])
    return openai.OpenAI(
        base_url=outputs["endpoint"],
        api_key=key or outputs["api_key"],
        http_client=openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=str(ca))),
        max_retries=0,
        timeout=60,
    )


@pytest.fixture(scope="module")
def client(pd: PrefillDecode, tmp_path_factory: pytest.TempPathFactory) -> openai.OpenAI:
    pd.wait("the gateway serves", lambda: pd.gateway().serving, 120)
    return open_client(pd, tmp_path_factory.mktemp("client") / "ca.pem")


def token_ids(count: int) -> list[int]:
    return [5 + (place * 7) % 900 for place in range(count)]


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_a_wrong_key_is_an_authentication_error(pd: PrefillDecode, tmp_path: Path) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        open_client(pd, tmp_path / "ca.pem", "sk-wrong").models.list()
    assert refused.value.code == "invalid_api_key"
    assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_completion_streamed_or_not_is_that_of_one_plain_engine(
    client: openai.OpenAI, reference, prompt: str
) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": prompt, "max_tokens": 16, "temperature": 0}
    whole = client.completions.create(**asked)
    assert whole.choices[0].text == reference[prompt].text
    parts = [part.choices[0].text for part in client.completions.create(**asked, stream=True)]
    assert "".join(parts) == reference[prompt].text
    assert len(parts) > 1


def test_a_chat_streamed_or_not_says_the_same(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    *parts, last = client.chat.completions.create(**asked, **with_usage)
    said = "".join(part.choices[0].delta.content or "" for part in parts)
    assert said == whole.choices[0].message.content
    assert last.usage == whole.usage


def test_the_field_tools_reaches_the_engine_that_answers(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "tools": [WEATHER]}
    asked |= {"max_tokens": 60, "temperature": 0}
    choice: Any = {"type": "function", "function": {"name": "weather_in_oslo"}}
    whole = client.chat.completions.create(**asked, tool_choice=choice)
    # A random model says this name only where the engine holds it to the tools of the request.
    (call,) = whole.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "weather_in_oslo"
    parts = client.chat.completions.create(**asked, tool_choice=choice, stream=True)
    calls = [call for part in parts for call in part.choices[0].delta.tool_calls or ()]
    assert [c.function.name for c in calls if c.function and c.function.name] == ["weather_in_oslo"]
    choice["function"]["name"] = "not_offered"
    with pytest.raises(openai.BadRequestError, match="does not match any of the specified"):
        client.chat.completions.create(**asked, tool_choice=choice)


def test_tokens_arrive_as_they_are_made(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model=MODEL, prompt="Steadily", max_tokens=120, stream=True, **LONG
    )
    began = time.monotonic()
    arrived = [time.monotonic() - began for _ in stream]
    assert len(arrived) >= 100
    assert arrived[0] < 0.5 * arrived[-1], "the first waits for no other"
    assert len({round(moment, 2) for moment in arrived}) > 20, "not in one piece"


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_a_client_that_leaves_frees_what_it_held_on_both_sides(
    pd: PrefillDecode, client: openai.OpenAI, *, streamed: bool
) -> None:
    pd.wait("nothing under way", pd.idle, 45)
    asked: dict[str, Any] = {"model": MODEL, "prompt": f"Leaves {streamed} " * 20, **LONG}
    asked["max_tokens"] = 380
    began = time.monotonic()
    client.completions.create(**asked)
    whole, before = time.monotonic() - began, generated(pd)
    if streamed:
        stream = client.completions.create(**asked, stream=True)
        next(iter(stream))
        assert pd.busy(DECODE[0]), "it is being answered"
        stream.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.2 * whole).completions.create(**asked)
    pd.wait("no request and no block left", pd.idle, 60)
    assert generated(pd) - before < 380, "it went on without its client"


def generated(pd: PrefillDecode) -> float:
    """Tokens that all ranks of decode have made so far."""
    counted = "vllm:generation_tokens_total{"
    lines = pd.metrics(DECODE[0]).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(counted))


@pytest.mark.parametrize("count", [1, 127, 128, 129, CONTEXT - 1])
def test_prompts_around_a_block_and_up_to_the_context_are_answered(
    pd: PrefillDecode, client: openai.OpenAI, count: int
) -> None:
    asked: dict[str, Any] = {"prompt": token_ids(count), "max_tokens": 1, "temperature": 0}
    answer = client.completions.create(model=MODEL, **asked)
    assert answer.choices[0].text == pd.ask(PREFILL[0], asked).text


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("count", [CONTEXT, CONTEXT + 1, 4 * CONTEXT])
def test_a_longer_prompt_is_a_bad_request(
    client: openai.OpenAI, count: int, *, streamed: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(
            model=MODEL, prompt=token_ids(count), max_tokens=1, stream=streamed
        )
    assert refused.value.status_code == 400
    assert refused.value.type == "BadRequestError"
