"""The status page: one HTML document without scripts that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from klip_engine.detection import NOTICE
from klip_engine.pacs.event_log import hide_uids
from klip_engine.pacs.event_tally import EventTally
from klip_engine.pacs.status.ages import ago, clock_time, duration, size
from klip_engine.pacs.status.health import Condition, Health, dead_letters, waiting_deliveries
from klip_engine.pacs.status.page_style import STYLE
from klip_engine.pacs.status.page_tables import failures, last_studies, queue, routes, troubles
from klip_engine.pacs.status.snapshot import Snapshot, Watched
from klip_engine.version import __version__
from klip_engine.words import counted

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy: the page's own style and form, nothing else."""

_EVERY_S = 15
_IN_WORDS = {
    Condition.WELL: "The service is well",
    Condition.ATTENTION: "The service works, but a person should look",
    Condition.FAILING: "The service is failing",
}


def render_page(
    snapshot: Snapshot, health: Health, watched: Watched, *, token: str, retried: int | None, refresh: bool
) -> str:
    """The page. token: what its forms send back; retried: how many were just asked to be tried again."""
    sections = [
        f'<p class="notice" role="note">{escape(NOTICE)}</p>',
        _verdict(health, retried),
        _tiles(snapshot),
    ]
    journal = snapshot.journal
    if journal is not None:
        sections += [
            failures(snapshot, journal, watched.pseudonym, token),
            f'<div class="pair">{_in_hand(snapshot)}{_received(snapshot, watched.tally)}</div>',
            last_studies(snapshot, journal, watched.pseudonym),
            f'<div class="pair">{queue(snapshot, journal, watched.pseudonym)}'
            f"{routes(snapshot, journal, watched.config)}</div>",
        ]
    sections.append(troubles(snapshot, watched.tally))
    return _document(snapshot, [section for section in sections if section], refresh)


def _document(snapshot: Snapshot, sections: list[str], refresh: bool) -> str:
    again = f'<meta http-equiv="refresh" content="{_EVERY_S}; url=/">\n' if refresh else ""
    other = (
        f'renewed every {_EVERY_S} s (<a href="/?refresh=off">stop</a>)'
        if refresh
        else 'not renewed (<a href="/">renew</a>)'
    )
    moment = escape(clock_time(snapshot.at))
    up = duration(snapshot.at - snapshot.started_at)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"{again}<title>KLIP service</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            f'<header><h1>KLIP service</h1><span class="when">{moment}, {other}</span></header>\n<main>',
            *sections,
            "</main>",
            f"<footer><p>klip-engine {escape(__version__)}, up for {up}. Studies, series and jobs appear under "
            'names that only this installation can resolve. For programs: <a href="/health">health</a>, '
            f'<a href="/metrics">metrics</a>.</p><p>{escape(NOTICE)}</p></footer>\n</body>\n</html>\n',
        ]
    )


def _verdict(health: Health, retried: int | None) -> str:
    reasons = "".join(f"<li>{escape(hide_uids(one))}</li>" for one in (*health.failures, *health.concerns))
    done = ""
    if retried is not None:
        done = f'<p role="status">{counted(retried, "dead letter")} will be tried again.</p>'
    return (
        f'<section class="verdict {health.condition}"><strong class="{health.condition}">'
        f"{_IN_WORDS[health.condition]}.</strong>{f'<ul>{reasons}</ul>' if reasons else ''}{done}</section>"
    )


def _tiles(snapshot: Snapshot) -> str:
    journal = snapshot.journal
    free = f"{size(snapshot.disk_free)}"
    tiles = [(free, "disk free", snapshot.disk_free < 2 * snapshot.disk_reserve)]
    if journal is not None:
        dead = dead_letters(journal)
        tiles = [
            (str(journal.studies.get("receiving", 0)), "studies arriving", False),
            (str(journal.jobs.get("queued", 0)), "jobs waiting", False),
            (str(journal.jobs.get("running", 0)), "in hand", False),
            (str(waiting_deliveries(journal)), "results to deliver", False),
            (str(journal.jobs.get("done", 0)), "jobs done", False),
            (str(dead), "failed for good", dead > 0),
            *tiles,
        ]
    boxes = "".join(
        f'<div class="tile{" bad" if is_bad else ""}"><b>{number}</b><span class="soft">{what}</span></div>'
        for number, what, is_bad in tiles
    )
    return f'<div class="tiles">{boxes}</div>'


def _in_hand(snapshot: Snapshot) -> str:
    progress, journal = snapshot.progress, snapshot.journal
    running = journal.running if journal else ()
    if not running:
        return "<section><h2>In hand</h2><p class='soft'>Nothing.</p></section>"
    job = running[0]
    since = duration(snapshot.at - (job.started_at or snapshot.at))
    bar = ""
    if progress is not None and progress.job == job.key and progress.total > 0:
        stage = escape(progress.stage)
        bar = (
            f"<p>{stage}: {progress.done} of {progress.total}</p>"
            f'<progress max="{progress.total}" value="{progress.done}" aria-label="{stage}"></progress>'
        )
    return (
        f'<section><h2>In hand</h2><p>Job <span class="name">{escape(job.key[:12])}</span>, for {since}</p>'
        f"{bar}</section>"
    )


def _received(snapshot: Snapshot, tally: EventTally) -> str:
    """Images of each of the last 60 minutes as bars."""
    counts = tally.per_minute("instance-stored", snapshot.at)
    top = max(counts)
    bars = "".join(
        f'<rect x="{10 * k + 1}" y="{54 - 50 * count / top:.1f}" width="8" height="{50 * count / top:.1f}"/>'
        for k, count in enumerate(counts)
        if count
    )
    last = ""
    if snapshot.journal is not None and snapshot.journal.last_received is not None:
        last = f"; the last one {ago(snapshot.journal.last_received, snapshot.at)}"
    words = f"{counted(sum(counts), 'image')} in the last hour, at most {top} a minute{last}"
    return (
        f"<section><h2>Received</h2><p>{words}.</p>"
        f'<svg viewBox="0 0 600 56" preserveAspectRatio="none" role="img" aria-label="{words}">'
        f'{bars}<line x1="0" y1="55" x2="600" y2="55"/></svg></section>'
    )
