"""How the course trains when nobody says otherwise: a model and settings for each task, and for text."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .config import RMATConfig
from .tasks import TASKS
from .training import TrainSettings


@dataclass(frozen=True)
class Recipe:
    """What ``train`` does when no option says otherwise: how the shipped checkpoint of that name was made,
    where there is one."""

    config: RMATConfig
    settings: TrainSettings


# Steps are cheap while streams are short. So these tasks, which take longer to learn, are learned well before streams
# grow, and gates are shut when all else is there.
_TASK_RECIPE = Recipe(
    RMATConfig(write_slots=16, gate="hard"),
    TrainSettings(steps=1600, grow_below=0.15, ragged=True, gate_penalty_from=1200, gate_margin=0.6),
)
_LONG_SEGMENTS = Recipe(
    replace(_TASK_RECIPE.config, segment_len=64, chunk_size=16), replace(_TASK_RECIPE.settings, max_segments=8)
)
RECIPES = {
    **dict.fromkeys(TASKS, _TASK_RECIPE),
    "recall": Recipe(RMATConfig(write_slots=8, gate="hard"), TrainSettings()),
    # Where facts are replaced all the time, gates have to open often, and a bank has been written more often than one
    # stream writes it: a small penalty, and streams that follow each other.
    "rewrite": replace(_TASK_RECIPE, settings=replace(
        _TASK_RECIPE.settings, steps=2000, vary_facts=True, restart=0.2, gate_penalty=0.3, gate_penalty_from=1500)),
    # A passage that the border between two segments cuts is hard to put together again. Long segments cut fewer.
    "copy": _LONG_SEGMENTS,
    # A segment must hold the shortest story and its questions. There everybody goes somewhere once: whose place it is
    # is learned first, and which place is the latest when streams have grown.
    "stories": replace(_LONG_SEGMENTS, settings=replace(_LONG_SEGMENTS.settings, steps=2800, vary_facts=True,
                                                        gate_penalty_from=2100)),
    "text": Recipe(
        RMATConfig(d_model=96, segment_len=64, chunk_size=16, gate="hard"),
        TrainSettings(steps=3000, batch_size=16, max_segments=8, grow_below=None, gate_penalty=0.0, warmup=200),
    ),
}
