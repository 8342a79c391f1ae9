"""`pidscale train` as a script: `ray job submit --working-dir . -- python launch/train_teacher.py ...`"""

import sys

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
