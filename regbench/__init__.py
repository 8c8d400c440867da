"""A declarative benchmark harness for robust training.

Data flows one way: config → cards → data → train → attack → results → tables and figures.
Every stage is a program, `python -m regbench.STAGE --help`.
"""

__version__ = "0.1.0"
