"""The batch of a step: counters, their noise and, where the objective takes them, the teacher's endpoints.

Knows no students.
"""

from __future__ import annotations
