"""The tokenizer: a sentencepiece BPE with byte fallback that gives back every text exactly."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import sentencepiece

from decentra.errors import ConfigError, StateError

SPACE_SYMBOL = "\u2581"
"""sentencepiece's stand-in for a space; a real one in a text travels as its three bytes."""

MAX_LINE_BYTES = 4000
BOS, EOS = 1, 2
"""Ids of what opens and closes a document, in every tokenizer that is trained here."""


class Tokenizer:
    """Text to ids and back. `bos` opens and `eos` closes a document; neither has text of its own."""

    def __init__(self, model: bytes) -> None:
        """model: bytes of a sentencepiece model. Raises StateError if they are not one."""
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise StateError("the tokenizer is not a sentencepiece model; delete its folder so that it is built again") from error
        self.vocab_size: int = self._processor.vocab_size()
        self.bos: int = self._processor.bos_id()
        self.eos: int = self._processor.eos_id()
        self._piece_bytes = [self._bytes_of(id) for id in range(self.vocab_size)]
        self._space_symbol_ids = [self._processor.PieceToId(f"<0x{byte:02X}>") for byte in SPACE_SYMBOL.encode()]

    def encode(self, text: str) -> list[int]:
        """Ids of a text without separators."""
        head, *tails = text.split(SPACE_SYMBOL)
        ids: list[int] = self._processor.EncodeAsIds(head)
        for tail in tails:
            ids += self._space_symbol_ids
            ids += self._processor.EncodeAsIds(tail)
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of ids; separators vanish, bytes that are not UTF-8 become U+FFFD."""
        text: str = self._processor.DecodeIds(ids)
        return text

    def num_bytes(self, ids: list[int]) -> int:
        """Bytes of the text of ids; separators have none."""
        return sum(self._piece_bytes[id] for id in ids)

    def _bytes_of(self, id: int) -> int:
        if self._processor.IsByte(id):
            return 1
        if self._processor.IsControl(id) or self._processor.IsUnknown(id):
            return 0
        return len(self._processor.IdToPiece(id).replace(SPACE_SYMBOL, " ").encode())

    def encode_document(self, text: str) -> list[int]:
        """bos, the text, eos."""
        return [self.bos, *self.encode(text), self.eos]


def train_tokenizer(documents: Iterable[str], vocab_size: int, max_sample_bytes: int = 2_000_000) -> bytes:
    """Train a BPE (arXiv 1508.07909) of `vocab_size` pieces on about `max_sample_bytes` of the lines. Returns model bytes.

    The same documents give the same bytes: one thread, no sampling inside the trainer. Raises ConfigError if
    the text is too small for the vocabulary.
    """
    lines = list(sample_lines(documents, max_sample_bytes))
    out = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=vocab_size,
            byte_fallback=True, character_coverage=0.9995, normalization_rule_name="identity",
            remove_extra_whitespaces=False, add_dummy_prefix=False, allow_whitespace_only_pieces=True,
            split_digits=True, user_defined_symbols=["\n", "\t"], max_sentence_length=MAX_LINE_BYTES + 8,
            unk_id=0, bos_id=BOS, eos_id=EOS, pad_id=-1, num_threads=1, minloglevel=2,
        )  # fmt: skip
    except (RuntimeError, SystemError) as error:
        raise ConfigError(f"data.vocab_size = {vocab_size} is more than {len(lines)} lines of text can fill; use a smaller one") from error
    return out.getvalue()


def sample_lines(documents: Iterable[str], max_bytes: int) -> Iterator[str]:
    """Non-empty lines of the documents in order until `max_bytes` are given; over-long ones are left out."""
    left = max_bytes
    for text in documents:
        for line in text.split("\n"):
            num_bytes = len(line.encode())
            if line.strip() and num_bytes <= MAX_LINE_BYTES:
                left -= num_bytes
                yield line
        if left < 0:
            return
