"""`pidscale demo` as a script: `ray job submit --working-dir . -- python launch/demo.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["demo", *sys.argv[1:]]))
