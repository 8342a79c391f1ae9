"""pidscale: one-step generators of PDE fields, distilled with the residual of the equation and trained at scale.

    import pidscale
    student = pidscale.load_student("runs/demo/student")
    fields = student.sample(n=16, seed=0)

Loading and using a student needs torch, numpy and safetensors only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["UserError", "__version__", "draw_answer", "draw_fields", "load_student", "load_teacher", "push"]

if TYPE_CHECKING:
    from pidscale.config import UserError
    from pidscale.figures.draw import draw_answer, draw_fields
    from pidscale.generator.hub import push
    from pidscale.generator.load import load_student, load_teacher


def __dir__() -> list[str]:
    return __all__  # what is imported late is completed too


def __getattr__(name: str) -> Any:
    if name in ("load_student", "load_teacher"):
        from pidscale.generator import load

        return getattr(load, name)
    if name in ("draw_answer", "draw_fields"):
        from pidscale.figures import draw

        return getattr(draw, name)
    if name == "push":
        from pidscale.generator.hub import push

        return push
    if name == "UserError":
        from pidscale.config import UserError

        return UserError
    raise AttributeError(f"module 'pidscale' has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """Give a notebook the magic `%pidscale` (docs/notebooks): `%load_ext pidscale` calls this."""
    from pidscale.app.notebook import register

    register(shell)
