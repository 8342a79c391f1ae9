"""`pidscale solve` as a script: `ray job submit --working-dir . -- python launch/solve.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["solve", *sys.argv[1:]]))
