"""What every measure stands on: the per-model context, folding, definitions, the guarded run.

The measures themselves are the files one level up, one measure or family of variants each.
"""
