"""A person's own photograph: the face found and aligned, inverted, and its edit pasted back."""
