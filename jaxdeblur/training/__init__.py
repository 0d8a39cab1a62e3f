"""Training: `train_and_evaluate` repeats one step, and saves, evaluates and logs meanwhile."""

from jaxdeblur.errors import naming_extra

with naming_extra():
    from jaxdeblur.training.loop import jit_step, train_and_evaluate
    from jaxdeblur.training.state import TrainState, create_state
    from jaxdeblur.training.step import train_step

__all__ = ["TrainState", "create_state", "jit_step", "train_and_evaluate", "train_step"]
