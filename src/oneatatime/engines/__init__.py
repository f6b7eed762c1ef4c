"""Work that outgrows one process or one machine, on engines that people have: a module for each.

`dask`, `ray`, `spark` and `daft` read a deployment as their own kind of table; `processes` needs no engine at
all. Nothing of an engine is imported before its module is.
"""
