"""Tokens for SASL OAUTHBEARER (KIP-255): of a token endpoint, or AWS's for MSK with IAM.

Both clients of Kafka ask the same providers: kafka-python by `token()`, librdkafka by `oauth_cb`.
"""

import base64
import json
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from functools import cache
from typing import Any

from kafka.net.sasl.oauth import AbstractTokenProvider

from headrace import masking
from headrace.exceptions import SettingError, SourceRefused, SourceUnavailable
from headrace.optional import needs

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 1024 * 1024
LIFETIME_S = 300.0  # of a token whose answer has no expires_in, which RFC 6749 (5.1) only recommends
RENEWED_AT = 0.8  # of its lifetime, as Kafka's own client does (sasl.login.refresh.window.factor)
BROKER_OF_MSK = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?(?::\d+)?$")


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc] # the library has no types
    """Keeps a token until most of its lifetime is over; safe in several threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._token, self._renew_at, self._expires_at = "", 0.0, 0.0

    def token(self) -> str:
        """A token that is valid now.

        Raises SourceRefused if none is issued to this client, SourceUnavailable if nothing answers.
        """
        with self._lock:
            now = time.time()
            if now >= self._renew_at:
                self._token, lifetime_s = self._issued()
                masking.remember(self._token)
                self._renew_at, self._expires_at = now + RENEWED_AT * lifetime_s, now + lifetime_s
            return self._token

    def oauth_cb(self, _config: str) -> tuple[str, float]:
        """The token and the time at which it expires, as librdkafka asks for them."""
        token = self.token()
        return token, self._expires_at

    def _issued(self) -> tuple[str, float]:
        """A new token and its lifetime in seconds."""
        raise NotImplementedError


class EndpointTokens(TokenProvider):
    """Tokens of an OAuth 2 endpoint, by the client credentials grant (RFC 6749, 4.4)."""

    def __init__(self, url: str, client_id: str, client_secret: str, scope: str | None, cafile: str | None) -> None:
        super().__init__()
        self._url, self._client_id, self._scope = url, client_id, scope
        both = f"{urllib.parse.quote(client_id, safe='')}:{urllib.parse.quote(client_secret, safe='')}"  # 2.3.1
        self._authorization = f"Basic {base64.b64encode(both.encode()).decode()}"
        masking.remember(self._authorization.removeprefix("Basic "))
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=cafile))
        self._opener = urllib.request.build_opener(_NoRedirect, tls)

    def _issued(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        request = urllib.request.Request(  # noqa: S310 # http and https only: kafka_security checks it
            self._url,
            data=urllib.parse.urlencode(form).encode(),
            headers={"Authorization": self._authorization, "Accept": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                answer = response.read(ANSWER_BYTES_MAX)
        except urllib.error.HTTPError as error:
            if error.code >= 500 or error.code == 429:
                raise self._unavailable(f"found status {error.code}") from error
            raise self._refused(f"found status {error.code}{_reason(error)}") from error
        except ssl.SSLCertVerificationError as error:
            raise self._refused(f"its certificate is not trusted: {error.verify_message}") from error
        except OSError as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLError):
                detail = getattr(cause, "verify_message", None) or cause.reason
                raise self._refused(f"its certificate or its TLS is not accepted: {detail}") from error
            raise self._unavailable(f"did not answer: {cause}") from error
        return self._read(answer)

    def _read(self, answer: bytes) -> tuple[str, float]:
        try:
            document = json.loads(answer)
            token, lifetime_s = document["access_token"], float(document.get("expires_in") or LIFETIME_S)
        except (ValueError, TypeError, KeyError, AttributeError):  # its text may hold a token
            raise self._refused("found an answer without an access_token") from None
        if not isinstance(token, str) or not re.fullmatch(r"[\w.~+/=-]+", token, re.ASCII):
            raise self._refused("found an access_token that is no bearer token (RFC 6750, 2.1)")
        return token, lifetime_s

    def _refused(self, found: str) -> SourceRefused:
        return SourceRefused(
            f"kafka: token endpoint {self._url}: {found}, expected an access token for client {self._client_id}; "
            "nothing was changed; correct HEADRACE_KAFKA_SASL_* (in Airflow: the connection headrace_kafka)"
        )

    def _unavailable(self, found: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"kafka: token endpoint {self._url} {found}, expected an access token; nothing was changed; try again later"
        )


class MskTokens(TokenProvider):
    """Tokens for Amazon MSK, signed with the credentials that AWS's libraries find."""

    def __init__(self, region: str) -> None:
        super().__init__()
        self._region = region

    def _issued(self) -> tuple[str, float]:
        with needs("msk"):
            from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

        try:
            token, expires_ms = MSKAuthTokenProvider.generate_auth_token(self._region)
        except Exception as error:  # botocore's, and the signer's own
            raise SourceRefused(
                f"kafka: found no token of AWS for region {self._region}: {type(error).__name__}: {error}; expected "
                "credentials of a role that may connect; nothing was changed; give them as AWS's libraries expect"
            ) from error
        return token, max(expires_ms / 1000 - time.time(), 1.0)


@cache
def endpoint_tokens(
    url: str, client_id: str, client_secret: str, scope: str | None, cafile: str | None
) -> TokenProvider:
    """The provider of these credentials in this process: its consumers and producers share a token."""
    return EndpointTokens(url, client_id, client_secret, scope, cafile)


@cache
def msk_tokens(region: str) -> TokenProvider:
    """The provider of a region in this process."""
    return MskTokens(region)


def region_of(servers: list[str], environ: Mapping[str, str] = os.environ) -> str:
    """The region of an MSK cluster: AWS_REGION, AWS_DEFAULT_REGION, or as its addresses say; SettingError if none."""
    found = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    for server in servers:
        if match := BROKER_OF_MSK.search(server):
            found = found or match[1]
    if not found:
        raise SettingError(
            f"AWS_REGION: not set, and {', '.join(servers)} names no region; expected one such as eu-west-1; set it"
        )
    return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the client's secret to another address."""

    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        return None


def _reason(error: urllib.error.HTTPError) -> str:
    """The error's code (RFC 6749, 5.2) alone: descriptions may quote what was sent."""
    try:
        code = json.loads(error.read(ANSWER_BYTES_MAX)).get("error", "")
    except (ValueError, AttributeError, OSError):
        return ""
    return f" ({code})" if isinstance(code, str) and re.fullmatch(r"\w{1,60}", code, re.ASCII) else ""
