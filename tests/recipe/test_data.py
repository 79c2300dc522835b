"""Laws of the data's way from files to blocks: nothing is lost, nothing leaks, nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from datasets.table import InMemoryTable
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, default_data_collator

from hfwarmup.planning.arguments import DataArguments
from hfwarmup.recipe import data as data_module
from hfwarmup.recipe.corpus import _is_stdlib_source, load_corpus
from hfwarmup.recipe.data import build_tokenizer, bytes_per_token, pack, prepare_data, tokenize

STDLIB = Path(textwrap.__file__).parent
ONE_LINE = r"\A[^\n]+\Z"
SOURCES = [
    "textwrap.py",
    "bisect.py",
    "heapq.py",
    "keyword.py",
    "shlex.py",
    "stat.py",
    "json/decoder.py",
    "json/scanner.py",
]


@pytest.fixture(scope="module", autouse=True)
def _no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight real source files in two folders, an empty one, and one that is hidden."""
    root = tmp_path_factory.mktemp("corpus")
    for name in SOURCES:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text((STDLIB / name).read_text())
    (root / "empty.py").write_text("")
    (root / ".hidden.py").write_text("secret = 1\n")
    return root


@pytest.fixture(scope="module")
def arguments(folder) -> DataArguments:
    return DataArguments(dataset=str(folder), validation_fraction=0.3, vocab_size=600, block_size=32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def corpus(arguments, cache):
    return load_corpus(arguments, seed=0, cache_dir=cache)


@pytest.fixture(scope="module")
def tokenizer(arguments, corpus, cache):
    return build_tokenizer(arguments, corpus["train"], cache)


def write_rows(file: Path, texts: list[str], column: str = "text") -> Path:
    file.write_text("".join(json.dumps({column: text, "source": "web"}) + "\n" for text in texts))
    return file


# The corpus and its split


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("abc.py", True),
        ("email/mime/text.py", True),
        ("test.py", True),  # a module, not the folder
        ("test/test_abc.py", False),
        ("unittest/test/testmock/support.py", False),
        ("lib2to3/tests/test_fixers.py", False),
        ("idlelib/run.py", False),
        ("site-packages/pip/__init__.py", False),
        ("config-3.11-x86_64-linux-gnu/python-config.py", False),
    ],
)
def test_stdlib_is_the_source_without_tests(path, kept):
    assert _is_stdlib_source(Path(path)) == kept


def test_each_file_is_a_document_named_from_the_folder_and_on_one_side(corpus, folder):
    train, validation = (
        dict(zip(corpus[s]["source"], corpus[s]["text"], strict=True)) for s in ("train", "validation")
    )
    assert sorted([*train, *validation]) == sorted([*SOURCES, "empty.py"])
    assert not set(train) & set(validation)
    assert train | validation == {name: (folder / name).read_text() for name in [*SOURCES, "empty.py"]}


