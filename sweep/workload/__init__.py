"""What a cell is asked to generate: prompts, input images and the requests made of them."""
