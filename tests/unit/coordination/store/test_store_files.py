"""A store's file that is damaged, locked, full, or no store at all: told by name, and never touched."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path

import pytest

from cert.coordination.scripted import ScriptedChat
from cert.coordination.store import CachedChatClient, open_store, schema
from cert.core.errors import StoreError, StoreUnusableError
from cert.core.events import ComponentDegraded, EventHub
from cert.testing import captured_events


async def ask(path, *questions, **options):
    """Ask questions of a store in a file; returns the calls that were made."""
    chat = ScriptedChat(otherwise="answer " * 500)
    async with open_store(path, timeout=0.3, **options) as store:
        client = CachedChatClient(chat, store)
        for question in questions:
            await client.complete(question)
    return len(chat.requests)


def refused(path, **options) -> StoreError:
    """How a store in a file is refused."""
    with pytest.raises(StoreError) as failure:
        asyncio.run(ask(path, "Why?", **options))
    assert str(path) in failure.value.message
    assert failure.value.hint
    return failure.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A store with twenty answers."""
    assert asyncio.run(ask(path, *map(str, range(20)))) == 20
    return path


def test_a_new_file_is_for_its_owner_alone(tmp_path):
    """Answers may be confidential; a shared machine has other users."""
    path = tmp_path / "new" / "folder" / "answers.db"

    async def look():
        async with open_store(path) as store:
            await CachedChatClient(ScriptedChat("a"), store).complete("Why?")
            return {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}

    modes = asyncio.run(look())
    assert set(modes) == {"answers.db", "answers.db-wal", "answers.db-shm"}
    assert set(modes.values()) == {0o600}


def test_the_file_holds_answers_and_no_questions(filled):
    """What a user reads about the store's content has to be so."""
    asyncio.run(ask(filled, "a-question-of-mine"))
    content = filled.read_bytes()
    assert b"answer answer" in content
    assert b"a-question-of-mine" not in content


def test_what_is_cleared_is_gone_from_the_file(filled):
    """Whoever deletes confidential answers expects them not to be there any more."""

    async def clear():
        async with open_store(filled) as store:
            assert await store.clear() == 20

    asyncio.run(clear())
    assert b"answer answer" not in filled.read_bytes()


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_of_something_else_is_refused_and_left_alone(path, content):
    """A slip in a path must not cost a file."""
    path.write_bytes(content)
    error = refused(path)
    assert isinstance(error, StoreUnusableError)
    assert not error.retryable
    assert path.read_bytes() == content


