"""The contract: cases that run against the reference Consul and against Lictor; what passes there must pass here.

Two kinds of cases live here. *Scenarios* (``scenarios/**/*.txt``) are requests with the recorded answers of the
reference, a person can read them like a manual. *Python cases* (``test_*.py``) state what a recording cannot: timing,
blocking, big or binary bodies. See ``README.md`` in this folder.
"""
