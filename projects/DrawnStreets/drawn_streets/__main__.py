"""Draw procedural streets as a dataset: images and label maps of the 19 Cityscapes classes.

python -m drawn_streets datasets/streets/day --count 400
python -m drawn_streets datasets/streets/night --count 40 --domain night --seed 1
"""

import sys

from .command_line import main

if __name__ == "__main__":
    try:
        sys.exit(main(description=__doc__))
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
