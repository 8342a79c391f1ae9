"""The numerics that make data. Shares no operator with `ops`, so that one wrong stencil cannot hide in both."""
