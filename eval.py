"""Evaluates trained weights, as `jaxdeblur eval` does from anywhere.

python eval.py --config configs/atrous_cifar_small.py --workdir runs/atrous --output out
"""

import sys

from jaxdeblur.cli import eval as evaluation
from jaxdeblur.runtime import signals

if __name__ == "__main__":
    with signals.ending_at_once():
        evaluation.main(sys.argv)
