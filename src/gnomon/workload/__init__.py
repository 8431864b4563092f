"""What a model computes: the program built from a task, its operator graph, its cost and its memory."""
