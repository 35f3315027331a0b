"""Datasets: prepared from files, refused when damaged, cut into the text of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.data.batches import evaluation_ids, step_ids
from training.data.dataset import META_FILE, TOKENIZER_FILE, TOKENS_FILE, TokenDataset
from training.data.prepare import prepare
from training.data.text import RunText, open_text
from training.errors import ConfigError, StorageError

TEXTS = {"a.txt": "def f(x):\n    return x\n" * 40, "b.txt": "Gewöhnlich, 你好!\n" * 30, "empty.txt": ""}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def ids_of(dataset: TokenDataset) -> list[int]:
    return [int(each) for each in dataset.sequence(0, dataset.meta.tokens - 1)]


def test_bytes_come_back_with_a_separator_after_each_document(files: Path, tmp_path: Path):
    meta = prepare([files], tmp_path / "data")
    ids = ids_of(TokenDataset(tmp_path / "data"))
    a, b = (list(TEXTS[name].encode()) for name in ("a.txt", "b.txt"))
    assert ids == [*a, 256, *b, 256]
    assert (meta.documents, meta.vocabulary_size, meta.dtype, meta.tokenizer) == (2, 257, "uint16", "bytes")


def test_the_same_files_make_the_same_dataset(files: Path, tmp_path: Path):
    assert prepare([files], tmp_path / "one") == prepare([files], tmp_path / "two")


def test_a_trained_tokenizer_is_saved_and_reads_its_text_back(files: Path, tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    meta = prepare([files], tmp_path / "data", tokenizer="train:300")
    ids = ids_of(TokenDataset(tmp_path / "data"))
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "data" / TOKENIZER_FILE))
    first = ids[: ids.index(meta.separator)]
    assert tokenizer.decode(first) == TEXTS["a.txt"]
    assert meta.vocabulary_size <= 300
    assert len(ids) < sum(len(text.encode()) for text in TEXTS.values()) / 2


def test_a_tokenizer_of_another_dataset_can_be_used(files: Path, tmp_path: Path):
    pytest.importorskip("tokenizers")
    one = prepare([files], tmp_path / "one", tokenizer="train:300")
    two = prepare([files], tmp_path / "two", tokenizer=str(tmp_path / "one" / TOKENIZER_FILE))
    assert two == one


@pytest.mark.parametrize(
    ("tokenizer", "line"),
    [
        ("train:100", "tokenizer = train:100: train:N needs N of at least 257"),
        ("train:lots", "tokenizer = train:lots: train:N needs N of at least 257"),
        (
            "/nowhere.json",
            'tokenizer = /nowhere.json: no such file; give "bytes", "train:<vocabulary size>" or a tokenizer.json',
        ),
    ],
)
def test_an_unknown_tokenizer_is_refused(files: Path, tmp_path: Path, tokenizer: str, line: str):
    pytest.importorskip("tokenizers")
    with pytest.raises(ConfigError) as refused:
        prepare([files], tmp_path / "data", tokenizer=tokenizer)
    assert str(refused.value) == line
    assert list(tmp_path.iterdir()) == [files]


def test_a_broken_tokenizer_file_is_refused_in_one_line(files: Path, tmp_path: Path):
    pytest.importorskip("tokenizers")
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(ConfigError, match=r"t\.json: not a tokenizer\.json") as refused:
        prepare([files], tmp_path / "data", tokenizer=str(tmp_path / "t.json"))
    assert "\n" not in str(refused.value)


def test_progress_ends_at_all_bytes(files: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    prepare([files], tmp_path / "data", progress=lambda done, total: seen.append((done, total)))
    total = sum(len(text.encode()) for text in TEXTS.values())
    assert seen[-1] == (total, total)
    assert len(seen) == 2


def test_a_pattern_chooses_files_in_folders(files: Path, tmp_path: Path):
    assert prepare([files], tmp_path / "data", pattern="a*").documents == 1


def test_missing_and_empty_files_are_refused(files: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="nowhere: no such file or folder"):
        prepare([tmp_path / "nowhere"], tmp_path / "data")
    with pytest.raises(ConfigError, match="no file with text in it matches"):
        prepare([files / "empty.txt"], tmp_path / "data")


def test_an_existing_folder_is_not_overwritten(files: Path, tmp_path: Path):
    prepare([files], tmp_path / "data")
    with pytest.raises(ConfigError, match="exists already"):
        prepare([files], tmp_path / "data")


def test_what_a_killed_call_left_is_cleaned(files: Path, tmp_path: Path):
    left = tmp_path / ".data.partial"
    left.mkdir()
    (left / TOKENS_FILE).write_bytes(b"half")
    prepare([files], tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "files"]


def test_a_failed_call_leaves_nothing(files: Path, tmp_path: Path):
    def full(done_bytes: int, total_bytes: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"folder = .*data: No space left on device"):
        prepare([files], tmp_path / "data", progress=full)
    assert list(tmp_path.iterdir()) == [files]


@pytest.fixture
def dataset(files: Path, tmp_path: Path) -> Path:
    prepare([files], tmp_path / "data")
    return tmp_path / "data"


def test_a_truncated_file_is_refused_in_one_line(dataset: Path):
    path = dataset / TOKENS_FILE
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(
        ConfigError, match=r"has 3102 bytes, dataset.json says 3104: cut off or damaged, prepare it again"
    ):
        TokenDataset(dataset)


def test_a_missing_file_is_refused_in_one_line(dataset: Path):
    (dataset / TOKENS_FILE).unlink()
    with pytest.raises(ConfigError, match=r"tokens.bin: No such file or directory"):
        TokenDataset(dataset)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 1}'])
def test_a_damaged_description_is_refused_in_one_line(dataset: Path, text: str):
    (dataset / META_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"dataset\.json is damaged") as refused:
        TokenDataset(dataset)
    assert "\n" not in str(refused.value)


def test_another_version_is_refused(dataset: Path):
    values = json.loads((dataset / META_FILE).read_text())
    (dataset / META_FILE).write_text(json.dumps({**values, "version": 2}))
    with pytest.raises(ConfigError, match="version 2 of uint16, this program reads version 1"):
        TokenDataset(dataset)


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no dataset\.json there; make one with slurm-power-train prepare"):
        TokenDataset(tmp_path)


def test_a_token_beyond_the_vocabulary_is_found_when_read(dataset: Path):
    path = dataset / TOKENS_FILE
    ids = np.frombuffer(path.read_bytes(), "<u2").copy()
    ids[70] = 60000
    path.write_bytes(ids.tobytes())
    opened = TokenDataset(dataset)
    opened.sequence(0, 64)
    with pytest.raises(StorageError, match="token 70 is 60000, beyond the vocabulary of 257: damaged"):
        opened.sequence(1, 64)


def test_verify_finds_a_changed_byte(dataset: Path):
    TokenDataset(dataset).verify()
    path = dataset / TOKENS_FILE
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        TokenDataset(dataset).verify()


def opened(dataset: Path, **changes: object) -> RunText:
    options = {"sequence_length": 32, "global_sequences": 8, "vocabulary_size": 512, "seed": 5, **changes}
    return open_text(dataset, **options)  # type: ignore[arg-type]


def test_held_out_text_is_never_trained_on(dataset: Path):
    text = opened(dataset, held_out_fraction=0.25)
    assert text.held_out is not None
    assert (text.trained.count, text.held_out.count) == (36, 12)
    assert text.trained.first + text.trained.count == text.held_out.first
    assert {text.order.at(place) for place in range(36 * 3)} == set(range(36))


def test_held_out_sequences_are_spread_and_fixed(dataset: Path):
    assert opened(dataset, held_out_fraction=0.25).evaluated == (0, 1, 3, 4, 6, 7, 9, 10)


def test_held_out_text_may_be_another_dataset(dataset: Path):
    text = opened(dataset, held_out=dataset, evaluate_batches=2)
    assert text.held_out is not None
    assert text.trained.count == text.held_out.count == 48
    assert len(text.evaluated) == 16


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"global_sequences": 49}, "data.dataset = {}: holds 48 sequences of 32 tokens, one batch needs 49"),
        (
            {"held_out_fraction": 0.1},
            "data.held_out_fraction = {}: holds 5 sequences of 32 tokens, one batch needs 8",
        ),
        ({"sequence_length": 5000}, "data.dataset = {}: holds 0 sequences of 5000 tokens, one batch needs 8"),
        (
            {"vocabulary_size": 256},
            "data.dataset = {}: its vocabulary of 257 does not go into the model's vocab_size = 256",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused_in_one_line(dataset: Path, changes: dict[str, object], line: str):
    with pytest.raises(ConfigError) as refused:
        opened(dataset, **changes)
    assert str(refused.value) == line.format(dataset)


@pytest.mark.parametrize("data_ranks", [1, 2, 4])
def test_every_plan_reads_the_same_global_batch(dataset: Path, data_ranks: int):
    text = opened(dataset, held_out_fraction=0.25)
    whole = step_ids(text, 24, global_sequences=8, data_rank=0, data_ranks=1)
    parts = [step_ids(text, 24, global_sequences=8, data_rank=r, data_ranks=data_ranks) for r in range(data_ranks)]
    assert (np.concatenate(parts) == whole).all()
    looked_at = evaluation_ids(text, data_rank=0, data_ranks=1)
    parts = [evaluation_ids(text, data_rank=r, data_ranks=data_ranks) for r in range(data_ranks)]
    assert (np.concatenate(parts) == looked_at).all()
    assert whole.shape == looked_at.shape == (8, 33)


def test_labels_are_the_tokens_one_further():
    pytest.importorskip("torch")
    from training.data.batches import micro_batches

    ids = np.arange(4 * 5, dtype=np.int64).reshape(4, 5)
    batches = list(micro_batches(ids, 2))
    assert len(batches) == 2
    tokens, labels = batches[1]
    assert tokens.tolist() == [[10, 11, 12, 13], [15, 16, 17, 18]]
    assert labels.tolist() == [[11, 12, 13, 14], [16, 17, 18, 19]]
