"""What a cell generates: prompts, input images and the requests built from them."""
