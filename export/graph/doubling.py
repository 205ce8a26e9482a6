"""Convolutions of a picture that nearest neighbours have doubled: those whose input is one, in a master's form."""

import onnx_ir as ir

from .layers import Layer, only_user


def doubled_input(layer: Layer) -> ir.Value | None:
    """What a nearest-neighbour doubling makes the convolution's input of; None if nothing else does."""
    resize = layer.input.producer()
    if resize is None or resize.op_type != "Resize" or only_user(layer.input) is None:
        return None
    scales = resize.inputs[2] if len(resize.inputs) == 3 else None
    factors = ir.convenience.get_const_tensor(scales) if scales is not None else None
    how = [resize.attributes.get_string(n, "") for n in ("mode", "coordinate_transformation_mode", "nearest_mode")]
    if factors is None or factors.numpy().tolist() != [1, 1, 2, 2] or how != ["nearest", "asymmetric", "floor"]:
        return None
    return resize.inputs[0]
