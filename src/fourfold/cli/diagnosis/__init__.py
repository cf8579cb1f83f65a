"""What `fourfold doctor` looks at: the machine, the settings, each store in turn. Every check ends in a `Finding`."""
