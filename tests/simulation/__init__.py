"""Whole servers in one process, on virtual time, from one seed that replays exactly.

    python -m tests.simulation --count 1000 --start 0
    python -m tests.simulation --seed 123 --verbose

The servers are real, from `Server` down to the log on disk. What is around them is simulated, a module each: `loop` is
time, `network` what lies between servers, `disk` what is under them, `cluster` their lives and deaths, `faults` what
happens to them, `ambushes` what is aimed at one rule, `clients` who writes and reads, `checks` what must hold, `run`
one seed from beginning to end.
"""
