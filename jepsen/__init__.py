"""Tests of what clients may rely on: real servers, real faults, histories that are checked.

`checker` decides whether a history could have come from a single, unbroken copy of the data. Everything else here makes
histories: servers as processes, clients that write down what they asked and what they were told, and nemeses that
kill, freeze and starve the servers meanwhile. Nothing here is imported by the program.
"""
