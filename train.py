"""Trains a network, as `jaxdeblur train` does from anywhere.

python train.py --config configs/quickstart.py --workdir runs/quickstart
"""

import sys

from jaxdeblur.cli import train

if __name__ == "__main__":
    train.main(sys.argv)
