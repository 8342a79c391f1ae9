"""`pidscale make-shards` as a script: `ray job submit --working-dir . -- python launch/make_shards.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["make-shards", *sys.argv[1:]]))
