"""`pidscale convert` as a script: `ray job submit --working-dir . -- python launch/convert.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["convert", *sys.argv[1:]]))
