"""Answer a question with a student: fields that agree with what is known of them (docs/tasks.md)

  python launch/solve.py forward     --student runs/demo/student --input coefficient.npy --out answer.npz
  python launch/solve.py inverse     --student runs/demo/student --input solution.npy    --out answer.npz --picture answer.png
  python launch/solve.py reconstruct --student runs/demo/student --input sensors.csv     --out answer.npz --posterior 32

With --posterior K, K samples with their mean, spread and pointwise 90 % interval in place of the likeliest field.
"""

from __future__ import annotations

import sys

from pidscale.app.solve import asked_from, carry_out
from pidscale.config import UserError
from pidscale.run.host_limits import is_out_of_memory


def main(words: list[str]) -> int:
    """Do what is asked; the exit status."""
    try:
        carry_out(asked_from(words, __doc__ or ""), lambda line: print(line, flush=True))
        return 0
    except KeyboardInterrupt:
        print("interrupted; no answer was written", file=sys.stderr)
        return 130
    except UserError as error:
        said = str(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = (
            f"out of memory ({str(error).splitlines()[0] if str(error) else 'of this machine'}); give a smaller --batch"
        )
    except OSError as error:
        said = f"{error.filename or 'solve'}: {error.strerror or error}; check the file and its permissions"
    print(f"error: {' '.join(said.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
