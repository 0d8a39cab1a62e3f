"""Evaluates trained weights, as `jaxdeblur eval` does from anywhere.

python eval.py --config configs/atrous_cifar_small.py --workdir runs/atrous --output out
"""

import sys

from jaxdeblur.cli import eval as evaluation

if __name__ == "__main__":
    evaluation.main(sys.argv)
