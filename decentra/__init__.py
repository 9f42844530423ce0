"""decentra: pretrain one Llama together across slow links, with no server."""
