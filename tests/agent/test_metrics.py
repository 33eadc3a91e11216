"""What is counted, when an interval ends, and the forms in which others read it."""

from __future__ import annotations

import math

import msgspec
import pytest

from lictor.agent import metrics as metrics_module
from lictor.agent.metrics import Metrics, PrefixFilter, Telemetry, from_config
from lictor.agent.metrics_format import datagrams, number, prometheus, prometheus_name, statsd_lines, summary

START = 1_700_000_003.0


def test_the_json_form_is_that_of_consul() -> None:
    metrics = Metrics(START)
    requests = metrics.counter("rpc.request")
    requests.add()
    requests.add(3)
    metrics.sample("fsm.kvs", op="set").add(0.5)
    metrics.gauge("runtime.alloc_bytes").set(7)
    form = msgspec.to_builtins(summary(metrics, START + 1))
    assert form == {
        "Timestamp": "2023-11-14 22:13:20 +0000 UTC",
        "Gauges": [{"Name": "consul.runtime.alloc_bytes", "Value": 7, "Labels": {}}],
        "Points": [],
        "Counters": [
            {
                "Name": "consul.rpc.request",
                "Count": 2,
                "Rate": 0.4,
                "Sum": 4,
                "Min": 1,
                "Max": 3,
                "Mean": 2,
                "Stddev": math.sqrt(2),
                "Labels": {},
            }
        ],
        "Samples": [
            {
                "Name": "consul.fsm.kvs",
                "Count": 1,
                "Rate": 0.05,
                "Sum": 0.5,
                "Min": 0.5,
                "Max": 0.5,
                "Mean": 0.5,
                "Stddev": 0,
                "Labels": {"op": "set"},
            }
        ],
    }
    assert list(form) == ["Timestamp", "Gauges", "Points", "Counters", "Samples"]


def test_the_last_finished_interval_is_shown_and_a_minute_is_kept() -> None:
    metrics = Metrics(START)
    requests = metrics.counter("c")
    for interval in range(8):
        requests.add(interval)
        metrics.tick(START + 10 * (interval + 1))
    requests.add(100)
    assert [counter.sum for counter in summary(metrics, START + 81).counters] == [7]
    kept = metrics.intervals(START + 81)
    assert [what.sum for interval in kept for _, what in interval.counters] == [2, 3, 4, 5, 6, 7]
    assert [what.sum for _, what in metrics.shown(START + 95).counters] == [100]
    assert summary(metrics, START + 200).counters == []


def test_an_interval_lasts_until_its_time_is_over() -> None:
    metrics = Metrics(START)
    assert metrics.tick(START + 6.9) is None
    closed = metrics.tick(START + 7)
    assert closed is not None
    assert closed.start == 1_700_000_000.0


def test_the_same_name_and_labels_are_the_same_handle() -> None:
    metrics = Metrics(START)
    assert metrics.counter("a", x="1") is metrics.counter("a", x="1")
    assert metrics.counter("a", x="1") is not metrics.counter("a", x="2")
    assert metrics.sample("a") is metrics.sample("a")
    assert metrics.gauge("a") is metrics.gauge("a")


def test_a_gauge_can_be_computed_when_asked() -> None:
    metrics = Metrics(START)
    state = [1.0]
    metrics.gauge_of("now", lambda: state[0])
    metrics.gauge("never set")
    state[0] = 5
    assert [(gauge.name, gauge.value) for gauge in summary(metrics, START).gauges] == [("consul.now", 5)]


def test_names_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_HANDLES", 10)
    metrics = Metrics(START)
    for number_ in range(1000):
        metrics.counter("path", path=str(number_)).add()
        metrics.gauge("path", path=str(number_)).set(1)
    assert len(summary(metrics, START).counters) + len(summary(metrics, START).gauges) == 10


def test_the_longest_prefix_decides_what_is_published() -> None:
    metrics = Metrics(START, filter=PrefixFilter(("-consul.raft", "+consul.raft.apply")))
    for name in ("raft.apply", "raft.barrier", "rpc.query"):
        metrics.counter(name).add()
    assert [counter.name for counter in summary(metrics, START).counters] == ["consul.raft.apply", "consul.rpc.query"]
    assert not PrefixFilter(("+a", "-a")).allows("ab")
    assert not PrefixFilter((), default=False).allows("x")
    with pytest.raises(ValueError, match=r"Filter rule must begin with either '\+' or '-'"):
        PrefixFilter(("consul",))


