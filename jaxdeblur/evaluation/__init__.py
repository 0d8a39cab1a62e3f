"""Evaluation: PSNR, SSIM and MSE on one stated protocol, beside what is published."""

from jaxdeblur.errors import naming_extra

with naming_extra():
    from jaxdeblur.evaluation.evaluator import Evaluator, run
    from jaxdeblur.evaluation.results import Result

__all__ = ["Evaluator", "Result", "run"]
