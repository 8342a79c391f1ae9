"""`pidscale distill` as a script: `ray job submit --working-dir . -- python launch/distill.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["distill", *sys.argv[1:]]))
