"""What a log holds when nobody looks: lines now and then instead of a bar."""

from __future__ import annotations

from klip_engine import console
from klip_engine.console import RichReporter


def test_a_log_has_a_line_at_both_ends_of_a_stage_and_not_one_for_every_step(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    reporter = RichReporter()
    for done in range(1, 101):
        now[0] += 1.0
        reporter.progress("calibrating", done, 100)
    reporter.progress("[reading]", 1, 2)
    reporter.close()
    said = capsys.readouterr().err.splitlines()
    usual = "learning what is usual under these settings (only the first time)"
    assert said == [
        f"{usual}: 1 of 100",
        f"{usual}: 31 of 100",
        f"{usual}: 61 of 100",
        f"{usual}: 91 of 100",
        f"{usual}: 100 of 100",
        "[reading]: 1 of 2",
    ]
