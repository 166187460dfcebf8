#!/usr/bin/env python3
"""Writes the unit tests of the alerts for promtool: each alert with series that must raise it and series that must not."""

import json
import sys

# Name: (series that raise it, series that do not), with 40 samples a minute apart; and when to look, in minutes.
GOOD, BAD = "0x40", "0+5x40"
CASES = {
    "WeftNodeDown": ({'up{job="weft",instance="a"}': GOOD}, {'up{job="weft",instance="a"}': "1x40", 'up{job="other",instance="b"}': "0x40"}),
    "WeftNoNodeReady": (
        {'weft_ready{job="weft",instance="a"}': "0x40", 'weft_ready{job="weft",instance="b"}': "0x40"},
        {'weft_ready{job="weft",instance="a"}': "0x40", 'weft_ready{job="weft",instance="b"}': "1x40"},
    ),
    "WeftNodeNotReady": (
        {
            'weft_ready{job="weft",instance="a"}': "0x40",
            'weft_draining{job="weft",instance="a"}': "0x40",
            'weft_canary_age_seconds{job="weft",instance="a"}': "90x40",
        },
        {'weft_ready{job="weft",instance="a"}': "0x40", 'weft_draining{job="weft",instance="a"}': "1x40"},
    ),
    "WeftMessagesMissed": (
        {'weft_sessions_gap_total{job="weft",instance="a"}': "0x20 1x20", 'weft_gaps_told_total{job="weft",instance="a"}': "0x40"},
        {'weft_sessions_gap_total{job="weft",instance="a"}': "7x40", 'weft_gaps_told_total{job="weft",instance="a"}': "3x40"},
    ),
    "WeftEngineErrors": (
        {'weft_engine_errors_total{job="weft",instance="a"}': "0+60x40"},
        {'weft_engine_errors_total{job="weft",instance="a"}': "0+1x40"},
    ),
    "WeftRedisSlow": (
        {
            'weft_redis_call_seconds_bucket{job="weft",instance="a",script="publish",le="0.25"}': "0+1x40",
            'weft_redis_call_seconds_bucket{job="weft",instance="a",script="publish",le="1"}': "0+100x40",
            'weft_redis_call_seconds_bucket{job="weft",instance="a",script="publish",le="+Inf"}': "0+100x40",
        },
        {
            'weft_redis_call_seconds_bucket{job="weft",instance="a",script="publish",le="0.01"}': "0+100x40",
            'weft_redis_call_seconds_bucket{job="weft",instance="a",script="publish",le="1"}': "0+100x40",
            'weft_redis_call_seconds_bucket{job="weft",instance="a",script="publish",le="+Inf"}': "0+100x40",
        },
    ),
    "WeftRedisReconnects": (
        {'weft_redis_reconnects_total{job="weft",instance="a",connection="feed"}': "0+2x40"},
        {'weft_redis_reconnects_total{job="weft",instance="a",connection="feed"}': "0x20 3x20"},
    ),
    "WeftDeliveryLate": (
        {
            'weft_delivery_seconds_bucket{job="weft",instance="a",le="1"}': "0+1x40",
            'weft_delivery_seconds_bucket{job="weft",instance="a",le="2.5"}': "0+100x40",
            'weft_delivery_seconds_bucket{job="weft",instance="a",le="+Inf"}': "0+100x40",
        },
        {
            'weft_delivery_seconds_bucket{job="weft",instance="a",le="0.01"}': "0+100x40",
            'weft_delivery_seconds_bucket{job="weft",instance="a",le="1"}': "0+100x40",
            'weft_delivery_seconds_bucket{job="weft",instance="a",le="+Inf"}': "0+100x40",
        },
    ),
    "WeftSlowClients": (
        {'weft_attachments{job="weft",instance="a",transport="websocket"}': "1000x40", 'weft_attachments_behind{job="weft",instance="a"}': "100x40"},
        {'weft_attachments{job="weft",instance="a",transport="websocket"}': "1000x40", 'weft_attachments_behind{job="weft",instance="a"}': "10x40"},
    ),
    "WeftConnectionsNearLimit": (
        {'weft_connections{job="weft",instance="a"}': "90000x40", 'weft_connections_limit{job="weft",instance="a"}': "100000x40"},
        {'weft_connections{job="weft",instance="a"}': "50000x40", 'weft_connections_limit{job="weft",instance="a"}': "100000x40"},
    ),
    "WeftFilesNearLimit": (
        {'process_open_fds{job="weft",instance="a"}': "950x40", 'process_max_fds{job="weft",instance="a"}': "1024x40"},
        {'process_open_fds{job="weft",instance="a"}': "100x40", 'process_max_fds{job="weft",instance="a"}': "1024x40"},
    ),
    "WeftSessionsNearLimit": (
        {'weft_limit_reached_total{job="weft",instance="a",limit="sessions"}': "0x20 4x20"},
        {'weft_limit_reached_total{job="weft",instance="a",limit="outbox"}': "0+9x40", 'weft_limit_reached_total{job="weft",instance="a",limit="sessions"}': "4x40"},
    ),
    "WeftRefusals": (
        {
            'weft_messages_refused_total{job="weft",instance="a",code="403"}': "0+600x40",
            'weft_messages_received_total{job="weft",instance="a",kind="publish"}': "0+1000x40",
        },
        {
            'weft_messages_refused_total{job="weft",instance="a",code="403"}': "0+6x40",
            'weft_messages_refused_total{job="weft",instance="a",code="401"}': "0+600x40",
            'weft_messages_received_total{job="weft",instance="a",kind="publish"}': "0+1000x40",
        },
    ),
}
LOOK = "24m"
OPERATOR = ',namespace="ns",pod="weft-1",container="weft",endpoint="internal",service="weft-internal"'


def series(values: dict[str, str]) -> list[dict[str, str]]:
    """As promtool has them, with the labels that an operator's service monitor adds: rules that join two series must not mind."""
    return [{"series": name[:-1] + OPERATOR + "}", "values": samples} for name, samples in values.items()]


def main() -> int:
    """Prints the tests; fails when an alert has none."""
    rules, evaluated = sys.argv[1], sys.argv[2].split()
    if missing := set(evaluated) ^ set(CASES):
        print(f"alerts without a test, or tests without an alert: {sorted(missing)}", file=sys.stderr)
        return 1
    tests = []
    for name, (bad, good) in CASES.items():
        # How often it fires: the labels are the rule's business.
        fires = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
        for values, count in ((bad, 1), (good, 0)):
            tests.append(
                {
                    "interval": "1m",
                    "input_series": series(values),
                    "promql_expr_test": [
                        {"expr": fires, "eval_time": LOOK, "exp_samples": [{"labels": "{}", "value": count}]}
                    ],
                }
            )
    print(json.dumps({"rule_files": [rules], "evaluation_interval": "15s", "tests": tests}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
