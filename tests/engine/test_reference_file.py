"""The file that reference log-probabilities are kept in: whole, believed only if undamaged, shared by runs."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dpo_cli.engine import reference_cache as reference
from dpo_cli.engine.reference_cache import ReferenceCache, cache_folder


def entry(number):
    return {bytes([number]) * 32: (float(number), -float(number))}


def test_runs_that_write_at_the_same_time_keep_each_others_values(tmp_path, monkeypatch):
    right = ReferenceCache._read

    def slow(cache, notice):
        found = right(cache, notice)
        time.sleep(0.02)
        return found

    monkeypatch.setattr(ReferenceCache, "_read", slow)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: ReferenceCache("k", tmp_path).add(entry(number)), range(6)))
    assert ReferenceCache("k", tmp_path).load() == {k: v for n in range(6) for k, v in entry(n).items()}


def test_a_lock_that_nobody_lets_go_of_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(reference, "LOCK_SECONDS", 0.1)
    cache = ReferenceCache("k", tmp_path)
    cache.add(entry(1))
    with (cache.path.parent / "lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cache.add(entry(2))
    assert cache.load() == entry(1) | entry(2)


def test_a_folder_that_cannot_be_locked_is_written_without(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    notices = []
    ReferenceCache("k", tmp_path, notices.append).add(entry(1))
    assert ReferenceCache("k", tmp_path).load() == entry(1)
    assert notices == []


def test_values_that_are_no_numbers_are_not_believed(tmp_path):
    cache = ReferenceCache("k", tmp_path)
    cache.add({b"a" * 32: (float("nan"), 1.0)})
    assert cache.load() == {}


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    cache = ReferenceCache("k", tmp_path)
    cache.add({b"a" * 32: (-1.0, -2.0)})
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    cache.add({b"b" * 32: (-3.0, -4.0)})
    assert cache.load() == {b"a" * 32: (-1.0, -2.0)}
    assert {path.name for path in cache.path.parent.iterdir()} == {"k.safetensors", "lock"}


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("DPO_CLI_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("DPO_CLI_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "dpo-cli"


def test_a_named_pipe_in_the_cache_keeps_nobody_waiting(tmp_path):
    cache = ReferenceCache("k", tmp_path)
    cache.path.parent.mkdir(parents=True)
    os.mkfifo(cache.path.parent / "lock")
    cache.add(entry(1))
    assert cache.load() == entry(1)
    cache.path.unlink()
    os.mkfifo(cache.path)
    assert cache.load() == {}
