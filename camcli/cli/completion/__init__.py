"""Completion of what is typed in a shell: what could stand there, and the shells' scripts."""
