"""Everything that talks to Slurm. Nothing outside this package knows a Slurm command.

``dispatch`` hands a plan over, ``arrays`` decides (pure) which arrays that takes, ``submit`` gives
them to sbatch through submitit, ``job`` is what runs in them, ``queue`` and ``limits`` read.
Slurm is only a view: what is done, failed or missing is on disk, with or without it.
"""
