"""Ranks for tests: `pidscale.parallel.spawn.spawn`, from a server that has imported both training loops."""

from __future__ import annotations

from functools import partial

from pidscale.parallel import spawn as ranks

spawn = partial(ranks.spawn, preload=("deepspeed", "pidscale.teacher.loop", "pidscale.distill.loop"))
