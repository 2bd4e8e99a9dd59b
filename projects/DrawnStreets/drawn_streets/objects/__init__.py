"""The objects of a street: their shapes and how to draw them."""
