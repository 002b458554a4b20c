"""The DQN agent: networks, losses, exploration, optimizers, and the update."""
