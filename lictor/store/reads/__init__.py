"""The reads: pure functions from a view of the store to the values that the doors show.

Each notes what it looks at through its `View`; each gives records or plain containers that encode as the API's JSON.
One file a family, as in `lictor.http`. They decide nothing about HTTP or DNS.
"""
