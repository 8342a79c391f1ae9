"""Methods: ways to ask a generator. Each takes a generator and a question and returns fields. README.md lists them.

A new method is a file here, an entry in METHODS and a row in README.md (docs/own_method.md).
"""

from __future__ import annotations

from typing import Any

from pidscale.methods.base import Finish, Method
from pidscale.methods.cocogen import CoCoGen
from pidscale.methods.controls import Head, Shuffled, Smooth, SolveInput, Trivial, Truth
from pidscale.methods.d_flow import DFlow
from pidscale.methods.diffusion_pde import DiffusionPde
from pidscale.methods.direct import Direct, MeanField
from pidscale.methods.dps import Dps
from pidscale.methods.eci import Eci
from pidscale.methods.few_calls import FewCalls
from pidscale.methods.nearest import Nearest
from pidscale.methods.one_call import OneCall
from pidscale.methods.pcfm import Pcfm
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.methods.refine import Refine
from pidscale.methods.regression import Predict
from pidscale.methods.search import LatentSearch

METHODS: dict[str, type[Any]] = {
    "one_call": OneCall,
    "few_calls": FewCalls,
    "refine": Refine,
    "latent_search": LatentSearch,
    "probability_flow": ProbabilityFlow,
    "eci": Eci,
    "pcfm": Pcfm,
    "dps": Dps,
    "diffusion_pde": DiffusionPde,
    "d_flow": DFlow,
    "cocogen": CoCoGen,
    "direct": Direct,
    "regression": Predict,
    "nearest": Nearest,
    "mean_field": MeanField,
    "truth": Truth,
    "trivial": Trivial,
    "shuffled": Shuffled,
}
FINISHES: dict[str, type[Any]] = {"head": Head, "smooth": Smooth, "solve_input": SolveInput}

__all__ = ["FINISHES", "METHODS", "Finish", "Method"]
