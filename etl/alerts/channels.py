"""The channels that messages are sent to: a plain JSON webhook, or a service of Apprise.

The scheme of a channel's URL decides. `http` and `https` are webhooks, to which this program's own
client posts JSON. Every other scheme, such as `slack`, `msteams`, `mailto` or `pagerduty`, is one
of Apprise, the optional extra `alerts`.

The URL is a secret: it often is the only credential. It is read again for every message, and
appears in no error. No redirect is followed, because its target would receive the message.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from etl.alerts.message import Message

DEADLINE = 30.0
"""Seconds for one message, from connecting to the status of the response."""
EXTRA = "install it with `pip install 'orchestra-etl[alerts]'`"


class NotDelivered(Exception):
    """The channel did not accept the message; a later attempt may succeed.

    The text is a status or a kind of failure. It never contains the URL, and no text of a library
    or of the receiver.
    """

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after
        """Seconds for which the receiver requests a pause; None if it requests none."""


class Channels:
    """The configured channels, by name."""

    def __init__(self, urls: Mapping[str, Callable[[], str]], *, trust_env: bool = False) -> None:
        """Prepare the channels, without reading a URL.

        Args:
            urls: for each channel a function that returns its URL, called for every message.
            trust_env: let webhooks use the proxy and the certificates that the environment names.
                Apprise always does.
        """
        self._urls = urls
        self._trust_env = trust_env
        self._services: dict[str, tuple[str, Any]] = {}
        self._unfinished: dict[str, concurrent.futures.Future[bool]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the channels."""
        return tuple(self._urls)

    def check(self, name: str) -> None:
        """Check that the channel's URL can be used; send nothing.

        Raises:
            ConfigurationError: the URL cannot be read or used, or Apprise is not installed.
        """
        url = self._urls[name]()
        if _is_webhook(url):
            _webhook(name, url)
        else:
            self._service(name, url)

    async def send(self, name: str, message: Message) -> None:
        """Send a message, and wait until the channel has accepted it.

        Raises:
            NotDelivered: the channel did not accept it.
            ConfigurationError: the channel's URL cannot be read or used, or Apprise is not
                installed.
        """
        url = self._urls[name]()
        if _is_webhook(url):
            await _post(_webhook(name, url), message, trust_env=self._trust_env)
        else:
            await self._notify(name, url, message)

    async def _notify(self, name: str, url: str, message: Message) -> None:
        """Send a message by Apprise, in a thread of its own.

        Apprise limits the time of each wait for a byte, not that of the whole, and a thread cannot
        be cancelled. It is therefore a daemon, which does not keep the process from ending, and a
        channel has only one.
        """
        if (last := self._unfinished.get(name)) is not None and not last.done():
            raise NotDelivered("the last message is still being sent")
        # The first import of Apprise takes a second.
        service = await asyncio.to_thread(self._service, name, url)
        accepted: concurrent.futures.Future[bool] = concurrent.futures.Future()
        self._unfinished[name] = accepted
        accepted.set_running_or_notify_cancel()

        def work() -> None:
            try:
                accepted.set_result(
                    bool(
                        service.notify(
                            body=message.marked_text,
                            title=message.marked_title,
                            notify_type=message.level,
                            body_format="text",
                        )
                    )
                )
            except Exception as error:
                accepted.set_exception(error)

        threading.Thread(target=work, name=f"notify {name}", daemon=True).start()
        try:
            is_accepted = await asyncio.wait_for(asyncio.wrap_future(accepted), DEADLINE)
        except TimeoutError:
            raise NotDelivered("timeout") from None
        except Exception as error:
            raise NotDelivered(type(error).__name__) from None
        if not is_accepted:
            raise NotDelivered("the service refuses the message, or does not respond")

    def _service(self, name: str, url: str) -> Any:
        """Return Apprise's service for the URL; it is made again if the URL has changed."""
        known, service = self._services.get(name, ("", None))
        if service is None or known != url:
            service = _apprise_service(name, url)
            self._services[name] = url, service
        return service


def _is_webhook(url: str) -> bool:
    return url.partition("://")[0].lower() in {"http", "https"}


def _webhook(name: str, url: str) -> httpx.URL:
    """Return the URL of a webhook.

    Raises:
        ConfigurationError: it is not valid.
    """
    try:
        found = httpx.URL(url)
        # httpx accepts names and ports to which nothing can connect.
        is_valid = found.host.encode("idna") != b"" and (found.port or 80) < 65536
    except (httpx.InvalidURL, UnicodeError):
        is_valid = False
    if not is_valid:
        raise ConfigurationError(f"notify.{name}: its URL is not a valid URL")
    return found


def _apprise_service(name: str, url: str) -> Any:
    """Return the service of Apprise for the URL.

    Raises:
        ConfigurationError: Apprise is not installed, or does not know the URL.
    """
    # Apprise and urllib3 log hosts, targets and paths, which can contain credentials.
    for library in ("apprise", "urllib3"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ConfigurationError(
            f"notify.{name}: its URL is neither http:// nor https://, and Apprise is not "
            f"installed: {EXTRA}"
        ) from None
    asset = AppriseAsset(
        app_id="orchestra-etl",
        app_desc="orchestra-etl",
        app_url="",
        # Otherwise messages contain images of a public server.
        image_url_mask="",
        http_redirects=False,
    )
    service = Apprise.instantiate(url, asset=asset)
    if service is None:
        raise ConfigurationError(
            f"notify.{name}: Apprise does not know the URL: check its scheme and its parts"
        )
    # `redirect=yes` in the URL would win over the asset.
    service.redirects = False
    return service


async def _post(url: httpx.URL, message: Message, *, trust_env: bool) -> None:
    """Post a message as JSON; any 2xx means that it was accepted, and no body is read."""
    # Imported here, because only a delivery needs it.
    import aiohttp

    from etl.extract.http_dates import http_date, retry_after
    from etl.extract.transport import Transport

    headers = {"Content-Type": "application/json", "User-Agent": "orchestra-etl"}
    body = msgspec.json.encode(message.document)
    request = httpx.Request("POST", url, headers=headers, content=body)
    transport = Transport(str(url), trust_env=trust_env)
    try:
        async with asyncio.timeout(DEADLINE):
            response = await transport.handle_async_request(request)
            await response.aclose()
    except TimeoutError:
        raise NotDelivered("timeout") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NotDelivered(_kind_of(error)) from None
    finally:
        await transport.aclose()
    status = response.status_code
    if 300 <= status < 400:
        raise NotDelivered(f"status {status}: redirects are not followed")
    if not 200 <= status < 300:
        now = http_date(response.headers.get("date"))
        wait = retry_after(response.headers.get("retry-after"), server_time=now)
        raise NotDelivered(f"status {status}", wait)


def _kind_of(error: Exception) -> str:
    """Return why there was no response, without the host."""
    import aiohttp

    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "the TLS certificate is not trusted"
        case aiohttp.ClientConnectorDNSError():
            return "the host's name cannot be resolved"
        case aiohttp.ClientConnectorError():
            return "cannot connect"
        case _:
            return "the connection broke"
