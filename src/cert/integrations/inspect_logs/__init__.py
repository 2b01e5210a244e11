"""Two logs of Inspect AI, of a baseline and of a candidate on the same samples, compared pair by pair.

::

    comparison = compare_logs(read_log("baseline.eval"), read_log("candidate.eval"), scorer="match")
    comparison.decision.verdict, comparison.decision.difference.interval, comparison.token_ratio

Logs are read without Inspect. They are files that anybody may have made, and are treated so.
"""

from cert.integrations.inspect_logs.comparison import ComparedLog, LogComparison, compare_logs
from cert.integrations.inspect_logs.reading import read_log
from cert.integrations.inspect_logs.records import InspectLog, Record

__all__ = ["ComparedLog", "InspectLog", "LogComparison", "Record", "compare_logs", "read_log"]
