"""Health checks: what probes a service, when it runs, and what its results mean.

`runner.CheckRunner` is the entry: it takes definitions and tells of statuses to push. Behind it, `state` (what results
mean), `schedule` and `deadlines` (when things are due) are pure: time and randomness are handed in. Each type of check
has a file with one frozen record of parameters and, for those that probe, one `probe` method; `build` picks the record
for a definition. `connection`, `http2`, `output` and `clients` are what several types share.

May import `lictor.model`; nothing here knows the catalog, the agent's own registry or a door.
"""
