"""What went wrong with a request, in few words, and whether another try may succeed."""

import re

import requests
import urllib3

from diffit.fetch.policy import timeout

NAMES = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}  # for servers that send only the number


def may_recover(status: int) -> bool:
    """Whether the same request may be answered with another status later: errors and overload of the server."""
    return status >= 500 or status in (408, 425, 429)


def answer(response: requests.Response) -> str:
    """The status of an answer."""
    name = response.reason or NAMES.get(response.status_code, "")
    return f"the server answers {response.status_code} {name}".strip()


def reason(error: BaseException) -> str:
    """The innermost reason of an exception of requests or urllib3, in few words."""
    chain = [error]
    while inner := [part for part in (getattr(chain[-1], "reason", None), *chain[-1].args) if _is_error(part)]:
        chain.append(inner[0])
    refused = any(isinstance(one, urllib3.exceptions.NewConnectionError) for one in chain)
    if not refused and any(isinstance(one, requests.Timeout | urllib3.exceptions.TimeoutError) for one in chain):
        return f"no answer or no data for {timeout():.3g} s"
    text = _text(chain[-1])
    return f"the proxy does not work ({text})" if _through_proxy(chain) else text


def _is_error(value: object) -> bool:
    return isinstance(value, Exception)


def _through_proxy(chain: list[BaseException]) -> bool:
    return any(isinstance(one, requests.exceptions.ProxyError | urllib3.exceptions.ProxyError) for one in chain)


def _text(error: BaseException) -> str:
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines() or [type(error).__name__]
    text = re.sub(r"^.*?(object at 0x[0-9a-f]+>|host='[^']*', port=\d+\)): ", "", lines[0])
    return re.sub(r"^Failed to establish a new connection: \[Errno -?\d+\] ", "", text).rstrip(".")
