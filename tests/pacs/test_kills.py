"""The service is killed (SIGKILL) at random moments: no study lost, none made into two different results."""

from __future__ import annotations

import pytest

from tests.pacs.kills import storm


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_while_receiving_processing_and_sending(orthanc, tmp_path, seed):
    outcome = storm(tmp_path, orthanc, kills=5, studies=2, seed=seed)
    assert outcome.faults == []
