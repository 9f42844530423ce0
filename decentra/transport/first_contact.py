"""First contact: what certificate does an endpoint show? A joiner that knows only "host:port" pins it then.

In TLS 1.3 the server shows its certificate before it judges ours, so this works without one of the run's. Whoever
asks must then check whose certificate it is: the join string names the peer.
"""

from __future__ import annotations

import asyncio
import ssl

from decentra.errors import SetupError


async def fetch_certificate(endpoint: str, timeout_s: float) -> bytes:
    """PEM of the server certificate at "host:port". Raises SetupError naming the endpoint."""
    host, port = split_endpoint(endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except TimeoutError as error:
        raise SetupError(f"no node answers at {endpoint} within {timeout_s:g} s; is it running, and reachable from here?") from error
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"no node answers at {endpoint} ({reason}); is it running, and reachable from here?") from error
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if not certificate:
        raise SetupError(f"{endpoint} shows no certificate; it is not a decentra node")
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """'host:port' or '[ip6]:port' -> (host, port). Raises SetupError."""
    host, separator, port = endpoint.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SetupError(f"endpoint {endpoint!r} cannot be read; write host:port such as 192.0.2.7:41000")
    return host.strip("[]"), int(port)
