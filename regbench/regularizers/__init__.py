"""Training losses: one file each, declared by the rule of the same name in rules/regularizers/.

A loss is a frozen dataclass: its fields are the hyperparameters that YAML may set, calling it with
a `Step` returns an `Objective`. It needs no base class, no list is kept of it, and it may as well
live outside this repository. It keeps nothing from one step to the next; where it must, it is a
`torch.nn.Module` and that a buffer, changed in place (regbench.training.contract).
"""
