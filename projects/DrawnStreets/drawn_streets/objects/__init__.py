"""The objects of a street: how each is shaped and drawn."""