def test_split_survives_added_files_and_changes_with_the_seed(corpus, folder, arguments, cache, tmp_path):
    for name in [*SOURCES, "empty.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("moved elsewhere")
    for i in range(20):
        (tmp_path / f"a{i}.md").write_text("new")
    more = DataArguments(dataset=str(tmp_path), validation_fraction=arguments.validation_fraction)
    sides = load_corpus(more, seed=0, cache_dir=cache)
    known = {*SOURCES, "empty.py"}
    assert set(sides["validation"]["source"]) & known == set(corpus["validation"]["source"])
    other = load_corpus(more, seed=1, cache_dir=cache)
    assert set(other["validation"]["source"]) != set(sides["validation"]["source"])


def test_rows_are_split_by_their_text_whatever_their_order(tmp_path):
    texts = [f"row {i}" for i in range(200)]
    held_out = []
    for name in ("a.jsonl", "b.jsonl"):
        rows = DataArguments(dataset=str(write_rows(tmp_path / name, texts)), validation_fraction=0.25)
        splits = load_corpus(rows, cache_dir=str(tmp_path))
        assert splits["train"].column_names == ["text"]
        assert sorted([*splits["train"]["text"], *splits["validation"]["text"]]) == sorted(texts)
        held_out.append(set(splits["validation"]["text"]))
        random.Random(0).shuffle(texts)
    assert held_out[0] == held_out[1]
    assert 30 < len(held_out[0]) < 70  # 200 x 0.25 = 50, standard deviation 6


def test_a_validation_split_of_the_data_is_kept(cache, tmp_path):
    write_rows(tmp_path / "train.jsonl", ["a", "b", "c"], column="body")
    write_rows(tmp_path / "validation.jsonl", ["d"], column="body")
    (tmp_path / "README.md").write_text("The card of a dataset is not a document.")
    splits = load_corpus(DataArguments(dataset=str(tmp_path), text_column="body"), cache_dir=cache)
    assert {name: split["text"][:] for name, split in splits.items()} == {"train": ["a", "b", "c"], "validation": ["d"]}


def test_a_dataset_saved_to_disk_is_loaded_as_such(tmp_path):
    Dataset.from_dict({"text": ["a", "b", "c"]}).save_to_disk(tmp_path / "saved")
    splits = load_corpus(DataArguments(dataset=str(tmp_path / "saved")))
    assert sorted([*splits["train"]["text"], *splits["validation"]["text"]]) == ["a", "b", "c"]


def test_a_text_file_alone_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    text = "\n\n".join(f"{i} " + "word " * 300 for i in range(20))
    (tmp_path / "book.txt").write_text(text)
    book = DataArguments(dataset=str(tmp_path / "book.txt"))
    splits = load_corpus(book, cache_dir=str(tmp_path / "cache"))
    parts = [row for split in splits.values() for row in split]
    parts.sort(key=lambda row: int(row["source"].removeprefix("book.txt#")))
    assert "".join(row["text"] for row in parts) == text
    assert all(len(row["text"]) >= 4096 and row["text"].endswith("\n\n") for row in parts[:-1])


def test_a_glob_names_its_files_from_its_fixed_part(folder, tmp_path):
    splits = load_corpus(DataArguments(dataset=f"{folder}/**/[ds]*.py"), cache_dir=str(tmp_path))
    names = [name for split in splits.values() for name in split["source"]]
    assert sorted(names) == ["json/decoder.py", "json/scanner.py", "shlex.py", "stat.py"]


def test_an_edited_file_is_read_again(cache, tmp_path):
    for content in ("first", "second!"):
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_text(content)
        splits = load_corpus(DataArguments(dataset=str(tmp_path)), cache_dir=cache)
        assert {text for split in splits.values() for text in split["text"]} == {content}


# The tokenizer


def test_decode_inverts_encode_on_real_source(corpus, tokenizer):
    texts = [*corpus["train"]["text"], *corpus["validation"]["text"], " \t\r\n caf\u00e9 \U0001f600 don 't , x\u0000y"]
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


def test_a_word_has_the_same_tokens_in_prose_and_in_code_where_case_and_space_are_dropped(arguments, corpus, cache):
    own = build_tokenizer(dataclasses.replace(arguments, uncased=True), corpus["train"], cache)
    prose, code = own("The Buffer\n\n   is read"), own("the.buffer_is__READ(")
    marks = set(own("._(")["input_ids"])
    assert [token for token in code["input_ids"] if token not in marks] == prose["input_ids"]
    assert own("<|endoftext|>Read")["input_ids"] == [own.eos_token_id, *own("read")["input_ids"]]
    assert own.decode(own("é中")["input_ids"]) == "e中"  # accents go, and no text is unknown


def test_trained_tokenizer_is_the_size_asked_for(tokenizer):
    assert len(tokenizer) == 600
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0


ROLES = {"mask_token": "<|mask|>", "pad_token": "<|pad|>"}


def test_special_tokens_are_the_last_entries_of_a_trained_tokenizer(arguments, corpus, cache):
    tokenizer = build_tokenizer(arguments, corpus["train"], cache, special_tokens=ROLES)
    assert len(tokenizer) == 600
    assert (tokenizer.eos_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id) == (0, 598, 599)
    assert tokenizer.encode("a<|mask|>b")[1:2] == [598]
    (ids,) = tokenize(Dataset.from_dict({"text": ["a<|mask|>"]}), tokenizer)["input_ids"]
    assert ids[1:] == [598, 0]


def test_a_loaded_tokenizer_keeps_the_special_tokens_that_it_has(arguments, corpus, cache, tmp_path):
    build_tokenizer(arguments, corpus["train"], cache, special_tokens={"mask_token": "[MASK]"}).save_pretrained(
        tmp_path
    )
    loaded = build_tokenizer(DataArguments(tokenizer=str(tmp_path)), corpus["train"], special_tokens=ROLES)
    assert (loaded.mask_token, loaded.mask_token_id) == ("[MASK]", 599)
    assert (loaded.pad_token, loaded.pad_token_id, len(loaded)) == ("<|pad|>", 600, 601)


def test_tokenizer_is_trained_on_the_train_split_alone_and_once(arguments, corpus, tmp_path, monkeypatch):
    trained_on = []
    train_bpe = data_module._train_bpe

    def spy(texts, *args):
        trained_on.append(list(texts))
        return train_bpe(trained_on[-1], *args)

    monkeypatch.setattr(data_module, "_train_bpe", spy)
    prepare_data(arguments, cache_dir=str(tmp_path))
    assert trained_on == [[text for text in corpus["train"]["text"] if text]]
    (file,) = (tmp_path / "tokenizers").iterdir()
    before = file.read_bytes(), file.stat().st_mtime_ns
    prepare_data(arguments, cache_dir=str(tmp_path))
    assert len(trained_on) == 1
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    build_tokenizer(arguments, corpus["validation"], str(tmp_path))  # another text: another tokenizer
    assert len(trained_on) == 2


def test_an_interrupted_run_leaves_no_tokenizer(arguments, corpus, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        build_tokenizer(arguments, corpus["train"], str(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_a_given_tokenizer_is_loaded_and_an_ignored_setting_said(arguments, tokenizer, tmp_path, caplog):
    tokenizer.save_pretrained(tmp_path)
    given = DataArguments(tokenizer=str(tmp_path), vocab_size=999, uncased=True)
    loaded = build_tokenizer(given, Dataset.from_dict({"text": []}))
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert f"uncased=true is ignored: tokenizer={tmp_path} is used as it was trained." in caplog.messages
    assert f"vocab_size=999 is ignored: tokenizer={tmp_path} has its own." in caplog.messages


def test_a_bert_tokenizer_ends_its_documents_with_sep(tokenizer, tmp_path):
    bert = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, sep_token="[SEP]")
    bert.save_pretrained(tmp_path)
    loaded = build_tokenizer(DataArguments(tokenizer=str(tmp_path)), Dataset.from_dict({"text": []}))
    (ids,) = tokenize(Dataset.from_dict({"text": ["def"]}), loaded)["input_ids"]
    assert loaded.decode(ids) == "def[SEP]"


# The token ids


def test_each_document_ends_with_eos_untruncated_and_without_a_warning(corpus, tokenizer, monkeypatch, capfd):
    monkeypatch.setattr(tokenizer, "model_max_length", 8)
    tokenized = tokenize(corpus["train"], tokenizer)
    assert tokenized.column_names == ["input_ids"]
    assert tokenized.features["input_ids"].feature.dtype == "int32"
    for ids, text in zip(tokenized["input_ids"], corpus["train"]["text"], strict=True):
        assert ids == ([*tokenizer.backend_tokenizer.encode(text).ids, 0] if text else [])
    assert "sequence length" not in "".join(capfd.readouterr())


def test_tokenizing_again_reads_the_cache_even_after_the_tokenizer_was_used(corpus, tokenizer, monkeypatch):
    first = tokenize(corpus["train"], tokenizer)
    tokenizer(["used"], truncation=True, max_length=1)
    monkeypatch.setattr(data_module, "_encode", lambda *_, **__: pytest.fail("tokenized again"))
    assert tokenize(corpus["train"], tokenizer)._fingerprint == first._fingerprint


def test_worker_processes_give_the_same_tokens(corpus, tokenizer, tmp_path):
    documents = Dataset.from_dict({"text": corpus["train"]["text"][:]})
    alone, shared = tokenize(documents, tokenizer), tokenize(documents, tokenizer, num_workers=2)
    assert alone["input_ids"][:] == shared["input_ids"][:]


def test_bytes_per_token_known_answer(tokenizer):
    documents = Dataset.from_dict({"text": ["\u00e9" * 5, ""]})
    assert bytes_per_token(documents, Dataset.from_dict({"input_ids": [[1, 2, 3, 0], []]})) == 10 / 4


# The blocks


@st.composite
def ragged_columns(draw) -> pa.ChunkedArray:
    """Documents in several chunks, 32- or 64-bit offsets, each chunk perhaps a slice of a longer array."""
    tokens = st.lists(st.integers(0, 99), max_size=7)
    list_type = draw(st.sampled_from([pa.list_, pa.large_list]))(draw(st.sampled_from([pa.int32(), pa.int64()])))
    chunks = []
    for documents in draw(st.lists(st.lists(tokens, max_size=5), min_size=1, max_size=5)):
        before, after = draw(st.lists(tokens, max_size=2)), draw(st.lists(tokens, max_size=2))
        chunk = pa.array([*before, *documents, *after], type=list_type)
        chunks.append(chunk.slice(len(before), len(documents)))
    return pa.chunked_array(chunks, type=list_type)


@given(column=ragged_columns(), block_size=st.integers(1, 9))
def test_unmasked_labels_are_the_stream(column, block_size):
    stream = [token for document in column.to_pylist() for token in document]
    tokenized = Dataset(InMemoryTable(pa.table({"input_ids": column})), fingerprint="ragged")
    if len(stream) < block_size:
        with pytest.raises(ValueError, match="lower block_size"):
            pack(tokenized, block_size)
        return
    packed = pack(tokenized, block_size)
    packed.data.validate(full=True)
    blocks, labels = packed["input_ids"][:].numpy(), packed["labels"][:].numpy()
    assert blocks.shape == labels.shape == (-(-len(stream) // block_size), block_size)
    assert labels[labels != -100].tolist() == stream
    assert (blocks[labels != -100] == labels[labels != -100]).all()
    assert blocks[-1].tolist() == stream[-block_size:]
    assert (labels[:-1] != -100).all()


def test_blocks_follow_a_shuffled_or_selected_dataset():
    tokenized = Dataset.from_dict({"input_ids": [[1, 1], [2, 2], [3, 3]]}).select([2, 0])
    assert pack(tokenized, 4)["input_ids"][:].tolist() == [[3, 3, 1, 1]]


def test_blocks_and_labels_are_views_of_the_token_file(corpus, tokenizer):
    tokenized = tokenize(corpus["train"], tokenizer)
    packed = pack(tokenized, 32)
    addresses = {
        column.chunk(0).flatten().buffers()[1].address
        for column in (tokenized.data.column("input_ids"), *packed.data.columns)
    }
    assert len(addresses) == 1


def test_pickled_blocks_name_their_file_instead_of_copying_it(corpus, tokenizer):
    packed = pack(tokenize(corpus["train"], tokenizer), 32)
    pickled = pickle.dumps(packed)
    assert len(pickled) < 10_000 < packed.data.nbytes
    again = pickle.loads(pickled)
    assert again.data.table.equals(packed.data.table)
    assert again.format == packed.format


def test_a_dataloader_gets_int64_tensors(corpus, tokenizer):
    packed = pack(tokenize(corpus["train"], tokenizer), 32)
    batch = next(iter(DataLoader(packed, batch_size=4, shuffle=True, collate_fn=default_data_collator)))
    assert {name: (tuple(t.shape), str(t.dtype)) for name, t in batch.items()} == {
        "input_ids": ((4, 32), "torch.int64"),
        "labels": ((4, 32), "torch.int64"),
    }


# All of it


def test_prepare_data_trains_on_every_train_token_once(arguments, corpus, cache):
    prepared = prepare_data(arguments, cache_dir=cache)
    for name, blocks in (("train", prepared.train), ("validation", prepared.validation)):
        labels = blocks["labels"][:].numpy()
        assert prepared.tokenizer.decode(labels[labels != -100]) == "".join(
            text + "<|endoftext|>" for text in corpus[name]["text"] if text
        )
    assert 1 < prepared.validation_bytes_per_token < 5


def test_the_second_rank_tokenizes_nothing_and_gets_the_same_data(folder, tmp_path):
    script = tmp_path / "two_ranks.py"
    script.write_text(
        textwrap.dedent(
            """
            import hashlib, json, sys
            import torch.distributed as dist
            from accelerate import PartialState
            from hfwarmup.recipe import data
            from hfwarmup.planning.arguments import DataArguments

            calls = {"_encode": 0, "_train_bpe": 0}

            def counted(name):
                original = getattr(data, name)
                def call(*args, **kwargs):
                    calls[name] += 1
                    return original(*args, **kwargs)
                setattr(data, name, call)

            counted("_encode"), counted("_train_bpe")
            folder, out = sys.argv[1:]
            state = PartialState(cpu=True)  # a bare one does not read ACCELERATE_USE_CPU: each rank would be alone
            arguments = DataArguments(dataset=folder, vocab_size=600, block_size=32, validation_fraction=0.3)
            first = state.main_process_first
            prepared = data.prepare_data(arguments, cache_dir=f"{out}/cache", main_process_first=first)
            splits = prepared.train, prepared.validation
            blocks = b"".join(split[column][:].numpy().tobytes() for split in splits for column in split.features)
            seen = {"ranks": state.num_processes, "backend": dist.get_backend(), "calls": calls,
                    "data": hashlib.sha256(blocks).hexdigest(), "tokenizer": prepared.tokenizer.get_vocab(),
                    "rows": [len(split) for split in splits]}
            with open(f"{out}/rank{state.process_index}.json", "w") as file:
                json.dump(seen, file)
            dist.barrier()
            dist.destroy_process_group()
            """
        )
    )
    (tmp_path / "accelerate.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nuse_cpu: true\n"
    )
    launch = f"--config_file {tmp_path}/accelerate.yaml --multi_gpu --num_processes 2 --main_process_port 0"
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch.split(), script, folder, tmp_path]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["ranks"] == 2
    assert first["backend"] == "gloo"
    assert first.pop("calls") == {"_encode": 2, "_train_bpe": 1}
    assert second.pop("calls") == {"_encode": 0, "_train_bpe": 0}
    assert first == second


# Errors: one line, what, the value, the remedy


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dataset": ""}, "dataset is empty; name a file, folder or hub dataset, or 'stdlib'."),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: give a share between 0 and 1, for example 0.05."),
        ({"validation_fraction": np.nan}, "validation_fraction=nan: give a share between 0 and 1, for example 0.05."),
        ({"vocab_size": 256}, "vocab_size=256: give 257 or more: 256 bytes and <|endoftext|>."),
        ({"block_size": 1}, "block_size=1: give 2 tokens or more: the first one is not predicted."),
        ({"tokenize_workers": -1}, "tokenize_workers=-1: give a whole number, 0 or more."),
    ],
)
def test_impossible_arguments(wrong, message):
    with pytest.raises(ValueError, match=ONE_LINE) as error:
        DataArguments(**wrong)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            (),
            {"dataset": "{}/x.txt"},
            "no such file, or none of a known kind (.csv .json .jsonl .md .parquet .py .txt)",
        ),
        (("x.bin",), {}, "no such file, or none of a known kind (.csv .json .jsonl .md .parquet .py .txt)"),
        (
            ("a.json", "b.py"),
            {},
            "holds tables (a.json) and text files (b.py); name one kind, for example with a glob.",
        ),
        (("a.txt",), {}, "1 document(s) cannot be split; give several files, or more text."),
        (("a.txt",), {"dataset_config": "en"}, "dataset_config=en: dataset={} is local and has none; omit it."),
        (("a.jsonl",), {"dataset_config": "en"}, "dataset_config=en: dataset={} is local and has none; omit it."),
        (("a.txt",), {"text_column": "body"}, "text_column=body: dataset={} is text without columns; omit it."),
        (("a.jsonl",), {"text_column": "body"}, "not a column of dataset={}; choose one of text, source."),
        (("test.jsonl",), {}, "dataset={}: no train split, only test; name files."),
    ],
)
def test_unusable_data(files, options, message, tmp_path):
    for name in files:
        write_rows(tmp_path / name, ["one row"])
    options = {"dataset": "{}"} | options
    options["dataset"] = options["dataset"].format(tmp_path)
    with pytest.raises(ValueError, match=ONE_LINE) as error:
        load_corpus(DataArguments(**options), cache_dir=str(tmp_path / "cache"))
    assert message.format(tmp_path) in str(error.value)


def test_an_unreachable_hub_is_one_line(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("Couldn't reach 'who/what' on the Hub\n(OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=ONE_LINE) as error:
        load_corpus(DataArguments(dataset="who/what"))
    assert str(error.value) == (
        "dataset=who/what: cannot be loaded (Couldn't reach 'who/what' on the Hub (OfflineModeIsEnabled)); "
        "without a network name local files, or 'stdlib'."
    )


def test_an_unknown_tokenizer_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=ONE_LINE) as error:
        build_tokenizer(DataArguments(tokenizer=str(tmp_path)), Dataset.from_dict({"text": []}))
    assert str(error.value).startswith(f"tokenizer={tmp_path}: cannot be loaded (")
    assert str(error.value).endswith("); name a local folder, or omit it to train one.")


def test_less_than_a_block_is_one_line():
    with pytest.raises(ValueError, match=ONE_LINE) as error:
        pack(Dataset.from_dict({"input_ids": [[1, 2, 3]]}), block_size=4)
    assert str(error.value) == (
        "block_size=4: the documents have only 3 tokens; lower block_size, give more text, "
        "or, if this is the validation split, raise validation_fraction."
    )
