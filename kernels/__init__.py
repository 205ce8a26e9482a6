"""GPU kernels for SDXL's U-Net in Triton: the lowest floor, which imports nothing of the others.

`ops` has the torch ops, `layers` the modules made of them, `sdxl` the calls that the U-Nets make. Importing this
package loads neither torch nor Triton: the launch plans (`launch`, and each op's `plan.py`) can be used without them.
"""
