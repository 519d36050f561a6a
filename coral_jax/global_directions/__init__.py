"""StyleCLIP's global directions: what each style channel of a domain does in CLIP's eyes, found once per domain."""