def test_gauges_carry_the_hosts_name_only_where_there_is_a_sink() -> None:
    def gauge(config: Telemetry) -> str:
        metrics = from_config(config, START, "host7")
        metrics.gauge("g").set(1)
        return summary(metrics, START).gauges[0].name

    assert gauge(Telemetry()) == "consul.g"
    assert gauge(Telemetry(prometheus_retention=60)) == "consul.host7.g"
    assert gauge(Telemetry(prometheus_retention=60, disable_hostname=True)) == "consul.g"
    assert gauge(Telemetry(metrics_prefix="lictor")) == "lictor.g"


def test_the_prometheus_form() -> None:
    metrics = Metrics(START)
    metrics.counter("rpc.request").add(2)
    for value in range(1, 101):
        metrics.sample("fsm.kvs", op='s"et').add(value)
    metrics.gauge("raft.state-x").set(1.5)
    metrics.tick(START + 10)
    metrics.counter("rpc.request").add(3)
    assert prometheus(metrics, START + 11, 60) == (
        "# HELP consul_fsm_kvs consul_fsm_kvs\n"
        "# TYPE consul_fsm_kvs summary\n"
        'consul_fsm_kvs{op="s\\"et",quantile="0.5"} 50\n'
        'consul_fsm_kvs{op="s\\"et",quantile="0.9"} 90\n'
        'consul_fsm_kvs{op="s\\"et",quantile="0.99"} 99\n'
        'consul_fsm_kvs_sum{op="s\\"et"} 5050\n'
        'consul_fsm_kvs_count{op="s\\"et"} 100\n'
        "# HELP consul_raft_state_x consul_raft_state_x\n"
        "# TYPE consul_raft_state_x gauge\n"
        "consul_raft_state_x 1.5\n"
        "# HELP consul_rpc_request consul_rpc_request\n"
        "# TYPE consul_rpc_request counter\n"
        "consul_rpc_request 5\n"
    )
    later = prometheus(metrics, START + 200, 60)
    assert "consul_rpc_request 5" in later, "counted in the interval that ends with this very reading"
    assert "consul_fsm_kvs" not in later
    assert "consul_rpc_request" not in prometheus(metrics, START + 400, 60)


def test_quantiles_without_recent_values_are_no_numbers_but_the_sums_stay() -> None:
    metrics = Metrics(START)
    metrics.sample("s").add(4)
    metrics.tick(START + 10)
    metrics.tick(START + 20)
    text = prometheus(metrics, START + 21, 60)
    assert 'consul_s{quantile="0.5"} NaN' in text
    assert "consul_s_sum 4" in text


def test_names_that_collide_make_one_family_of_one_kind() -> None:
    metrics = Metrics(START)
    metrics.counter("a.b").add()
    metrics.gauge("a-b").set(1)
    assert prometheus(metrics, START, 60).count("# TYPE consul_a_b ") == 1
    assert prometheus_name("1.x/y=z w") == "_1_x_y_z_w"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (0.5, "0.5"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (2e20, "2e+20")],
)
def test_numbers_of_the_exposition_format(value: float, text: str) -> None:
    assert number(value) == text


def test_many_values_of_a_sample_keep_the_sums_and_bound_the_memory() -> None:
    metrics = Metrics(START)
    sample = metrics.sample("s")
    for value in range(5000):
        sample.add(value)
    what = sample.peek()
    assert what is not None
    assert (what.count, what.max, len(what.values)) == (5000, 4999, metrics_module.MAX_SAMPLED)
    assert min(what.values) >= 5000 - metrics_module.MAX_SAMPLED - 1


def test_the_lines_for_statsd_and_dogstatsd() -> None:
    metrics = Metrics(START)
    metrics.counter("c", dc="dc1").add(2)
    metrics.sample("s").add(1.5)
    metrics.gauge("g:x").set(3)
    closed = metrics.tick(START + 10)
    assert closed is not None
    assert list(statsd_lines(metrics, closed)) == ["consul.c.dc1:2|c", "consul.g_x:3|g", "consul.s:1.5|ms"]
    assert list(statsd_lines(metrics, closed, ("env:t",)))[0] == "consul.c:2|c|#env:t,dc:dc1"
    assert list(statsd_lines(metrics, closed, ()))[2] == "consul.s:1.5|ms"


def test_datagrams_fit_a_frame_and_split_no_line() -> None:
    lines = [f"consul.metric.{index}:1|c" for index in range(500)]
    packed = list(datagrams(iter(lines)))
    assert all(len(datagram) <= 1400 for datagram in packed)
    assert b"".join(packed).decode().splitlines() == lines
