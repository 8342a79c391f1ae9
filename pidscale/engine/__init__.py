"""One worker's machinery: ZeRO, weight averages, checkpoints, consolidation. Knows no equations."""
