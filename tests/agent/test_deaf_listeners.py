"""What proxies say of addresses that they cannot listen on: the last word counts, for a while, of those that exist."""

from lictor.agent.deaf_listeners import MOST, Deaf, DeafListeners

ONE, OTHER = Deaf("127.0.0.1:80", "Permission denied"), Deaf("127.0.0.1:9191", "Address already in use")


def test_the_last_report_of_a_proxy_counts() -> None:
    told = DeafListeners(lambda: {"web", "db"})
    told.report("web", (ONE, OTHER), 0.0)
    told.report("db", (ONE,), 0.0)
    told.report("web", (OTHER,), 1.0)
    assert told.reports(2.0) == {"web": (OTHER,), "db": (ONE,)}
    told.report("web", (), 3.0)
    assert told.reports(3.0) == {"db": (ONE,)}


def test_what_is_not_said_again_and_who_is_not_registered_any_more_is_forgotten() -> None:
    there = {"web", "db"}
    told = DeafListeners(lambda: there)
    told.report("web", (ONE,), 0.0)
    told.report("db", (ONE,), 80.0)
    assert told.reports(91.0) == {"db": (ONE,)}
    there.discard("db")
    assert told.reports(92.0) == {}


def test_of_many_a_bounded_number_is_kept() -> None:
    told = DeafListeners(lambda: {"web"})
    told.report("web", tuple(Deaf(f"127.0.0.1:{port}", "x") for port in range(2 * MOST)), 0.0)
    assert len(told.reports(0.0)["web"]) == MOST
