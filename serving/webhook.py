"""Sending an audience to a webhook: signed, retried, and never into the private network.

Each request is JSON with up to 10,000 users and two headers::

    OpenFound-Signature: t=1511136000,v1=<HMAC-SHA256 of "t.body" by OPENFOUND_WEBHOOK_SECRET>
    Idempotency-Key: <audience>-<run>-<part>-<batch>

The host is resolved once, every address it has must be public, and the connection goes to the very
address that was checked (its name still decides the certificate), so a name that resolves to
another address a moment later gains nothing. Redirects are not followed, proxies not used.
``OPENFOUND_WEBHOOK_PRIVATE=1`` allows private addresses and plain http, for receivers inside.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import tenacity

from feature_repo.errors import InputError, OpenFoundError
from serving.picked import Audience

SECRET_VARIABLE: Final = "OPENFOUND_WEBHOOK_SECRET"
PRIVATE_VARIABLE: Final = "OPENFOUND_WEBHOOK_PRIVATE"
BATCH: Final = 10_000
ATTEMPTS: Final = 5
_SECONDS: Final = 30.0
_TRANSLATED: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48")))
"""NAT64 leads on to any IPv4 address."""
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

Resolve = Callable[[str, int], Iterable[str]]
"""Host and port → addresses."""


class DeliveryFailed(OpenFoundError):
    """The webhook did not take what was sent."""


@dataclass(frozen=True)
class Sent:
    """How many users went out, in how many requests, by how many attempts."""

    users: int
    requests: int
    attempts: int


def addresses(host: str, port: int) -> list[str]:
    """What the system resolves a host to. Raises InputError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"url: the host {host!r} cannot be resolved ({error})") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Webhook:
    """Sends audiences; the secret and the permission come from the environment when it is built."""

    def __init__(
        self,
        secret: str | None,
        *,
        private: bool = False,
        resolve: Resolve = addresses,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret, self._private, self._resolve = secret, private, resolve
        self._transport, self._sleep, self._clock = transport, sleep, clock

    @classmethod
    def from_env(cls) -> Webhook:
        """A webhook by ``OPENFOUND_WEBHOOK_SECRET`` and ``OPENFOUND_WEBHOOK_PRIVATE``."""
        private = os.environ.get(PRIVATE_VARIABLE, "") == "1"
        return cls(os.environ.get(SECRET_VARIABLE) or None, private=private)

    def send(self, url: str, audience: Audience, *, about: dict[str, Any], key: str) -> Sent:
        """Send all users in batches; ``about`` comes first in each, ``key`` names the delivery.

        Raises InputError for an address that may not be used, DeliveryFailed if one batch was not
        taken; batches before it were, and carry the same Idempotency-Key when sent again.
        """
        if self._secret is None:
            raise InputError(
                f"url: the service has no secret to sign with; set {SECRET_VARIABLE} where it runs"
            )
        place, headers, extensions = self._pinned(url)
        users, attempts = audience.user_ids, 0
        batches = max(1, -(-len(users) // BATCH))
        with httpx.Client(
            transport=self._transport, timeout=_SECONDS, follow_redirects=False, trust_env=False
        ) as client:
            for n in range(batches):
                part = slice(n * BATCH, (n + 1) * BATCH)
                rows = zip(users[part], audience.scores[part].tolist(), strict=True)
                document = {**about, "batch": n + 1, "batches": batches,
                            "users": [{"user_id": u, "score": s} for u, s in rows]}  # fmt: skip
                request = client.build_request(
                    "POST",
                    place,
                    content=json.dumps(document).encode(),
                    headers={**headers, "Idempotency-Key": f"{key}-{n + 1}"},
                    extensions=extensions,
                )
                attempts += self._post(client, request, url)
        return Sent(len(users), batches, attempts)

    def _pinned(self, url: str) -> tuple[httpx.URL, dict[str, str], dict[str, Any]]:
        """The URL with the checked address in place of the host, and what keeps the name."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InputError(f"url: {error}") from error
        allowed = ("https", "http") if self._private else ("https",)
        if parsed.scheme not in allowed or not parsed.host or parsed.userinfo:
            raise InputError(
                f"url: expected {' or '.join(allowed)}://host/… without a user name, "
                f"got {url[:80]!r}"
            )
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        found = list(self._resolve(parsed.host, port))
        hidden = [one for one in found if not _public(one)]
        if not found or (hidden and not self._private):
            raise InputError(
                f"url: {parsed.host} leads to {', '.join(hidden) or 'no address'}, which is not "
                f"public; {PRIVATE_VARIABLE}=1 where the service runs would allow it"
            )
        headers = {"Host": parsed.netloc.decode(), "Content-Type": "application/json"}
        return parsed.copy_with(host=found[0]), headers, {"sni_hostname": parsed.host}

    def _post(self, client: httpx.Client, request: httpx.Request, url: str) -> int:
        """Send one batch until it is taken; how many attempts that took."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _Again)),
            wait=tenacity.wait_exponential_jitter(initial=0.5, max=30),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            sleep=self._sleep,
            reraise=True,
        )
        host = httpx.URL(url).host
        try:
            for attempt in retrying:
                with attempt:
                    self._once(client, request)
                number = attempt.retry_state.attempt_number
        except httpx.TransportError as error:
            raise DeliveryFailed(
                f"{host} could not be reached ({type(error).__name__}) in {ATTEMPTS} attempts"
            ) from error
        except (_Again, _Refused) as error:
            raise DeliveryFailed(f"{host} answered {error}; nothing after that was sent") from error
        return number

    def _once(self, client: httpx.Client, request: httpx.Request) -> None:
        assert self._secret is not None
        stamp = str(int(self._clock()))  # anew for each attempt, so that it is never too old
        request.headers["OpenFound-Signature"] = sign(self._secret, stamp, request.content)
        status = client.send(request).status_code
        if status in _AGAIN:
            raise _Again(status)
        if not 200 <= status < 300:
            raise _Refused(status)


class _Again(Exception):
    pass


class _Refused(Exception):
    pass


def sign(secret: str, stamp: str, body: bytes) -> str:
    """The signature header: HMAC-SHA256 over the time and the body, so that neither can change."""
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def _public(address: str) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if any(found in network for network in _TRANSLATED):
        return False
    return found.is_global and not found.is_multicast and (inner is None or inner.is_global)
