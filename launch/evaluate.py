"""`pidscale evaluate` as a script: `ray job submit --working-dir . -- python launch/evaluate.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
