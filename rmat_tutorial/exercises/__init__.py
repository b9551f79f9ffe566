"""Exercises that check themselves.

``check`` sets a learner's function beside an independent reference and says what is likely wrong. To add exercises,
write a file like ``attention.py`` and add it to ``registry.py``. Nothing here imports the code that it checks.
"""

from .checker import check
from .registry import EXERCISES

__all__ = ["EXERCISES", "check"]
