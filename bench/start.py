"""How long an agent takes from its start to its first answer, and what it costs while nobody asks."""

import time

from bench.harness import Options, agents, close_all


def run(options: Options) -> None:
    """Measure and print."""
    starts: dict[str, list[float]] = {}
    print("\n## Start to first answer, and idle\n")
    for _ in range(options.rounds):
        peers = agents()
        for peer in peers:
            starts.setdefault(peer.name, []).append(peer.start_seconds)
        close_all(peers)
    peers = agents()
    try:
        seconds = max(5.0, 5 * options.seconds)
        time.sleep(2)
        before = [peer.cpu() for peer in peers]
        time.sleep(seconds)
        print("| server | start, best s | idle, % of a core | resident MB |\n| --- | --- | --- | --- |")
        for peer, used in zip(peers, before, strict=True):
            idle = (peer.cpu() - used) / seconds * 100
            print(f"| {peer.name} | {min(starts[peer.name]):.2f} | {idle:.2f} | {peer.resident() / 1e6:.0f} |")
    finally:
        close_all(peers)
