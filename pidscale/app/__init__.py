"""The `pidscale` command: one parser, one error boundary."""
