"""Ray around the two loops: joining a cluster, room on it, attempts and what ended them, live progress.

With the teacher actors and the tasks that make shards the only code that knows Ray. Nothing is imported here: the bulletin's
process needs its own file alone.
"""
