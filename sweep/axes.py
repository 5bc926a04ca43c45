"""The eight axes of the paper's grid, in the order in which everything shows them."""

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
