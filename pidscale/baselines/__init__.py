"""The other methods, one short file each, on the same data and the same residual."""
