"""The noise levels that a checkpoint was trained on, and how a schedule's steps are laid on them."""
