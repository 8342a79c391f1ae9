"""`pidscale compare` as a script: `ray job submit --working-dir . -- python launch/compare.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["compare", *sys.argv[1:]]))
