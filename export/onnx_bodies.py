"""The bodies of the two custom ops, in the text form of ONNX: what `edgemask.export.onnx_ops` makes functions of.

Operators of op set 18 only; the names `@…` are the attributes of the op's node.
"""

from edgemask.ops import LEVEL_TOLERANCE, MAX_CANONICAL_LEVEL

# Corners and area are computed as edgemask.ops does, in float32, in this order: the level of a roi is the
# same bit.
_HEAD = """
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    head_and_box = Constant <value_ints = [1, 4]> ()
    batch_column, boxes = Split <axis = 1> (rois, head_and_box)
    batch_float = Squeeze (batch_column, one)
    batch = Cast <to = 7> (batch_float)
    scales = Constant <value_floats: floats = @spatial_scales> ()
"""
_REACHED = """
    coarser = Constant <value_ints = [{coarser}]> ()
    coarser_scales = Gather (scales, coarser)
    powers_of_two = Constant <value_floats = [{powers}]> ()
    canonical_level_index = Constant <value_int: int = @canonical_level> ()
    canonical_stride = Gather (powers_of_two, canonical_level_index)
    canonical_side = Constant <value_float: float = @canonical_scale> ()
    stride_ratio = Mul (canonical_stride, coarser_scales)
    threshold_side = Div (canonical_side, stride_ratio)
    threshold_area = Mul (threshold_side, threshold_side)
    tolerance = Constant <value_float = {tolerance}> ()
    thresholds = Mul (threshold_area, tolerance)
    upper_left, lower_right = Split <axis = 1, num_outputs = 2> (boxes)
    sides = Sub (lower_right, upper_left)
    width, height = Split <axis = 1, num_outputs = 2> (sides)
    area = Mul (width, height)
    reached = GreaterOrEqual (area, thresholds)
"""
_CALL = """RoiAlign <
        mode = "avg", spatial_scale = 1.0,
        output_height: int = @output_height, output_width: int = @output_width,
        sampling_ratio: int = @sampling_ratio,
        coordinate_transformation_mode: string = @coordinate_transformation_mode>"""

_ONE_LEVEL = f"""
    scaled = Mul (boxes, scales)
    pooled = {_CALL} (level_0, scaled, batch)
"""

_SORTED_LEVELS = """
    reached_count = Cast <to = 7> (reached)
    level = ReduceSum <keepdims = 0> (reached_count, one)
    scale = Gather (scales, level)
    scale_column = Unsqueeze (scale, one)
    scaled = Mul (boxes, scale_column)
"""
_SORTED_LEVEL = """
    number_{i} = Constant <value_int = {i}> ()
    at_{i} = Equal (level, number_{i})
    positions_{i} = NonZero (at_{i})
    index_{i} = Squeeze (positions_{i}, zero)
    rois_{i} = Gather (scaled, index_{i})
    batch_{i} = Gather (batch, index_{i})
    pooled_{i} = {call} (level_{i}, rois_{i}, batch_{i})
"""
# The parts stand in the order of the levels; scattering 0, 1, … to `order` inverts that permutation.
_SORTED_MERGE = """
    order = Concat <axis = 0> ({indices})
    parts = Concat <axis = 0> ({parts})
    start = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    end_vector = Shape (order)
    end = Squeeze (end_vector, zero)
    ascending = Range (start, end, step)
    place = ScatterElements <axis = 0> (order, order, ascending)
    pooled = Gather (parts, place)
"""

# Counted in float32, which is exact here: nothing but the batch index is an integer.
_STATIC_LEVELS = """
    reached_count = Cast <to = 1> (reached)
    level = ReduceSum <keepdims = 1> (reached_count, one)
    nowhere = Constant <value_floats = [0.0]> ()
    height_and_width = Constant <value_ints = [2, 3]> ()
"""
# A roi of another level becomes a box of zeros: one pixel, so that adaptive sampling costs next to nothing.
_STATIC_LEVEL = """
    position_{i} = Constant <value_ints = [{i}]> ()
    scale_{i} = Gather (scales, position_{i})
    scaled_{i} = Mul (boxes, scale_{i})
    number_{i} = Constant <value_float = {i}.0> ()
    at_{i} = Equal (level, number_{i})
    rois_{i} = Where (at_{i}, scaled_{i}, nowhere)
    pooled_{i} = {call} (level_{i}, rois_{i}, batch)
"""
_STATIC_CHOICE = """
    here_{i} = Unsqueeze (at_{i}, height_and_width)
    {chosen} = Where (here_{i}, pooled_{i}, {otherwise})
"""

NMS_BODY = """
    limit = Constant <value_int: int = @max_per_class> ()
    overlap = Constant <value_float: float = @iou_threshold> ()
    lowest = Constant <value_float: float = @score_threshold> ()
    selected = NonMaxSuppression <center_point_box = 0> (boxes, scores, limit, overlap, lowest)
"""


def roi_align_body(levels: int, *, static: bool) -> str:
    """Return the statements that turn `level_0`, …, `rois` and the attributes into `pooled`.

    Args:
        levels: of the pyramid.
        static: as for `edgemask.export.onnx_ops.roi_align_function`.
    """
    if levels == 1:
        return _HEAD + _ONE_LEVEL
    reached = _REACHED.format(
        coarser=", ".join(str(level) for level in range(1, levels)),
        powers=", ".join(f"{2.0**level}" for level in range(MAX_CANONICAL_LEVEL + 1)),
        tolerance=repr(float(LEVEL_TOLERANCE)),
    )
    return _HEAD + reached + (_static(levels) if static else _sorted(levels))


def _sorted(levels: int) -> str:
    """Each level pools its own rois; their order is restored at the end."""
    body = _SORTED_LEVELS + "".join(_SORTED_LEVEL.format(i=level, call=_CALL) for level in range(levels))
    return body + _SORTED_MERGE.format(
        indices=", ".join(f"index_{level}" for level in range(levels)),
        parts=", ".join(f"pooled_{level}" for level in range(levels)),
    )


def _static(levels: int) -> str:
    """Each level pools every roi; the roi's own level is chosen at the end."""
    body = _STATIC_LEVELS + "".join(_STATIC_LEVEL.format(i=level, call=_CALL) for level in range(levels))
    chosen = "pooled_0"
    for level in range(1, levels):
        otherwise, chosen = chosen, "pooled" if level == levels - 1 else f"chosen_{level}"
        body += _STATIC_CHOICE.format(i=level, chosen=chosen, otherwise=otherwise)
    return body
