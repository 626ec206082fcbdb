"""Brings results to one destination: again and again with growing pauses, for days, until all of it is there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from klip_engine.errors import KlipError
from klip_engine.pacs.config import Destination
from klip_engine.pacs.dead_letters import DeadLetters
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.journal import Deliveries, Delivery
from klip_engine.pacs.sending import Answer, Sender, Verdict

_FIRST_PAUSE_S = 2.0
_DAY_S = 86400.0
COMMITMENT_WAIT_S = 600.0
"""How long a peer may take to commit before an object is sent again."""


class Courier:
    """Serves one destination."""

    def __init__(
        self,
        destination: Destination,
        deliveries: Deliveries,
        sender: Sender,
        result: Callable[[str], Path],
        dead_letters: DeadLetters,
        events: Events,
        clock: Callable[[], float] = time.time,
        commitment: Callable[[Sequence[Path]], bool] | None = None,
    ) -> None:
        """`result`: the result folder of a job, by its key; `commitment`: asks the peer to commit to files, False

        where it does not offer that; None: it is not asked.
        """
        self._destination, self._deliveries, self._sender = destination, deliveries, sender
        self._result, self._dead, self._events, self._clock = result, dead_letters, events, clock
        self._commitment = commitment
        self._random = random.Random()
        self._away = 0
        self._away_until = 0.0

    def deliver_due(self) -> int:
        """Send what is due; returns how many objects arrived."""
        now = self._clock()
        if now < self._away_until:
            return 0
        for delivery in self._deliveries.overdue(self._destination.name, now):
            self._try_again(delivery, "the peer did not commit to it in time")
        due = self._deliveries.due(self._destination.name, now)
        if not due:
            return 0
        arrived = self._send(due)
        if arrived and self._commitment is not None:
            self._ask_commitment(arrived)
        return len(arrived)

    def _send(self, due: list[Delivery]) -> list[Delivery]:
        """Each answer is journaled as it comes in, so that a crash sends hardly anything twice."""
        arrived: list[Delivery] = []
        present = [delivery for delivery in due if self._is_present(delivery)]
        waiting = iter(present)
        try:
            for answer in self._sender([self._file(delivery) for delivery in present]):
                delivery = next(waiting)
                if self._settle(delivery, answer):
                    arrived.append(delivery)
        except KlipError as error:
            for delivery in waiting:
                self._try_again(delivery, str(error))
        return arrived

    def _settle(self, delivery: Delivery, answer: Answer) -> bool:
        """Journal an answer; True where the object has arrived."""
        if answer.verdict is not Verdict.AWAY:
            self._away, self._away_until = 0, 0.0
        if answer.verdict is Verdict.ARRIVED:
            if self._commitment is None:
                self._done(delivery)
            return True
        if answer.verdict is Verdict.UNKNOWN_KIND and delivery.fallback:
            self._fall_back(delivery, answer.reason)
        elif answer.verdict in (Verdict.UNKNOWN_KIND, Verdict.REFUSED):
            self._bury(delivery, answer.reason)
        else:
            self._try_again(delivery, answer.reason, is_away=answer.verdict is Verdict.AWAY)
        return False

    def _done(self, delivery: Delivery) -> None:
        self._deliveries.done(delivery, self._clock())
        self._say("delivered", delivery)

    def _fall_back(self, delivery: Delivery, reason: str) -> None:
        """The destination does not know label maps: the plain segmentation goes instead, once."""
        others = self._deliveries.of_job(delivery.job)
        sent_anyway = any(
            other.destination == delivery.destination and other.file == delivery.fallback for other in others
        )
        if sent_anyway:
            self._deliveries.done(delivery, self._clock())
        else:
            self._deliveries.fall_back(delivery, reason)
        self._say("fell-back", delivery, Level.WARNING, reason=reason)

    def _try_again(self, delivery: Delivery, reason: str, *, is_away: bool = False) -> None:
        now = self._clock()
        since = delivery.failing_since
        if since is not None and now - since > self._destination.give_up_after_days * _DAY_S:
            self._bury(delivery, f"{reason}; given up after {self._destination.give_up_after_days:g} days")
            return
        failures = delivery.attempts
        if is_away:
            failures, self._away = self._away, self._away + 1
        pause = self._pause(failures)
        if is_away:
            self._away_until = now + pause
        self._deliveries.try_again(delivery, now + pause, reason, now)
        self._say("not-delivered", delivery, Level.WARNING, reason=reason, again_in_s=round(pause, 1))

    def _pause(self, failures: int) -> float:
        """Doubling, shaken by up to half so that services do not come back all at once, and bounded."""
        longest = min(self._destination.longest_pause_s, _FIRST_PAUSE_S * 2 ** min(failures, 30))
        return longest * self._random.uniform(0.5, 1.0)

    def _bury(self, delivery: Delivery, reason: str) -> None:
        self._dead.bury_delivery(delivery, self._file(delivery), reason)
        self._deliveries.bury(delivery, reason, self._clock())
        self._say("delivery-dead", delivery, Level.ERROR, reason=reason)

    def _ask_commitment(self, arrived: list[Delivery]) -> None:
        """What is not committed in time is sent again (an object that is there already does no harm)."""
        assert self._commitment is not None
        until = self._clock() + COMMITMENT_WAIT_S
        for delivery in arrived:
            self._deliveries.committing(delivery, until)
        if not self._commitment([self._file(delivery) for delivery in arrived]):
            for delivery in arrived:
                self._done(delivery)

    def _is_present(self, delivery: Delivery) -> bool:
        if self._file(delivery).is_file():
            return True
        self._bury(delivery, "the result is not there any more; process the study again")
        return False

    def _file(self, delivery: Delivery) -> Path:
        return self._result(delivery.job) / delivery.file

    def _say(self, event: str, delivery: Delivery, level: Level = Level.INFO, **facts: str | float) -> None:
        self._events(
            event, level, job=delivery.job[:12], destination=self._destination.name, object=delivery.object, **facts
        )
