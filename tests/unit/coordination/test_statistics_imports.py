"""The statistics load without scipy, and name the extra when they need it."""

import subprocess
import sys
import textwrap


def run(program):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    ).stdout


def test_statistics_load_without_scipy_and_name_the_extra():
    """Whoever lacks the extra can still import the monitor, and reads what to install."""
    program = """
        import sys
        sys.modules["scipy"] = None
        from cert.coordination import statistics
        from cert.core.errors import DependencyMissingError
        print(statistics.pair([0.5, 0.7], [0.4, 0.4]).differences.mean().round(3))
        try:
            statistics.decide([0.5, 0.7], [0.4, 0.4])
        except DependencyMissingError as error:
            print(error.hint)
    """
    assert run(program).split("\n")[:2] == ["0.2", "pip install 'cert-framework[coordination]'"]


def test_scipy_is_not_loaded_before_an_interval_needs_it():
    """`import cert.coordination` is part of every service's start."""
    assert run("import sys, cert.coordination.statistics; print('scipy' in sys.modules)").strip() == "False"
