"""What layers, losses, optimizers and functions promise, as far as differences cannot see it.

Each rule is a function of a run. Its name stands in the tables of a file, in the order in which
rules are asked; the first line of its docstring is what it says.
"""
