#!/usr/bin/env python
"""Train a segmentor on its source domains and evaluate it on every target domain.

python tools/lazyconfig_train_net.py --config-file configs/demo.py
python tools/lazyconfig_train_net.py --config-file configs/demo.py --eval-only
python tools/lazyconfig_train_net.py --config-file configs/demo.py --check
python tools/lazyconfig_train_net.py --config-file F --num-gpus 4 train.output_dir=output/mine
"""

import sys

try:
    from recyclelora.engine.train import main
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)

if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
