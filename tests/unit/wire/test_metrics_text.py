"""Prometheus' text format, read back by the rules of its page."""

from __future__ import annotations

from celeriac.wire.metrics_text import MetricsText


def test_numbers_labels_and_what_must_be_escaped():
    made = MetricsText()
    made.add("a_total", "counter", "Two\nlines \\ and one.", 3)
    made.add("b", "gauge", "Labelled.", [({"task": 'x"y\\z\n', "queue": "ü"}, 0.25), ({}, float("inf")), ({}, 1e20)])
    assert str(made).splitlines() == [
        "# HELP a_total Two\\nlines \\\\ and one.",
        "# TYPE a_total counter",
        "a_total 3",
        "# HELP b Labelled.",
        "# TYPE b gauge",
        'b{task="x\\"y\\\\z\\n",queue="ü"} 0.25',
        "b +Inf",
        "b 1e+20",
    ]
    assert str(made).endswith("\n")


def test_a_histogram_adds_its_buckets_up():
    made = MetricsText()
    made.add_histogram("run_seconds", "Times.", (0.5, 1.0), [({"task": "t"}, [1, 0, 2], 7.5)])
    assert str(made).splitlines()[2:] == [
        'run_seconds_bucket{task="t",le="0.5"} 1',
        'run_seconds_bucket{task="t",le="1"} 1',
        'run_seconds_bucket{task="t",le="+Inf"} 3',
        'run_seconds_sum{task="t"} 7.5',
        'run_seconds_count{task="t"} 3',
    ]


def test_what_a_stranger_named_is_cut_off_and_can_be_written():
    made = MetricsText()
    made.add("a", "gauge", "x", [({"task": "t" * 5000 + "\ud800"}, 1), ({"task": "\ud800"}, 1)])
    assert max(map(len, str(made).splitlines())) < 300
    str(made).encode()
