"""Ray around the two training loops: joining a cluster, waiting for room on it, attempts and their failures, live progress.

Besides this room only the teacher actors and the tasks that make shards know Ray. Nothing is imported here, so that the
bulletin's process imports only its own file.
"""
