"""Learning an edit: the loop around the step, its devices, its folder, and what a finished run leaves there."""
