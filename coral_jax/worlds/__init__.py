"""What the domains that were trained here share: the grammar of captions, losses of CLIPs, how trainings start and run."""
