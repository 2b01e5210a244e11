"""Files of tasks: each of the names that people use, and nothing lost on the way."""

from __future__ import annotations

from pathlib import Path

from cert.cli.coordinate_setup import split_systems
from cert.cli.coordinate_tasks import read_tasks


def tasks_of(folder: Path, content: str, name: str = "tasks.jsonl"):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return read_tasks(path)


def test_all_fields_arrive(tmp_path):
    """A source that is dropped makes dependent tasks look independent."""
    (task,) = tasks_of(
        tmp_path,
        '{"question": "Q?", "id": 7, "references": ["a", 2.5], "family": "f", "source": "s", '
        '"metadata": {"x": 1}, "topic": "t"}',
    )
    assert (task.text, task.id, task.references) == ("Q?", "7", ("a", "2.5"))
    assert (task.family, task.source, dict(task.metadata)) == ("f", "s", {"x": 1, "topic": "t"})


def test_numbers_are_references_as_they_are_written(tmp_path):
    """42 in a file is the answer "42", not "42.0"."""
    (task,) = tasks_of(tmp_path, '{"prompt": "Q?", "answer": 42}')
    assert task.references == ("42",)


def test_a_text_file_has_one_task_a_line(tmp_path):
    """Empty lines are for people."""
    assert [task.text for task in tasks_of(tmp_path, "\ufeffOne?\r\n\n  Two? \n", "t.txt")] == [
        "One?",
        "Two?",
    ]


def test_systems_may_have_parameters_with_commas():
    """A comma within brackets belongs to the system."""
    assert split_systems("vote, debate(rounds=1,x=2),parallel") == [
        "vote",
        "debate(rounds=1,x=2)",
        "parallel",
    ]
