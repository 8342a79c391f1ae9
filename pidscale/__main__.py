"""`python -m pidscale COMMAND ...` is `pidscale COMMAND ...`."""

from pidscale.app.main import main

if __name__ == "__main__":
    raise SystemExit(main())
