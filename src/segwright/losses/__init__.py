"""One file per loss. The dataclass is the loss: Dice()(logits, target)."""
