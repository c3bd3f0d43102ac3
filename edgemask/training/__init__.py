"""Training of R-CNNs on COCO-format data: one loop, resumed where it was killed, on one processor or on several."""

from edgemask.training.plan import TrainingPlan
from edgemask.training.running import TrainingReport, evaluate, train
from edgemask.training.team import processes

__all__ = ["TrainingPlan", "TrainingReport", "evaluate", "processes", "train"]
