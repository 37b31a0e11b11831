"""Four requests a second through a gateway while something dies, and what came of each."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rehearsed import MODEL

PER_SECOND = 4
PATIENCE_SECONDS = 300.0

End = Literal["whole", "error event", "cut without a word", "refused", "broke off"]


@dataclass(frozen=True)
class Sent:
    """One request. at: when it was begun (seconds since the epoch). code: 0 without an answer."""

    at: float
    prompt: str
    streamed: bool
    code: int
    text: str
    seconds: float
    end: End

    @property
    def failed(self) -> bool:
        """Whether its client got less than it asked for."""
        return self.end != "whole"


@dataclass(frozen=True)
class Door:
    """How clients get in."""

    host: str
    key: str
    trust: ssl.SSLContext

    @staticmethod
    def of(outputs: Mapping[str, Any], key: str = "") -> Door:
        """As the outputs of a stack say it; a key of another name."""
        context = ssl.create_default_context(cadata=outputs["ca_certificate"])
        value = outputs["api_keys"][key] if key else outputs["api_key"]
        return Door(outputs["endpoint"].split("/")[2], value, context)

    def ask(self, prompt: str, *, streamed: bool, max_tokens: int = 16) -> Sent:
        """One completion, on a connection of its own, as a client without retries makes it."""
        at, began = time.time(), time.monotonic()
        connection = http.client.HTTPSConnection(
            self.host, context=self.trust, timeout=PATIENCE_SECONDS
        )
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        more = {"stream": True, "ignore_eos": True} if streamed else {"ignore_eos": True}
        code, text = 0, ""
        end: End = "broke off"
        try:
            connection.request("POST", "/v1/completions", json.dumps({**body, **more}), headers)
            answer = connection.getresponse()
            code = answer.status
            if code != http.client.OK:
                end, text = "refused", answer.read().decode(errors="replace")
            elif streamed:
                text, end = read_events(answer)
            else:
                text, end = json.loads(answer.read())["choices"][0]["text"], "whole"
        except (OSError, http.client.HTTPException, ValueError) as error:
            text = text or repr(error)
        finally:
            connection.close()
        return Sent(at, prompt, streamed, code, text, time.monotonic() - began, end)


def read_events(answer: http.client.HTTPResponse) -> tuple[str, End]:
    """The text of a stream, and how it ended."""
    text = ""
    try:
        for raw in answer:
            line = raw.strip()
            if line == b"data: [DONE]":
                return text, "whole"
            if line:
                event = json.loads(line.removeprefix(b"data: "))
                if "error" in event:
                    return text, "error event"
                text += event["choices"][0]["text"]
    except (OSError, http.client.HTTPException):
        pass
    return text, "cut without a word"


@dataclass
class Load:
    """Requests at their rate, whole and streamed in turn; every answer is kept.

    expected: prompt -> the text of max_tokens tokens. streams_only: none comes whole.
    """

    door: Door
    expected: Mapping[str, str]
    max_tokens: int = 16
    per_second: float = PER_SECOND
    streams_only: bool = False
    sent: list[Sent] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Begun here; at the end every answer is waited for."""
        pace = threading.Thread(target=self._pace)
        pace.start()
        try:
            yield self
        finally:
            self._end.set()
            for thread in (pace, *self._threads):
                thread.join()

    def _pace(self) -> None:
        prompts, turn = list(self.expected), 0
        while not self._end.wait(1 / self.per_second):
            streamed = self.streams_only or turn % 2 == 0
            prompt = prompts[turn % len(prompts)]
            thread = threading.Thread(
                target=self._send, args=(prompt,), kwargs={"streamed": streamed}
            )
            self._threads.append(thread)
            thread.start()
            turn += 1

    def _send(self, prompt: str, *, streamed: bool) -> None:
        self.sent.append(self.door.ask(prompt, streamed=streamed, max_tokens=self.max_tokens))

    def failed(self, since: float = 0.0) -> list[Sent]:
        """Of those begun since then."""
        return [one for one in self.sent if one.failed and one.at >= since]

    def wrong(self) -> list[Sent]:
        """Text that isn't the reference's; of a cut stream, its beginning."""
        return [
            one
            for one in self.sent
            if one.code == http.client.OK
            and not (
                self.expected[one.prompt].startswith(one.text)
                if one.failed
                else one.text == self.expected[one.prompt]
            )
        ]

    def across(self, moment: float) -> list[Sent]:
        """Those that were being answered at a moment."""
        return [one for one in self.sent if one.at < moment < one.at + one.seconds]

    def served_after(self, moment: float) -> float:
        """Seconds from a moment until the first whole answer to a request begun after it."""
        ends = [one.at + one.seconds for one in self.sent if one.at > moment and not one.failed]
        return min(ends) - moment if ends else float("inf")

    def row(self, name: str, moment: float, **more: float | str) -> dict[str, Any]:
        """What a drill is recorded as."""
        return {
            "drill": name,
            "requests": len(self.sent),
            "failed": len(self.failed()),
            "streams_with_error_event": sum(one.end == "error event" for one in self.sent),
            "wrong": len(self.wrong()),
            "longest_wait_seconds": round(max(one.seconds for one in self.sent), 1),
            "served_again_seconds": round(self.served_after(moment), 1),
            **more,
        }
