"""The Spark engine: the same functions as the local engine calls, over the executors of a cluster.

Needs the extra ``spark``. What runs on executors lies in :mod:`.reading` and :mod:`.deciding`, what runs where the
command was called in :mod:`.session`, :mod:`.inputs` and :mod:`.job`.
"""
