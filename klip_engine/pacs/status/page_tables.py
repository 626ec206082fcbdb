"""The tables of the status page: failures with their buttons, studies, queue, doors and destinations, trouble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from klip_engine.pacs.config import ServiceConfig
from klip_engine.pacs.event_log import hide_uids
from klip_engine.pacs.event_tally import EventTally
from klip_engine.pacs.journal.overview import DestinationRow, Overview, StudyRow
from klip_engine.pacs.status.ages import ago, duration
from klip_engine.pacs.status.health import dead_letters
from klip_engine.pacs.status.snapshot import Snapshot
from klip_engine.words import counted

_TROUBLES = 12
_LOOSE_FACTS = ("reason", "job", "study", "instance", "series", "object", "attempts", "again_in_s")

Pseudonym = Callable[[str], str]


def failures(snapshot: Snapshot, journal: Overview, pseudonym: Pseudonym, token: str) -> str:
    """What failed for good, each with a button to try it again; empty where nothing did."""
    rows = [
        (
            _name(job.key[:12]),
            f"Detection on study {_name(pseudonym(job.study))}",
            _sentence(job.reason),
            escape(ago(job.ended_at or snapshot.at, snapshot.at)),
            _button(token, f"job-{job.key}", "Try again", f"Try job {job.key[:12]} again"),
        )
        for job in journal.dead_jobs
    ]
    rows += [
        (
            _name(one.job[:12]),
            escape(f"{one.object.upper()} to {one.destination}"),
            _sentence(one.reason),
            escape(ago(one.ended_at or snapshot.at, snapshot.at)),
            _button(token, f"delivery-{one.id}", "Try again", f"Send {one.object} of job {one.job[:12]} again"),
        )
        for one in journal.dead_deliveries
    ]
    if not rows:
        return ""
    total = dead_letters(journal)
    more = f'<p class="soft">The newest {len(rows)} of {total} are shown.</p>' if total > len(rows) else ""
    everything = _button(token, "all", "Try all again", "Try everything that failed again")
    return (
        f'<section><div class="title"><h2>Failed for good</h2>{everything}</div>'
        f"{_table(('Job', 'What', 'Why', 'When', ''), rows)}{more}</section>"
    )


def last_studies(snapshot: Snapshot, journal: Overview, pseudonym: Pseudonym) -> str:
    """The studies that got images last, and what became of them."""
    if not journal.last_studies:
        return "<section><h2>Last studies</h2><p class='soft'>None has arrived yet.</p></section>"
    rows = [
        (
            _name(pseudonym(study.uid)),
            f'<span class="time">{escape(ago(study.last_at, snapshot.at))}</span>',
            f'<span class="number">{study.images}</span>',
            _series(study),
            _outcome(study),
        )
        for study in journal.last_studies
    ]
    table = _table(("Study", "Last image", "Images", "Series", "Now"), rows)
    return f"<section><h2>Last studies</h2>{table}</section>"


def queue(snapshot: Snapshot, journal: Overview, pseudonym: Pseudonym) -> str:
    """Jobs that wait, the next one first."""
    rows = []
    for job in journal.queued:
        waits = escape(duration(snapshot.at - job.created_at))
        if job.not_before > snapshot.at:
            waits += f", again in {escape(duration(job.not_before - snapshot.at))}: {_sentence(job.reason)}"
        rows.append((_name(job.key[:12]), _name(pseudonym(job.study)), waits))
    more = journal.jobs.get("queued", 0) - len(rows)
    rest = f'<p class="soft">And {more} more.</p>' if more > 0 else ""
    body = _table(("Job", "Study", "Waits for"), rows) if rows else "<p class='soft'>Empty.</p>"
    return f"<section><h2>Queue</h2>{body}{rest}</section>"


def routes(snapshot: Snapshot, journal: Overview, config: ServiceConfig) -> str:
    """Where studies come from and where results go."""
    doors = []
    if config.listener is not None:
        peers = counted(len(config.listener.peers), "known peer")
        doors.append(f"DICOM listener {config.listener.ae_title} ({peers})")
    doors += [f"watched server {watch.name}" for watch in config.dicomweb]
    doors += ["watched folder" for _ in config.folders]
    known = {row.name: row for row in journal.destinations}
    for one in config.destinations:
        known.setdefault(one.name, DestinationRow(one.name, {}, None, None, ""))
    rows = [
        (
            escape(row.name),
            str(row.counts.get("done", 0)),
            str(row.counts.get("waiting", 0) + row.counts.get("committing", 0)),
            _destination_state(snapshot, row),
        )
        for row in known.values()
    ]
    return (
        f"<section><h2>From and to</h2><p>From: {escape(', '.join(doors))}.</p>"
        f"{_table(('To', 'Arrived', 'Waiting', 'Now'), rows)}</section>"
    )


def troubles(snapshot: Snapshot, tally: EventTally) -> str:
    """The last warnings and errors of this run; empty where there are none."""
    rows = []
    for one in tally.troubles()[:_TROUBLES]:
        facts = dict(one.facts)
        where = ", ".join(value for key, value in one.facts if key not in _LOOSE_FACTS)
        rows.append(
            (
                f'<span class="time">{escape(ago(one.at, snapshot.at))}</span>',
                escape(one.event.replace("-", " ")),
                escape(hide_uids(where)),
                _sentence(facts.get("reason", "")),
                str(one.times) if one.times > 1 else "once",
            )
        )
    if not rows:
        return ""
    return f"<section><h2>Lately</h2>{_table(('When', 'What', 'Where', 'Why', 'Times'), rows)}</section>"


def _series(study: StudyRow) -> str:
    """What was decided, equal reasons counted together."""
    if not study.series:
        return ""
    chosen = sum(is_chosen for is_chosen, _ in study.series)
    left = [hide_uids(reason) for is_chosen, reason in study.series if not is_chosen]
    told = [f"{left.count(one)} × {one}" if left.count(one) > 1 else one for one in dict.fromkeys(left)]
    parts = [f"{chosen} chosen"] if chosen else []
    parts += [f"left out: {', '.join(told)}"] if told else []
    return escape("; ".join(parts))


def _outcome(study: StudyRow) -> str:
    """Where the study is on its way, in one phrase."""
    if study.state == "receiving":
        return "arriving"
    if not study.jobs:
        return '<span class="soft">nothing to process</span>'
    newest, counts = study.jobs[0], study.deliveries
    arrived, dead, total = counts.get("done", 0), counts.get("dead", 0), sum(counts.values())
    if newest == "dead":
        return '<span class="failing">failed for good</span>'
    if newest in ("queued", "running"):
        return "waits for its turn" if newest == "queued" else "in hand"
    if arrived < total:
        worst, failed = ("failing", f", {dead} failed for good") if dead else ("attention", "")
        return f'<span class="{worst}">{arrived} of {counted(total, "result")} delivered{failed}</span>'
    removed = ", images removed" if study.state == "removed" else ""
    return f'<span class="well">{counted(total, "result")} delivered</span>{removed}'


def _destination_state(snapshot: Snapshot, row: DestinationRow) -> str:
    if row.failing_since is not None:
        since = escape(duration(snapshot.at - row.failing_since))
        return f'<span class="attention">not reached for {since}</span>: {_sentence(row.reason)}'
    if row.counts.get("dead"):
        return f'<span class="failing">{row.counts["dead"]} failed for good</span>'
    return '<span class="well">well</span>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; on a phone each row becomes a small list with the heads as labels."""
    top = "".join(f"<th>{escape(one)}</th>" for one in heads)
    lines = ["".join(_cell(*pair) for pair in zip(heads, row, strict=True)) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table class="wide"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _cell(head: str, content: str) -> str:
    return f'<td data-label="{escape(head)}">' + (f"<div>{content}</div>" if content else "") + "</td>"


def _button(token: str, what: str, text: str, label: str) -> str:
    return (
        '<form method="post" action="/retry">'
        f'<input type="hidden" name="token" value="{escape(token)}">'
        f'<button name="what" value="{escape(what)}" aria-label="{escape(label)}">{text}</button></form>'
    )


def _name(pseudonym: str) -> str:
    return f'<span class="name">{escape(pseudonym)}</span>'


def _sentence(reason: str) -> str:
    return escape(hide_uids(reason))
