"""Draw procedural streets as a dataset: images and label maps of the 19 Cityscapes classes.

python tools/draw_streets.py datasets/streets/day --count 400
python tools/draw_streets.py datasets/streets/night --count 40 --domain night --seed 1
"""

import sys

try:
    from drawn_streets.command_line import main
    from recyclelora.common.command_line import tolerate_any_text
    from recyclelora.common.validation import format_error
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)

if __name__ == "__main__":
    tolerate_any_text()
    try:
        sys.exit(main(description=__doc__, format_error=format_error))
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
