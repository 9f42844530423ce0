"""Configuration: frozen sections, read from TOML, checked once at the edge.

`[run]` is what the swarm agrees on: it is hashed into the manifest and travels to joiners. `[node]` is what one
machine decides for itself and never travels. Unknown keys are errors.
"""

from decentra.config.files import (
    config_hash,
    differing_keys,
    from_dict,
    inner_bytes,
    inner_from_bytes,
    load,
    read_toml,
    run_bytes,
    run_from_bytes,
    to_dict,
)
from decentra.config.rules import check_node, check_run, parse_link
from decentra.config.sections import (
    CODECS,
    SPARSE_CODECS,
    CodecConfig,
    Config,
    DataConfig,
    InnerConfig,
    ModelConfig,
    NodeConfig,
    OuterConfig,
    RunConfig,
)

__all__ = [
    "CODECS",
    "SPARSE_CODECS",
    "CodecConfig",
    "Config",
    "DataConfig",
    "InnerConfig",
    "ModelConfig",
    "NodeConfig",
    "OuterConfig",
    "RunConfig",
    "check_node",
    "check_run",
    "config_hash",
    "differing_keys",
    "from_dict",
    "inner_bytes",
    "inner_from_bytes",
    "load",
    "parse_link",
    "read_toml",
    "run_bytes",
    "run_from_bytes",
    "to_dict",
]
