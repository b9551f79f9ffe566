from __future__ import annotations

import pytest

from rmat_tutorial.claims import UNKNOWN, Claim


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (Claim("at least 99 %", "99.30 %", True), "met  at least 99 %: 99.30 %"),
        (Claim("at most 1.2", "1.29", False), "NOT MET  at most 1.2: 1.29"),
        (Claim("at most 1.15", UNKNOWN, None), "not measured  at most 1.15"),
        (Claim("at most 1.15", f"{UNKNOWN}: no CUDA device", None), "not measured  at most 1.15: no CUDA device"),
    ],
)
def test_a_claim_says_its_verdict_once_and_then_what_came_or_why_nothing_did(claim: Claim, text: str) -> None:
    assert claim.text.strip() == text


def test_verdicts_stand_in_a_column() -> None:
    lines = [Claim("asked", "found", met).text for met in (True, False, None)]
    assert {line.index("asked") for line in lines} == {14}
