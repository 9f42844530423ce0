"""The text of this Python, and its split."""

from __future__ import annotations

from pathlib import Path

from decentra.data.corpus import language_topics, python_documents, source_files, split


def test_documents_come_in_one_order_and_within_the_bound() -> None:
    first = list(python_documents(1_000_000))
    assert first == list(python_documents(1_000_000)) and len(first) > 20
    assert 500_000 < sum(len(text.encode()) for text in first) <= 1_000_000


def test_a_larger_bound_only_adds_documents() -> None:
    small = list(python_documents(300_000))
    assert list(python_documents(600_000))[: len(small)] == small


def test_topics_are_documents() -> None:
    texts = set(python_documents(100_000_000))
    assert all(topic in texts for topic in language_topics().values())


def test_third_party_code_tests_and_links_are_left_out(tmp_path: Path) -> None:
    skipped = ("site-packages/x.py", "a/test/y.py", "__pycache__/z.py", "_sysconfigdata_linux.py", "pydoc_data/topics.py")
    for name in ("b.py", "a/c.py", *skipped):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("pass\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "b.py")
    (tmp_path / "note.txt").write_text("no")
    assert source_files(tmp_path) == ["a/c.py", "b.py"]


def test_split_is_by_share_of_documents_and_never_empty() -> None:
    documents = [str(index) for index in range(1000)]
    train, heldout = split(documents, 0.02)
    assert len(heldout) == 20 and sorted(train + heldout) == sorted(documents)
    assert split(["a", "b"], 0.02) == (["b"], ["a"])
