"""Synthetic tasks: facts in long streams of background, and questions that need them, in constant memory.

A task knows nothing of models. It says which tokens it uses, what a perfect reader and a guessing one would
score, and hands out batches that a seed makes repeatable.
"""

from .copying import CopyTask
from .keys import KeyValueTask, key_name
from .mqar import MQARTask
from .placed import Episode, PlacedTask, VariedTask
from .recall import RecallTask
from .rewrite import RewriteTask
from .source import IGNORED, Source
from .stories import StoriesTask

TASKS: dict[str, type[PlacedTask]] = {
    task.kind: task for task in (RecallTask, RewriteTask, CopyTask, MQARTask, StoriesTask)
}
"""Every task by the name that the command line and the checkpoints know it by."""

__all__ = [
    "IGNORED", "TASKS", "CopyTask", "Episode", "KeyValueTask", "MQARTask", "PlacedTask", "RecallTask", "RewriteTask",
    "Source", "StoriesTask", "VariedTask", "key_name",
]
