"""The axes that every row has, in the order in which everything shows them."""

# the eight of the paper's grid
AXES = (
    "architecture",
    "method",
    "steps",
    "optimizer",
    "batch_size",
    "augmentation",
    "extra_data",
    "early_stopping",
)

OPTIONS = ("dataset", "seed", "norm", "eps")  # further axes that every row has

# The order in which people list levels; those not named here follow, sorted; null is last.
_ORDER = ("standard", "at", "trades", "mart", "none", "sgd", "false")


def level_name(level: object) -> str:
    """A level of an axis as it is written in a configuration: ``true``, ``64``, ``trades``.

    Whatever type it has got on its way: Python's, NumPy's or, for null, pandas'.
    """
    text = str(level)
    if text in ("None", "nan", "<NA>"):
        return "null"
    if text in ("True", "False"):
        return text.lower()
    return str(int(level)) if isinstance(level, float) and level.is_integer() else text


def level_order(level: object) -> tuple[int, float, str]:
    """Sort key of levels, in the order to show them."""
    name = level_name(level)
    if name == "null":
        return len(_ORDER) + 1, 0.0, name
    place = _ORDER.index(name) if name in _ORDER else len(_ORDER)
    try:
        return place, float(name), name
    except ValueError:
        return place, 0.0, name
