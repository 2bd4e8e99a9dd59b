#!/usr/bin/env python
"""Train a segmentor on its source domains and evaluate it on every target domain.

python tools/lazyconfig_train_net.py --config-file configs/demo.py
python tools/lazyconfig_train_net.py --config-file configs/demo.py --eval-only
python tools/lazyconfig_train_net.py --config-file configs/demo.py --check
python tools/lazyconfig_train_net.py --config-file F --num-gpus 4 train.output_dir=output/mine
"""

import sys

try:
    from recyclelora.common.command_line import run_command
    from recyclelora.engine.train import main
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)
except Exception as error:  # a broken library can raise any error
    reason = (str(error).splitlines() or [""])[0]
    sys.exit(
        f"error: a package that training needs cannot be imported ({type(error).__name__}: "
        f"{reason}); `{sys.executable} -m recyclelora.collect_env` reports what to install"
    )

if __name__ == "__main__":
    run_command(main)
