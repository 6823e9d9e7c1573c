"""How a task meets a model."""
