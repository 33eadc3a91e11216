"""`lictor connect ps`: what is shown of sidecars and their processes."""

from lictor.cli import check_proxies
from lictor.cli.connect.ps import length, table

OWN = {
    "ID": "db-sidecar-proxy",
    "Service": "db",
    "Address": "::1",
    "Port": 21002,
    "Launch": "",
    "Upstreams": 0,
    "Status": "critical",
    "Process": None,
}
LAUNCHED = {
    "ID": "web-sidecar-proxy",
    "Service": "web",
    "Address": "10.0.0.1",
    "Port": 21000,
    "Launch": "builtin",
    "Upstreams": 2,
    "Status": "passing",
    "Process": {
        "Program": "node",
        "Kind": "builtin",
        "State": "waiting",
        "PID": 0,
        "Restarts": 3,
        "Seconds": 3725.2,
        "Reason": "exit status 1: no",
        "Memory": 0,
        "Output": "/var/lib/lictor/proxies/node.log",
    },
}


def test_each_sidecar_has_a_row_whoever_starts_its_proxy() -> None:
    heading, own, launched = table([OWN, LAUNCHED], detailed=False)
    assert dict(zip(heading, own, strict=True)) == {
        "ID": "db-sidecar-proxy",
        "Service": "db",
        "Address": "[::1]:21002",
        "Upstreams": "0",
        "Health": "critical",
        "Proxy": "-",
        "State": "not launched here",
        "PID": "-",
        "For": "-",
        "Restarts": "-",
        "Memory": "-",
    }
    assert launched[4:] == ["passing", "builtin", "waiting", "-", "1h2m", "3", "-"]


def test_details_tell_why_a_process_ended_and_where_its_output_is() -> None:
    heading, _, launched = table([OWN, LAUNCHED], detailed=True)
    assert heading[-3:] == ["Output", "Last ended", "Cannot listen on"]
    assert launched[-3:] == ["/var/lib/lictor/proxies/node.log", "exit status 1: no", "-"]


def test_a_proxy_that_cannot_listen_is_deaf_and_details_tell_where_and_why() -> None:
    deaf = LAUNCHED | {"Deaf": [{"Address": "127.0.0.1:9191", "Reason": "Address already in use"}]}
    _, row = table([deaf], detailed=True)
    assert row[6] == "waiting, deaf to 1"
    assert row[-1] == "127.0.0.1:9191 (Address already in use)"
    (found,) = check_proxies.deaf([OWN, deaf])
    assert found.text == "the proxy 'web-sidecar-proxy' cannot listen on 127.0.0.1:9191: Address already in use"


def test_a_length_of_time_is_its_two_largest_units() -> None:
    assert [length(seconds) for seconds in (0.4, 61, 3600, 90061)] == ["0s", "1m1s", "1h0m", "1d1h"]
