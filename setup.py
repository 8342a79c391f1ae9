"""The list of packages: those that setuptools finds, and configs/, which an installation has as `pidscale.configs`.

pyproject.toml has all else; it can find packages or list them, but not both.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["pidscale", "pidscale.*"]), "pidscale.configs"])
