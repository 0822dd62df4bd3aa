"""What will run: cells, features, engine arguments. Decides, and runs nothing."""
