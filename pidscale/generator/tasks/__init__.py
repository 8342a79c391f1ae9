"""Forward and inverse problems, reconstruction from sensors, posterior samples."""
