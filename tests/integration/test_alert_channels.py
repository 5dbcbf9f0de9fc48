"""Channels of alerts against a receiver on loopback: webhooks, Apprise, redirects and secrets."""

from __future__ import annotations

import asyncio
import base64
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from etl.alerts import channels
from etl.alerts.channels import Channels, NotDelivered
from etl.alerts.message import Message, sample_message
from etl.errors import ConfigurationError
from tests.conftest import ROOT
from tests.receiver import Receiver, receiver
from tests.support import free_port

SECRET = "canary-token-5d1a77"


@pytest.fixture
def hook() -> Iterator[Receiver]:
    """Provide a running receiver."""
    with receiver() as found:
        yield found


def _message() -> Message:
    return sample_message("ops", datetime(2026, 3, 1, tzinfo=UTC))


def _send(url: str, message: Message | None = None) -> None:
    asyncio.run(Channels({"ops": lambda: url}).send("ops", message or _message()))


@pytest.mark.parametrize("scheme", ["webhook", "apprise"])
def test_a_message_is_delivered(hook: Receiver, scheme: str) -> None:
    """A webhook gets the document with its key, Apprise's JSON scheme the title and the text."""
    _send(hook.url() if scheme == "webhook" else hook.apprise_url())
    [request] = hook.requests
    assert request.path == "/hook"
    if scheme == "webhook":
        assert request.document["key"] == "test ops 2026-03-01T00:00:00Z"
        assert request.headers["Content-Type"] == "application/json"
    else:
        assert request.document["title"] == "test: orchestra-etl can reach this channel"
        assert "Key: test ops 2026-03-01T00:00:00Z" in request.document["message"]


def test_credentials_in_a_webhook_url_are_sent_as_a_header(hook: Receiver) -> None:
    """User and password of a URL become basic authentication, and are not part of the request."""
    _send(f"http://user:{SECRET}@127.0.0.1:{hook.port}/hook")
    [request] = hook.requests
    expected = base64.b64encode(f"user:{SECRET}".encode()).decode()
    assert request.headers["Authorization"] == f"Basic {expected}"
    assert SECRET not in request.path + request.headers["Host"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["webhook", "apprise"])
def test_no_redirect_is_followed(hook: Receiver, scheme: str, status: int) -> None:
    """A redirect is a failure, even if Apprise's URL enables redirects."""
    hook.status, hook.headers = status, {"Location": hook.url("/elsewhere")}
    with pytest.raises(NotDelivered):
        _send(hook.url() if scheme == "webhook" else hook.apprise_url("/hook?redirect=yes"))
    assert [request.path.partition("?")[0] for request in hook.requests] == ["/hook"]


@pytest.mark.parametrize("scheme", ["webhook", "apprise"])
def test_failures_and_logs_name_no_secret(
    hook: Receiver, scheme: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """However a delivery fails, neither its error nor a log of a library contains the URL."""
    caplog.set_level(logging.WARNING)
    path = f"/{SECRET}/{SECRET}?token={SECRET}"
    closed = f"127.0.0.1:{free_port()}"

    def url(host: str) -> str:
        return f"{'http' if scheme == 'webhook' else 'json'}://{host}{path}"

    failures = []
    for host, status, malformed in (
        (f"127.0.0.1:{hook.port}", 500, False),
        (f"127.0.0.1:{hook.port}", 404, True),
        (closed, 200, False),
        (f"{SECRET}.invalid", 200, False),
    ):
        hook.status, hook.malformed, hook.body = status, malformed, SECRET.encode()
        with pytest.raises(NotDelivered) as caught:
            _send(url(host))
        failures.append(str(caught.value))
        assert caught.value.__cause__ is None
    written = capfd.readouterr()
    assert SECRET not in "".join([*failures, caplog.text, written.out, written.err])
    assert "127.0.0.1" not in "".join(failures)


def test_a_webhook_may_request_a_pause(hook: Receiver) -> None:
    """The pause that a receiver requests with status 429 is passed on."""
    hook.status, hook.headers = 429, {"Retry-After": "77"}
    with pytest.raises(NotDelivered, match="status 429") as caught:
        _send(hook.url())
    assert caught.value.retry_after == 77.0


@pytest.mark.parametrize("scheme", ["webhook", "apprise"])
def test_a_receiver_that_drips_delays_until_the_deadline_only(
    hook: Receiver, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless response blocks no delivery: a webhook needs no body, and Apprise has a deadline.

    While Apprise's thread is stuck, the channel starts no second one.
    """
    monkeypatch.setattr(channels, "DEADLINE", 0.5)
    hook.drip = 0.1
    begun = time.monotonic()
    if scheme == "webhook":
        _send(hook.url())
    else:
        own = Channels({"ops": hook.apprise_url})

        async def twice() -> None:
            with pytest.raises(NotDelivered, match="timeout"):
                await own.send("ops", _message())
            with pytest.raises(NotDelivered, match="still being sent"):
                await own.send("ops", _message())

        asyncio.run(twice())
        assert len(hook.requests) == 1
    assert time.monotonic() - begun < 20.0


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://", "not a valid URL"),
        (f"https://host:port/{SECRET}", "not a valid URL"),
        (f"https://host:99999/{SECRET}", "not a valid URL"),
        (f"https://xn--/{SECRET}", "not a valid URL"),
        (f"https://{'a' * 64}.example/{SECRET}", "not a valid URL"),
        (f"nowhere://{SECRET}", "Apprise does not know the URL"),
        (f"slack://{SECRET}", "Apprise does not know the URL"),
        (SECRET, "Apprise does not know the URL"),
    ],
)
def test_an_unusable_url_is_named_without_its_text(url: str, problem: str) -> None:
    """`check` says which channel has an unusable URL, and does not repeat it."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        Channels({"ops": lambda: url}).check("ops")
    assert "notify.ops" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_url_is_read_for_every_message(hook: Receiver) -> None:
    """A changed URL takes effect with the next message, also for Apprise."""
    urls = [hook.apprise_url("/old"), hook.apprise_url("/new")]
    own = Channels({"ops": lambda: urls.pop(0)})

    async def twice() -> None:
        await own.send("ops", _message())
        await own.send("ops", _message())

    asyncio.run(twice())
    assert [request.path for request in hook.requests] == ["/old", "/new"]


def test_without_apprise_only_webhooks_work(
    hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra, a webhook works, and a URL of Apprise leads to what to install."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    _send(hook.url())
    assert len(hook.requests) == 1
    with pytest.raises(ConfigurationError, match=r"pip install 'orchestra-etl\[alerts\]'"):
        _send(hook.apprise_url())


def test_apprise_is_imported_only_for_its_channels() -> None:
    """The service, the delivery and a webhook do not import Apprise."""
    code = (
        "import sys, etl.app, etl.service.daemon, etl.alerts.delivery\n"
        "etl.alerts.delivery.Channels({'a': lambda: 'https://host/'}).check('a')\n"
        "sys.exit('apprise' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
