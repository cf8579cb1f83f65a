"""The pure parts of the files layer: keys, types, the mapping of errors."""

from __future__ import annotations

import asyncio
import errno
import inspect
import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore import exceptions as obstore_exceptions

from fourfold.errors import (
    ConfigurationError,
    FourfoldError,
    NotFoundError,
    StoreRejectedError,
    StoreUnavailableError,
    ValidationError,
)
from fourfold.objects import store_errors
from fourfold.objects.content_type import check_content_type, guess_content_type
from fourfold.objects.key import check_key, key_of_path, new_key, path_of
from fourfold.objects.store import _in_thread
from fourfold.objects.store_errors import map_store_error, mapped_store_errors
from fourfold.rows.types import FileKey

KEY = "3c6e0b8a-9c15-4224-a822-8b9ad1e4a5b1"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "..",
        "../" + KEY,
        "/" + KEY,
        "C:\\" + KEY,
        KEY + "/..",
        KEY + "\x00",
        KEY + "\n",
        KEY.upper(),
        KEY.replace("-", ""),
        "{" + KEY + "}",
        KEY.replace("-", "\u2010"),  # hyphen, the real one
        KEY.replace("3", "\uff13"),  # full-width digit
        KEY.replace("c", "\u0441"),  # Cyrillic
        "a" * 4096,
        None,
        7,
        uuid.UUID(KEY),
        KEY.encode(),
    ],
)
def test_s01_only_the_one_form_of_a_uuid_is_a_key(key):
    with pytest.raises(ValidationError) as caught:
        path_of(key)
    assert caught.value.code == "objects.key_form"
    assert len(str(caught.value)) < 250


@given(st.text())
def test_s01_keys_and_columns_agree_on_the_form(text):
    def accepts(check):
        try:
            return check(text) is not None
        except ValidationError:
            return False

    assert accepts(check_key) == accepts(lambda value: FileKey().process_bind_param(value, None))


def test_a_new_key_is_a_key_and_its_path_leads_back():
    key = new_key()
    assert check_key(key) == key
    assert key_of_path(path_of(key)) == key


@pytest.mark.parametrize("path", [KEY, f"objects/{KEY}", f"objects/ff/{KEY}", "store-id", f"objects/3c/{KEY}.txt", ""])
def test_what_lies_elsewhere_has_no_key(path):
    assert key_of_path(path) is None


@pytest.mark.parametrize(
    ("filename", "head", "expected"),
    [
        ("song.flac", b"OggS", "audio/flac"),
        ("SONG.MP3", b"", "audio/mpeg"),
        ("notes.txt.gz", b"\x1f\x8b\x08", "application/gzip"),
        ("archive.gz", b"", "application/octet-stream"),
        ("no suffix", b"\x89PNG\r\n\x1a\n", "image/png"),
        (None, b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (None, b"\x00\x00\x00\x20ftypheic", "image/heic"),
        (None, b"\x00\x00\x00\x20ftypisom", "video/mp4"),
        (None, b"hello", "application/octet-stream"),
        (None, b"", "application/octet-stream"),
    ],
)
def test_the_name_says_the_type_then_the_first_bytes(filename, head, expected):
    assert guess_content_type(filename, head) == expected


@pytest.mark.parametrize(
    "content_type",
    ["", "text", "text/", "/plain", "text/plain\r\n", "text/plain;\x00", "tëxt/plain", "a/b\r\nSet-Cookie: c\r\n;d"]
    + [f"text/plain{space};q=1" for space in ("\n", "\r\n\r\n", "\x0b", "\u2028")],
)
def test_what_is_no_content_type_is_refused(content_type):
    with pytest.raises(ValidationError) as caught:
        check_content_type(content_type)
    assert caught.value.code == "objects.content_type"


def obstore_classes():
    return [kind for _, kind in inspect.getmembers(obstore_exceptions, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", obstore_classes(), ids=lambda kind: kind.__name__)
def test_every_exception_of_obstore_is_mapped_by_name(kind):
    assert kind.__name__ in store_errors._CLASSES
    with pytest.raises(FourfoldError) as caught, mapped_store_errors("read", KEY):
        raise kind("a secret endpoint")
    error = caught.value
    assert error.code.startswith("objects.")
    assert error.key == KEY
    assert "secret" not in str(error)
    assert isinstance(error.__cause__, kind)


def test_the_walk_sees_all_of_obstore():
    assert len(obstore_classes()) >= 12


def test_a_class_that_a_later_obstore_adds_is_an_outcome_unknown():
    class NewError(obstore_exceptions.BaseError):
        pass

    assert isinstance(map_store_error(NewError(), "read", KEY), StoreUnavailableError)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (FileNotFoundError(), NotFoundError, "objects.not_found"),
        (OSError(errno.ENOENT, ""), NotFoundError, "objects.not_found"),
        (OSError(errno.ENOSPC, ""), StoreUnavailableError, "objects.disk_full"),
        (OSError(errno.EACCES, ""), StoreRejectedError, "objects.denied"),
        (OSError(errno.EIO, ""), StoreUnavailableError, "objects.unavailable"),
        (OSError(99_999, ""), StoreUnavailableError, "objects.unavailable"),
        (OSError("no number"), StoreUnavailableError, "objects.unavailable"),
        (obstore_exceptions.UnknownConfigurationKeyError(), ConfigurationError, "objects.configuration"),
    ],
)
def test_errors_of_the_system_are_mapped_by_number(error, kind, code):
    mapped = map_store_error(error, "read", KEY)
    assert type(mapped) is kind
    assert mapped.code == code


def test_a_write_that_misses_a_folder_is_no_missing_object():
    mapped = map_store_error(FileNotFoundError(), "write", KEY)
    assert (type(mapped), mapped.code) == (StoreUnavailableError, "objects.unavailable")


def test_what_is_none_of_a_store_passes():
    with pytest.raises(ZeroDivisionError), mapped_store_errors("read", KEY):
        raise ZeroDivisionError


async def test_what_a_cancelled_caller_will_not_get_is_discarded():
    """A file that was opened in a thread for somebody who is gone must be closed."""
    began, go_on = threading.Event(), threading.Event()
    discarded = []

    def opens():
        began.set()
        go_on.wait(10)
        return "opened"

    task = asyncio.create_task(_in_thread(opens, discard=discarded.append))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "the thread is still at it"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert discarded == ["opened"]
