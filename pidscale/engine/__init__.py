"""What one worker trains with: ZeRO, split layers and windows, weight averages, checkpoints, guards. Knows no equations."""
