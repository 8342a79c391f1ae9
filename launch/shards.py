"""`pidscale shards` as a script: `ray job submit --working-dir . -- python launch/shards.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["shards", *sys.argv[1:]]))
