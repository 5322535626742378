"""Events on their way: followed, searched for."""
