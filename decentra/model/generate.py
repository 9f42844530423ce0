"""Sampling text from a model, token by token."""

from __future__ import annotations

import torch

from decentra.model.llama import Cache, Llama


@torch.no_grad()
def generate(model: Llama, prompt_ids: list[int], num_tokens: int, temperature: float, seed: int, context: int = 0) -> list[int]:
    """The `num_tokens` ids that follow a non-empty prompt; greedy at temperature 0, else drawn with `seed`.

    The model sees at most the last `context` ids, or all of them if 0. The global generator is left alone. What came before is
    kept as keys and values until the context is full; then each id takes a pass over all of it.
    """
    assert prompt_ids, "a prompt needs at least one id; use bos"
    device = next(model.parameters()).device
    generator = torch.Generator(device="cpu").manual_seed(seed)
    ids, cache = list(prompt_ids), Cache(model.config.num_layers)
    for _ in range(num_tokens):
        slides = 0 < context < len(ids)
        window = torch.tensor([ids[-context:] if slides else ids[cache.length :]], dtype=torch.int64, device=device)
        logits = model(window, cache=None if slides else cache)[0, -1].cpu()
        if temperature <= 0:
            ids.append(int(logits.argmax()))
        else:
            shares = torch.softmax(logits / temperature, dim=-1)
            ids.append(int(torch.multinomial(shares, 1, generator=generator)))
    return ids[len(prompt_ids) :]
