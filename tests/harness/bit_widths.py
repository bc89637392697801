"""The numbers of bits at which cases are tested."""

from __future__ import annotations

import pytest


def with_bits(cases, only_eight=()):
    """Parameters (case, bits): each case at 8 bits, and at 4 or at 2.

    The slow suite has the others.

    Args:
        cases: Names of the cases.
        only_eight: Those that the default suite tests at 8 bits alone: they are large,
            or move codes without computing with them.
    """
    parameters = []
    for number, case in enumerate(cases):
        low = () if case in only_eight else ((4, 2)[number % 2],)
        for bits in (8, 4, 2):
            marks = () if bits in (8, *low) else (pytest.mark.slow,)
            parameters.append(pytest.param(case, bits, marks=marks))
    return parameters
