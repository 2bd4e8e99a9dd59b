#!/usr/bin/env python
"""Update the tables of README.md and projects/DrawnStreets/README.md from results/*.json.

python tools/update_readme.py           rewrite them
python tools/update_readme.py --check   exit 1 if one is not what the JSON says
"""

from recyclelora.reproduce.readme import main

if __name__ == "__main__":
    main()
