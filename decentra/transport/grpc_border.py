"""Where gRPC's words become ours: channel and server options, and what each status means for a peer."""

from __future__ import annotations

import grpc

from decentra.errors import PeerError, PeerFault, PeerTimeout, PeerUnreachable
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES
from decentra.types import PeerId

CALL_METHOD = "/decentra.wire.v1.Swarm/Call"
PULL_METHOD = "/decentra.wire.v1.Swarm/Pull"
REVERSE_METHOD = "/decentra.wire.v1.Swarm/Reverse"
ANSWER_METHOD = "/decentra.wire.v1.Swarm/Answer"
NUMBER_KEY = "request-number"
"""Metadata of an answer: which reverse request it belongs to."""

ENVELOPE_BYTES = 16
"""Room that gRPC leaves above the limits for what wraps a message of a reverse stream; the limits themselves are checked here."""

TLS_NAME = "decentra"
"""Subject name of every server certificate; peers are authenticated by key, so host names are overridden with it."""

Options = list[tuple[str, int | str]]

_BULK_OPTIONS: Options = [
    ("grpc.http2.max_frame_size", FRAME_BYTES),  # else each of our frames is cut into pieces of 16 KiB
    ("grpc.http2.write_buffer_size", 2 * FRAME_BYTES),  # the next frame is made ready while one is written
]


def channel_options(bulk: bool) -> Options:
    """Options of a dialling channel; the two kinds differ in the largest message that they accept."""
    return [
        ("grpc.ssl_target_name_override", TLS_NAME),
        ("grpc.use_local_subchannel_pool", 1),  # else control and bulk share one TCP connection
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),  # a request may not be idempotent: only its caller may send it again
        ("grpc.max_receive_message_length", FRAME_BYTES if bulk else MAX_CALL_BYTES + ENVELOPE_BYTES),
        ("grpc.max_send_message_length", MAX_CALL_BYTES + ENVELOPE_BYTES),
        *_BULK_OPTIONS,
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5_000),  # also how long one connection attempt may take
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]


def server_options() -> Options:
    """Options of the serving side."""
    return [
        ("grpc.so_reuseport", 0),  # else two nodes would share a port and each get half the calls
        ("grpc.max_receive_message_length", MAX_CALL_BYTES + ENVELOPE_BYTES),
        ("grpc.max_send_message_length", MAX_CALL_BYTES + ENVELOPE_BYTES),
        *_BULK_OPTIONS,
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def never_sent(error: grpc.aio.AioRpcError) -> bool:
    """Whether the request never left, so that it may be tried at another endpoint."""
    return bool(error.code() is grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or ""))


def fault_of(peer: PeerId, endpoint: str, error: grpc.aio.AioRpcError) -> PeerError:
    """What a failed gRPC call says about the peer."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(peer, endpoint, error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return PeerTimeout(peer, f"no answer from {endpoint} in time")
    if code is grpc.StatusCode.CANCELLED or "RST_STREAM" in details:
        return PeerUnreachable(peer, f"{endpoint} dropped the request")
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED):
        return PeerFault(peer, details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return PeerFault(peer, f"a message is over the limit: {details}")
    return PeerFault(peer, f"{endpoint} answered {code.name}: {details}")


def _unavailable(peer: PeerId, endpoint: str, error: grpc.aio.AioRpcError) -> PeerError:
    details = error.details() or ""
    if "handshake failed" in details.lower() or "CERTIFICATE_VERIFY" in details:
        return PeerFault(peer, f"{endpoint} does not hold the key of this peer's record; somebody else answers there, or the record is old")
    # In TLS 1.3 the server judges our certificate after our side of the handshake is done: it can only hang up.
    if never_sent(error) and ("Socket closed" in details or "reset by peer" in details):
        return PeerFault(peer, f"{endpoint} hung up on our certificate: the invite token or run is not its own")
    return PeerUnreachable(peer, f"{endpoint} cannot be reached ({details.rsplit(': ', 1)[-1] or 'connection broke'})")
