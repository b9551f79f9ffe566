"""How fast: attention against other ways of doing it, whole models against others, and the bars they are held to.

What is compared is measured in turn, round after round in one process, so that whatever slows the machine slows all
alike. What is told is the ratio within a round: its median and its quartiles over the rounds.
"""

from .plan import Case, cases
from .published import PACKAGE
from .run import result_name, run_cases
from .table import describe
from .verdict import claims

__all__ = ["PACKAGE", "Case", "cases", "claims", "describe", "result_name", "run_cases"]
