"""The tokenizer gives back every text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentra.data.corpus import python_documents
from decentra.data.tokenizer import Tokenizer, train_tokenizer
from decentra.errors import ConfigError, StateError

MODEL = train_tokenizer(python_documents(300_000), 600)
TOKENIZER = Tokenizer(MODEL)

HARD_TEXTS = [
    "",
    " ",
    "\n",
    "\t",
    "   leading and trailing   ",
    "def f(x):\n\tif x  ==  1:\n        return 'a'\n\n\n",
    "windows\r\nlines\r\n",
    "\ufeffbom, nul \0, form feed \f, vertical tab \v, no-break\u00a0space",
    "a real \u2581 and \u2581\u2581 two",
    "<s> </s> <unk> <0x0A> <pad>",
    "\u00e9 e\u0301 \u6f22\u5b57 \U0001f40d \uff21 \u2126 \ufb01",
    "3.14159 1234567890",
]


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_hard_texts_round_trip(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_ids_know_the_bytes_of_their_text(text: str) -> None:
    assert TOKENIZER.num_bytes(TOKENIZER.encode_document(text)) == len(text.encode())


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_the_corpus_round_trips() -> None:
    for text in python_documents(500_000):
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_training_is_deterministic() -> None:
    assert train_tokenizer(python_documents(300_000), 600) == MODEL


def test_documents_are_opened_and_closed() -> None:
    ids = TOKENIZER.encode_document("pass\n")
    assert ids[0] == TOKENIZER.bos and ids[-1] == TOKENIZER.eos and TOKENIZER.bos != TOKENIZER.eos
    assert TOKENIZER.decode(ids) == "pass\n"
    assert TOKENIZER.vocab_size == 600 and max(ids) < 600


def test_digits_and_indents_are_pieces() -> None:
    assert len(TOKENIZER.encode("12345")) == 5
    assert len(TOKENIZER.encode("\n        return")) <= 5


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="vocab_size = 60000"):
        train_tokenizer(["one line"], 60000)
    with pytest.raises(StateError, match="not a sentencepiece model"):
        Tokenizer(b"nonsense")
