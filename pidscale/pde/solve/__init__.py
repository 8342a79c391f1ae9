"""Numerical solvers that make data. They share no operator with `ops`, so that one wrong stencil cannot hide in both."""
