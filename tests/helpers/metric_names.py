"""The Prometheus metrics that the engine serves, by name."""

from __future__ import annotations

import re
from functools import cache

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from reports import make_end, make_report, make_status

from vlfau.engine.sinks.prometheus import Metrics


@cache
def served() -> dict[str, set[str]]:
    """Every metric that a scrape can return -> its labels."""
    metrics = Metrics(":0")
    metrics.write(make_report(0))
    metrics.status(make_status(1))
    metrics.end(make_end())
    samples = [
        sample
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for sample in family.samples
    ]
    return {sample.name: set(sample.labels) for sample in samples}


def known_metrics() -> set[str]:
    return set(served())


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bvlfau_\w+", expression))
