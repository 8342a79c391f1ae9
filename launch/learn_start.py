"""`pidscale learn-start` as a script: `ray job submit --working-dir . -- python launch/learn_start.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["learn-start", *sys.argv[1:]]))
