"""`pidscale make-endpoints` as a script: `ray job submit --working-dir . -- python launch/make_endpoints.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["make-endpoints", *sys.argv[1:]]))
