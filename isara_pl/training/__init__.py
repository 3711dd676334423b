"""What is learned from: pairs as tokens, losses, loaders, the step."""
