"""What the Redis broker and the Redis result store share: connections, errors, key names, scripts."""
