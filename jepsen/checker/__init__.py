"""Is a history linearizable? `check(history, model)` tells, and shows where it is not.

`history` holds what clients asked and were told, `models` what single objects may answer, `search` decides, `picture`
draws the place where a history went wrong. Nothing here does I/O but `picture.save`, or knows where a history came
from: a simulation on virtual time may use it as well as a run of real servers.
"""

from jepsen.checker.history import FOREVER, Operation, Recorder
from jepsen.checker.search import Result, Verdict, check, check_by_key

__all__ = ["FOREVER", "Operation", "Recorder", "Result", "Verdict", "check", "check_by_key"]
