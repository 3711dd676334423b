"""Text generation: what the loop asks for, and the engine that gives it."""
