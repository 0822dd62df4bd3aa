"""What will run: cells, features, what an engine is told. Decides, and runs nothing."""
