"""Networks: parts that build a torch module for an environment."""
