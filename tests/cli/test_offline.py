"""What is done with a state directory, offline: the anchor evaluated, let write, and exported as transformers reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from decentra.cli.main import main
from decentra.config import RunConfig
from decentra.data.tokenizer import Tokenizer
from decentra.model import hf
from decentra.sim.cluster import Cluster
from decentra.sim.offline import trained
from decentra.sim.processes import run_toml

Captured = pytest.CaptureFixture[str]


@pytest.fixture()
def state(tmp_path: Path, small_swarm: Cluster, data_folder: Path) -> Path:
    """The state directory of a member after the run, with the files of the run."""
    folder = tmp_path / "kept"
    for name, data in small_swarm.nodes[0].ports.store.files._files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    shutil.copytree(data_folder, folder / "files", dirs_exist_ok=True)
    return folder


def test_the_anchor_is_evaluated_as_the_run_does(state: Path, small_swarm: Cluster, small_run: RunConfig, capsys: Captured) -> None:
    assert main(["eval", str(state), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sync"] == small_run.stop_syncs and found["heldout_loss"] == pytest.approx(small_swarm.heldout_loss(), abs=1e-6)
    assert 0.5 * found["heldout_loss"] < found["bits_per_byte"] < found["heldout_loss"] / 0.693, "a token is one to three bytes here"
    assert main(["eval", str(state), "--samples", "2"]) == 0
    said = capsys.readouterr().out
    assert f"outer step {small_run.stop_syncs}" in said and "nats a token" in said and "bits a byte" in said


def test_the_anchor_goes_on_with_a_prompt_and_repeats_itself(state: Path, capsys: Captured) -> None:
    texts = []
    for options in (["--seed", "1"], ["--seed", "1"], ["--temperature", "0"]):
        assert main(["generate", str(state), "--prompt", "import os", "--tokens", "12", *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and all(text.startswith("import os") for text in texts)


def test_an_export_is_the_anchor_and_gives_the_ids_that_it_was_trained_on(state: Path, tmp_path: Path, capsys: Captured) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    out = tmp_path / "hf"
    assert main(["export", str(state), "--hf", str(out)]) == 0 and str(out) in capsys.readouterr().out
    with trained(state) as found:
        model, tokenizer = found.model, Tokenizer(found.tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), hf.load(out).parameters(), strict=True))
    theirs = AutoTokenizer.from_pretrained(out)
    for text in ("def main():\n\treturn 1", "  two  spaces ", "", "x = 12345\n", "日本語 text", " \t \n"):
        assert theirs(text).input_ids == [tokenizer.bos, *tokenizer.encode(text)]
    ids = torch.tensor([[tokenizer.bos, *tokenizer.encode("import os")]])
    again = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(model(ids), again(ids).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eval", "STATE", "--samples", "-1"], "--samples -1 must not be negative"),
        (["generate", "STATE", "--tokens", "0"], "--tokens 0 must be at least 1"),
        (["generate", "STATE", "--temperature", "-1"], "--temperature -1 must be 0 or"),
        (["generate", "STATE", "--temperature", "nan"], "--temperature nan must be 0 or"),
        (["export", "STATE", "--hf", "STATE"], "is not an empty folder"),
        (["export", "nowhere", "--hf", "out"], "nowhere holds no run"),
        (["eval", "nowhere"], "nowhere holds no run"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(state: Path, capsys: Captured, arguments: list[str], says: str) -> None:
    assert main([str(state) if word == "STATE" else word for word in arguments]) in (1, 2)
    said = capsys.readouterr()
    assert says in said.err and len(said.err.splitlines()) == 1 and not said.out


def test_a_state_without_its_files_says_that_they_have_not_come(state: Path, capsys: Captured) -> None:
    shutil.rmtree(state / "files")
    assert main(["generate", str(state)]) == 1
    assert "holds no tokenizer.model" in capsys.readouterr().err


# -- decentra train -------------------------------------------------------------------------------------------------------


@pytest.fixture()
def run_file(tmp_path: Path, small_run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(run_toml(small_run))
    return "run.toml"


def test_a_run_without_a_swarm_goes_on_where_it_was_and_is_read_like_a_node(run_file: str, capsys: Captured) -> None:
    command = ["train", run_file, "--out", "out", "--eval-every", "2", "--save-every", "3"]
    assert main([*command, "--steps", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said[:-1]] == ["2", "3"] and "tokens/s" in said[0] and said[-1].startswith("3 steps")
    assert main([*command, "--steps", "5", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["steps"] == 5 and summary == json.loads(Path("out/summary.json").read_text())
    assert main(["eval", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["heldout_loss"] == pytest.approx(summary["heldout_loss"], abs=1e-6)
    assert main(["generate", "out", "--tokens", "4"]) == main(["export", "out", "--hf", "hf"]) == 0
    assert hf.load(Path("hf")).config.max_context > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "-1"], "--steps -1 and run.stop_tokens = 0 name no end"),
        ([], "--steps 0 and run.stop_tokens = 0 name no end"),
        (["--steps", "1", "--eval-every", "0"], "--eval-every 0 must be at least 1"),
        (["--steps", "1", "--save-every", "-1"], "--save-every -1 must be at least 1"),
        (["--steps", "1", "--out", "."], "--out . holds what decentra train did not make"),
    ],
)
def test_a_run_that_cannot_be_is_refused(run_file: str, capsys: Captured, arguments: list[str], says: str) -> None:
    assert main(["train", run_file, *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err and len(said.err.splitlines()) == 1


def test_a_folder_of_other_settings_is_kept_as_it_is(run_file: str, capsys: Captured) -> None:
    assert main(["train", run_file, "--out", "out", "--steps", "1"]) == 0
    text = Path(run_file).read_text()
    Path(run_file).write_text(text.replace("seed = 0", "seed = 1") if "seed = 0" in text else text.replace("seed =", "seed = 1 #"))
    assert main(["train", run_file, "--out", "out", "--steps", "1"]) == 2
    assert "--out out is of a run with another run.seed" in capsys.readouterr().err
