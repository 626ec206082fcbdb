"""/metrics, read by Prometheus' own parser, against what the journal holds."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from klip_engine.pacs.status.answers import Answers
from tests.pacs.busy_journal import NOW, get


def test_metrics_hold_what_the_journal_holds(scene, answers):
    samples = {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(get(answers, "/metrics")[1])
        for one in family.samples
    }
    for state, count in {"queued": 1, "running": 1, "done": 3, "dead": 1, "superseded": 0}.items():
        assert samples["klip_jobs", ("state", state)] == count == scene.journal.jobs.counts().get(state, 0)
    for (name, state), count in scene.journal.deliveries.counts().items():
        assert samples["klip_deliveries", ("destination", name), ("state", state)] == count
    assert samples["klip_studies", ("state", "receiving")] == 1
    assert samples["klip_instances_received_total", ("outcome", "new")] == 20
    assert samples["klip_instances",] == 20
    assert samples["klip_job_running_seconds",] == 260
    assert samples["klip_jobs_oldest_queued_seconds",] == 640
    assert samples["klip_destination_failing_seconds", ("destination", "viewer")] == 2600
    assert samples["klip_dead_letters", ("kind", "job")] == samples["klip_dead_letters", ("kind", "delivery")] == 1
    assert samples["klip_events_total", ("event", "not-delivered")] == 9


def test_histograms_count_durations(answers):
    families = {one.name: one for one in text_string_to_metric_families(get(answers, "/metrics")[1])}
    found = {(s.name, s.labels.get("le")): s.value for s in families["klip_job_seconds"].samples}
    assert found["klip_job_seconds_sum", None] == 410 + 655 + 380
    assert [found["klip_job_seconds_bucket", le] for le in ("300", "600", "1200", "+Inf")] == [0, 2, 3, 3]
    delivered = {(s.name, s.labels.get("le")): s.value for s in families["klip_delivery_seconds"].samples}
    assert [delivered["klip_delivery_seconds_bucket", le] for le in ("1", "5", "+Inf")] == [0, 19, 19]


def test_names_from_the_configuration_cannot_break_the_format(scene):
    scene.tally.add('odd"\\name\nklip_jobs{state="done"} 99', NOW, {}, is_trouble=False)
    answers = Answers(scene.config.status, scene.watched, scene.journal, lambda *_, **__: None)
    families = {one.name: one for one in text_string_to_metric_families(get(answers, "/metrics")[1])}
    events = [one.labels["event"] for one in families["klip_events"].samples]
    assert 'odd"\\name\nklip_jobs{state="done"} 99' in events
    assert {one.value for one in families["klip_jobs"].samples} == {0, 1, 3}
