"""How a node's bytes reach another node."""

import os

# gRPC's core writes every failed handshake to stderr, where grpc_border makes each a PeerFault that names the peer.
# Read once, when grpc is first imported, so it must stand here and not beside the code that uses grpc.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
