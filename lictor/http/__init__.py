"""Floor 5: the HTTP door. It translates between HTTP and the agent, and decides nothing.

`connection` holds what happens to bytes from a socket, `waiting` the blocking queries, `request` and `reply` the two
ends of a call, `routes` the table of endpoints, `server` the listeners; every other file is one family of endpoints,
each a list of functions marked with `@read`, `@read_local` or `@action`.

Imports anything below it; never `lictor.dns`, `lictor.connect_proxy` or `lictor.ui`.
"""
