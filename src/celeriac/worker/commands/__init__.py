"""What a worker can be asked and told while it runs: one function per command of remote control."""
