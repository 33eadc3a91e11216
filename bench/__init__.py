"""Benchmarks: what one operation costs this program, beside its peers in the same run.

    python -m bench            every benchmark whose peers are installed, briefly
    python -m bench kv         one of them
    python -m bench --seconds 2 --rounds 5 kv

The figure to quote is CPU time per operation, read from the kernel's account of the servers' processes, its minimum
over rounds that visit the servers in turn: wall-clock rates say little on a shared machine. A peer that is not
installed is left out by name.
"""