def test_a_damaged_file_is_refused_and_left_alone(filled):
    """A silent new start pays for everything again; a repair is the owner's to decide."""
    content = bytearray(filled.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    filled.write_bytes(content)
    error = refused(filled)
    assert error.context["reason"] == "corrupt"
    assert not error.retryable
    assert filled.read_bytes() == content


def test_a_truncated_file_is_refused_and_left_alone(filled):
    """A copy that broke off is not a store with fewer answers."""
    whole = filled.read_bytes()
    for size in (len(whole) // 2, 4096, 100):
        filled.write_bytes(whole[:size])
        assert isinstance(refused(filled), StoreUnusableError)
        assert filled.read_bytes() == whole[:size]


def test_an_empty_file_is_refused(path):
    """Truncated to nothing it would pass for a new store."""
    path.touch()
    assert "empty" in refused(path).message
    assert path.read_bytes() == b""


def test_an_answer_that_somebody_changed_is_refused(filled):
    """It is not handed out as what a model said, and not paid for again in silence."""
    with contextlib.closing(sqlite3.connect(filled)) as connection:
        connection.execute("UPDATE cert_answers SET value = '{\"text\": '")
        connection.commit()
    with pytest.raises(StoreUnusableError, match="cannot be read"):
        asyncio.run(ask(filled, "1"))


def test_a_database_of_something_else_is_refused(path):
    """Tables of ours in another program's file are a mess that nobody asked for."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()
    assert refused(path).context["reason"] == "foreign"


def test_a_folder_is_refused(tmp_path):
    """The error says what a path has to be."""
    assert refused(tmp_path).context["reason"] == "not_a_file"


def test_a_path_through_a_file_is_refused(path):
    """There is no folder to make the file in."""
    path.write_text("a file")
    assert refused(path / "answers.db").context["reason"] == "cannot_open"


@contextlib.contextmanager
def as_nobody():
    """Act as a user without rights, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_written_is_refused():
    """A store that cannot keep must not let anybody pay."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "answers.db"
        asyncio.run(ask(path, "1"))
        path.chmod(0o444)
        folder.chmod(0o555)
        with as_nobody():
            assert refused(path).context["reason"] == "read_only"
            assert refused(folder / "new.db").context["reason"] == "cannot_open"
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_locked_file_is_waited_for_and_then_an_error_that_may_pass(filled):
    """A backup that holds the file for a second must not end a run; one that never ends must not hang it."""
    with contextlib.closing(sqlite3.connect(filled, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        error = refused(filled)
        assert error.context["reason"] == "busy"
        assert error.retryable
        connection.execute("ROLLBACK")
    assert asyncio.run(ask(filled, "1")) == 0


def test_all_who_wait_for_a_locked_file_give_up_together(filled):
    """Fifty tasks that fail one after the other, each after its time, would hang a run for minutes."""

    async def run():
        loop = asyncio.get_running_loop()
        async with open_store(filled, timeout=0.3) as store:
            client = CachedChatClient(ScriptedChat(otherwise="a"), store)
            await client.complete("1")
            lock = sqlite3.connect(filled, isolation_level=None)
            lock.execute("BEGIN EXCLUSIVE")
            began = loop.time()
            asked = [client.complete(f"new {n}") for n in range(50)]
            told = await asyncio.gather(*asked, return_exceptions=True)
            lock.close()
            assert {type(one) for one in told} == {StoreError}
            assert loop.time() - began < 5
            assert (await client.complete("new 1")).text == "a"

    asyncio.run(run())


def full(store, pages: int | None) -> None:
    """Let the file grow no further, as a full disk does; ``None`` gives it room again."""

    def limit() -> None:
        with store._database._writer.connect() as connection:
            used = connection.exec_driver_sql("PRAGMA page_count").scalar()
            most = 2**30 if pages is None else used + pages
            connection.exec_driver_sql(f"PRAGMA max_page_count = {most}")

    store._database._threads[1].submit(limit).result()


def test_a_paid_answer_that_cannot_be_kept_is_returned_and_told_of(path):
    """The disk is full: the answer is not lost, nothing more is paid, and it is kept when there is room."""
    chat = ScriptedChat(otherwise="answer " * 5000)
    hub = EventHub()

    async def run():
        async with open_store(path, hub=hub) as store:
            client = CachedChatClient(chat, store)
            await client.complete("0")
            full(store, 2)
            told = await client.complete("1")
            assert told.text.startswith("answer")
            assert not told.from_cache
            # In this process it is there, and nobody pays for it again; a new question is not asked.
            assert (await client.complete("1")).from_cache
            with pytest.raises(StoreError) as failure:
                await client.complete("2")
            assert failure.value.context["reason"] == "full"
            assert len(chat.requests) == 2
            full(store, None)
            await client.complete("2")

    with captured_events(hub) as events:
        asyncio.run(run())
    told = [(event.mode, event.active) for event in events.of(ComponentDegraded)]
    assert told == [("answers_in_memory_only", True), ("answers_in_memory_only", False)]

    async def again():
        async with open_store(path) as store:
            return await store.entries(), await store.lost()

    entries, lost = asyncio.run(again())
    assert (entries, lost.calls) == (3, ())


def test_closing_says_which_paid_answers_could_not_be_kept(path):
    """The last moment to say that they will be paid for again."""

    async def run():
        store = open_store(path)
        client = CachedChatClient(ScriptedChat(otherwise="answer " * 5000), store)
        await client.complete("0")
        full(store, 2)
        await client.complete("1")
        with pytest.raises(StoreError, match=r"1 answer for \$\d+\.\d+ could not be kept"):
            await store.aclose()

    asyncio.run(run())


def test_a_newer_store_is_refused(filled):
    """An old program that writes into a new form of the tables would spoil them."""
    with contextlib.closing(sqlite3.connect(filled)) as connection:
        connection.execute("UPDATE cert_store SET value = '2'")
        connection.commit()
    error = refused(filled)
    assert error.context["reason"] == "version"
    assert not error.retryable


def test_an_older_store_is_brought_up_to_date(filled, monkeypatch):
    """A new version of the program must not cost the answers."""
    steps = []
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {1: lambda connection: steps.append(connection.dialect.name)})
    assert asyncio.run(ask(filled, "1")) == asyncio.run(ask(filled, "2")) == 0
    assert steps == ["sqlite"]
