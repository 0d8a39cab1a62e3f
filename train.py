"""Trains a network, as `jaxdeblur train` does from anywhere.

python train.py --config configs/quickstart.py --workdir runs/quickstart
"""

import sys

from jaxdeblur.cli import train
from jaxdeblur.runtime import signals

if __name__ == "__main__":
    with signals.ending_at_once():
        train.main(sys.argv)
