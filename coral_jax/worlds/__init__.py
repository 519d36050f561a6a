"""What the domains that were trained here share: the grammar of their captions, and the losses of their CLIPs, their command line."""
